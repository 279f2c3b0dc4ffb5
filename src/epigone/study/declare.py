"""The study file: strict, typed, frozen."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from epigone.errors import UnknownName, UserError
from epigone.study.feedback import Feedback, check_feedback
from epigone.study.judge import Judge
from epigone.study.published import Rows, check_rows
from epigone.study.rating import Raters
from epigone.study.recipes import Recipe
from epigone.study.specs import FORMATS, MIXES, RULES, SCORERS, Kind
from epigone.study.style import Style
from epigone.study.sweeps import Sweep, Variant, variants
from epigone.study.teacher import Synthesis, Teacher, by_task_name
from epigone.study.values import (
    Amount,
    Declared,
    Mistake,
    Name,
    Reference,
    Source,
    by_reference,
)


def _format(value: str) -> str:
    if value and value not in FORMATS:
        raise Mistake((), UnknownName("format", value, FORMATS))
    return value


def _task(value: str) -> str:
    if not re.fullmatch(r"[\w.+-]{1,100}", value):
        raise ValueError("a task's name has letters, digits, '_', '-', '.' and '+'")
    return value


def _language(value: str) -> str:
    value = value.strip()
    if value not in LANGUAGES and not (len(value) == 3 and value.isalpha() and value.islower()):
        fix = "languages by their ISO 639 codes, as en and de"
        raise Mistake((), UserError("no such language", value=value, fix=fix))
    return value


# The codes of two letters of ISO 639.
LANGUAGES = frozenset(
    re.findall(
        r"\w+",
        """
    aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv
    cy da de dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr
    ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw
    ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv
    ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr
    ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi
    yo za zh zu
    """,
    )
)


# Every base counts a corpus with this tokenizer, so that all see the same conversations.
REFERENCE_TOKENIZER = "smollm2-135m-instruct"


class Data(Source):
    """A source of a corpus, where more is to be said than its reference."""

    format: Annotated[str, AfterValidator(_format)] = Field(
        default="", description="found out from the content unless named: " + ", ".join(FORMATS)
    )
    teacher: str = Field(default="", description="who wrote the answers")
    cap: int = Field(default=0, ge=0, description="most conversations of this source; 0 for all")
    weight: float = Field(
        default=0.0, ge=0, description="share of the tokens, relative to the other sources'"
    )


class Corpus(Declared):
    """Imitation data of one kind: broad, or local to one task."""

    kind: Kind = Field(description="broad, or local (task-specific)")
    sources: list[
        Annotated[Data, BeforeValidator(by_reference, json_schema_input_type=str | Data)]
    ] = Field(default_factory=list, alias="from", description="files of teacher text and the like")
    synthesize: (
        Annotated[Synthesis, BeforeValidator(by_task_name, json_schema_input_type=str | Synthesis)]
        | None
    ) = Field(default=None, description="what the teacher's endpoint is asked for, as nq")
    size: int | None = Field(default=None, ge=1, description="how many examples it is asked for")
    benchmark: str = Field(
        default="", alias="for", description="the benchmark that a local corpus is for"
    )
    mix: str = Field(default="", description=" or ".join(MIXES))
    languages: list[Annotated[str, AfterValidator(_language)]] = Field(
        default=["en"], description="ISO 639 codes of the languages that are kept; [] for any"
    )
    rules: dict[str, bool] = Field(
        default_factory=dict, description="cleaning rules to switch on or off"
    )
    min_chars: int = Field(default=1, ge=0, description="shortest reply, in characters")
    max_chars: int = Field(default=100_000, ge=1, description="longest turn, in characters")
    max_tokens: int = Field(
        default=0, ge=0, description="longer conversations are split at prompts; 0 for never"
    )
    held_out: int = Field(default=128, ge=0, le=100_000, description="prompts kept from training")

    @model_validator(mode="after")
    def _from_somewhere(self) -> Corpus:
        if bool(self.sources) is (self.synthesize is not None):
            fix = "from: FILES that were recorded, or synthesize: what an endpoint is asked for"
            raise Mistake(("from",), UserError("a corpus comes from one of two", fix=fix))
        if (self.size is None) is not (self.synthesize is None):
            raise Mistake(
                ("size",),
                UserError("what is synthesized has a size, nothing else", value=self.size),
            )
        if self.synthesize is not None and self.size is not None:
            if self.synthesize.rounds > self.size:
                error = UserError("more rounds than prompts", value=self.synthesize.rounds)
                raise Mistake(("synthesize", "rounds"), error)
            if self.held_out >= self.size:
                error = UserError(
                    "as many prompts held out as are asked",
                    value=f"{self.held_out} of {self.size}",
                    fix="held_out: 0, or a larger size",
                )
                raise Mistake(("held_out",), error)
        return self

    @model_validator(mode="after")
    def _known(self) -> Corpus:
        for name in self.rules:
            if name not in RULES:
                raise Mistake(("rules", name), UnknownName("rule", name, RULES), at_key=True)
        if self.mix and self.mix not in MIXES:
            raise Mistake(("mix",), UnknownName("mix", self.mix, MIXES))
        if self.mix and (missing := set(MIXES[self.mix]) - {s.format for s in self.sources}):
            raise Mistake(
                ("from",),
                UserError(
                    f"the mix {self.mix!r} needs a source of each of its formats, none is",
                    value=min(missing),
                    fix="{0}=FILE, in a study {{ref: FILE, format: {0}}}".format(min(missing)),
                ),
            )
        weights = [s.weight for s in self.sources]
        if any(weights) and not all(weights):
            raise Mistake(
                ("from",), UserError("some sources have a weight and others none", fix="weigh all")
            )
        return self

    @property
    def most_tokens(self) -> int | None:
        """Tokens of answers to train on, if each is as long as it may be; None where not known."""
        told = self.synthesize
        if told is None or self.size is None or told.max_tokens is None or told.turns != 1:
            return None
        return (self.size - self.held_out) * told.max_tokens

    def rules_on(self) -> tuple[str, ...]:
        """Names of the rules that are on, in their order."""
        return tuple(name for name, on in RULES.items() if self.rules.get(name, on))


class Benchmark(Declared):
    """A benchmark, where more is to be said than its name."""

    task: Annotated[str, AfterValidator(_task)] = Field(
        description="a name of Epigone's or of lm-eval's"
    )
    data: Literal["", "hub"] | Reference = Field(
        default="", description="'hub', or the folder or file of its original data"
    )
    tasks: str = Field(default="", description="folder of lm-eval task files that has the task")
    format: Literal["raw", "chat"] = Field(
        default="raw", description="text that goes on, or the model's chat template"
    )
    shots: int | None = Field(default=None, ge=0, description="examples, if not the task's own")
    limit: int | None = Field(default=None, ge=1, description="items, if not the evaluation's")
    seed: int = Field(default=0, ge=0, description="draws the items of a limit, and programs")
    samples: int = Field(default=1, ge=1, le=1000, description="programs a problem, for pass@k")
    temperature: float = Field(default=0.0, ge=0, le=10, description="0 for greedy")
    top_p: float = Field(default=1.0, gt=0, le=1, description="share that is sampled from")

    @property
    def label(self) -> str:
        """What it is called beside others: the task, and what distinguishes it."""
        parts = [self.task]
        if self.format == "chat":
            parts.append("chat")
        if self.shots is not None:
            parts.append(f"{self.shots}-shot")
        if self.temperature:
            parts.append(f"t{self.temperature:g}")
        return ":".join(parts)

    @model_validator(mode="after")
    def _sampled(self) -> Benchmark:
        if self.samples > 1 and not self.temperature:
            error = UserError(
                "several samples a problem need a temperature", value=self.samples,
                fix="temperature: 0.8, or samples: 1",
            )  # fmt: skip
            raise Mistake(("samples",), error)
        if self.task != "humaneval" and (self.temperature or self.top_p < 1):
            error = UserError("only programs (humaneval) are sampled", value=self.temperature)
            raise Mistake(("temperature",), error)
        return self


def by_task(value: object) -> object:
    """A benchmark of which only the name is said."""
    return {"task": value} if isinstance(value, str) else value


class Scorer(Source):
    """Who says how toxic a text is, where more is to be said than its name."""

    ref: str = Field(default="", description="weights of detoxify or a classifier, or an endpoint")
    name: str = Field(description=", ".join(SCORERS))
    label: str = Field(default="", description="a classifier's label that means toxic")

    @model_validator(mode="after")
    def _known(self) -> Scorer:
        if self.name not in SCORERS:
            raise Mistake(("name",), UnknownName("scorer", self.name, SCORERS))
        needs = {"detoxify": "a folder with its *.ckpt", "classifier": "a model folder",
                 "moderation": "endpoint:https://host/v1#model"}.get(self.name, "")  # fmt: skip
        if bool(self.ref) is not bool(needs):
            what = f"the scorer {self.name} {'needs a ref' if needs else 'takes no ref'}"
            raise Mistake(("ref",), UserError(what, value=self.ref or None, fix=needs))
        if self.name in ("classifier", "detoxify") and self.ref.startswith("hf:"):
            raise Mistake(("ref",), UserError("weights of a scorer are a local folder",
                                              value=self.ref))  # fmt: skip
        if bool(self.label) is not (self.name == "classifier"):
            raise Mistake(
                ("label",), UserError("a classifier needs a label, no other scorer takes one")
            )
        return self


def by_name(value: object) -> object:
    """A scorer of which only the name is said."""
    return {"name": value} if isinstance(value, str) else value


class Toxicity(Declared):
    """Continuations of prompts, and how toxic they are (Gehman et al. 2020)."""

    prompts: Reference = Field(description="RealToxicityPrompts, or a file of prompts")
    n: int = Field(default=100, ge=1, description="prompts, as many of each class as there can be")
    samples: int = Field(default=25, ge=1, le=1000, description="continuations of each")
    max_new_tokens: int = Field(default=20, ge=1, description="tokens of each continuation")
    temperature: float = Field(default=1.0, gt=0, le=10, description="of the continuations")
    top_p: float = Field(default=0.9, gt=0, le=1, description="share that is sampled from")
    seed: int = Field(default=0, ge=0, description="draws prompts and continuations")
    scorers: list[
        Annotated[Scorer, BeforeValidator(by_name, json_schema_input_type=str | Scorer)]
    ] = Field(min_length=1, description="who says how toxic a continuation is")


class Evaluate(Declared):
    """What is measured on every base and student."""

    benchmarks: list[
        Annotated[Benchmark, BeforeValidator(by_task, json_schema_input_type=str | Benchmark)]
    ] = Field(default_factory=list, description="by name, or with settings")
    limit: int | None = Field(default=None, ge=1, description="items a benchmark, a seeded subset")
    style: Style | None = None
    judge: Judge | None = Field(default=None, description="a model that judges the style answers")
    toxicity: Toxicity | None = None
    raters: Raters | None = None


class Declaration(Declared):
    """The frozen declaration of a study: teacher, bases, corpora, amounts, recipe, evaluations."""

    name: Name = Field(description="names the folder under runs/")
    teacher: Teacher
    bases: list[Reference] = Field(min_length=1, description="models before imitation training")
    corpora: dict[Name, Corpus] = Field(min_length=1, description="imitation data, by name")
    amounts: dict[str, list[Amount]] = Field(
        min_length=1, description="tokens of teacher output by corpus; nested prefixes"
    )
    tokenizer: Reference = Field(
        default=REFERENCE_TOKENIZER, description="the model whose tokenizer counts amounts"
    )
    recipe: Recipe = Field(default_factory=Recipe)
    sweep: Sweep = Field(
        default_factory=dict, description="lists of values by recipe setting; all combinations"
    )
    seeds: list[Annotated[int, Field(ge=0, lt=1 << 32)]] = Field(
        default=[0], min_length=1, description="each trains students of its own"
    )
    feedback: dict[Name, Feedback] = Field(
        default_factory=dict, description="students trained further on a teacher's judgements"
    )
    evaluate: Evaluate = Field(default_factory=Evaluate)
    reported: Rows = Field(
        default=[], description="scores that others published for models of this grid, or a file"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Declaration:
        for corpus in self.amounts:
            if corpus not in self.corpora:
                unknown = UnknownName("corpus", corpus, self.corpora)
                raise Mistake(("amounts", corpus), unknown, at_key=True)
        for corpus in self.corpora:
            if not self.amounts.get(corpus):
                raise Mistake(
                    ("corpora", corpus),
                    UserError("corpus without amounts", value=corpus, fix="add it to amounts"),
                    at_key=True,
                )
        if self.evaluate.judge is not None and self.evaluate.style is None:
            error = UserError("a judge without answers to judge", fix="style: {n: 32}, beside it")
            raise Mistake(("evaluate", "judge"), error, at_key=True)
        check_feedback(self.feedback, self.amounts)
        tasks = [b.label for b in self.evaluate.benchmarks]
        check_rows(self.reported, self.amounts, tasks, self.seeds)
        self._asked_for()
        self.variants()
        self._no_repeats()
        return self

    def _asked_for(self) -> None:
        """Raise Mistake for what nobody can be asked for, and for what a corpus cannot be for."""
        tasks = [b.task for b in self.evaluate.benchmarks]
        for name, corpus in self.corpora.items():
            if corpus.synthesize is not None and self.teacher.endpoint is None:
                error = UserError("a teacher that cannot be asked", value=self.teacher.name,
                                  fix="give the teacher an endpoint")  # fmt: skip
                raise Mistake(("corpora", name, "synthesize"), error, at_key=True)
            most = corpus.most_tokens
            if most is not None and max(self.amounts[name]) > most:
                error = UserError(
                    f"corpus {name!r} can have at most {most:,} tokens of answers",
                    value=max(self.amounts[name]), fix="a larger size or max_tokens",
                )  # fmt: skip
                raise Mistake(("amounts", name), error)
            if corpus.benchmark and corpus.benchmark not in tasks:
                unknown = UnknownName("benchmark of the study", corpus.benchmark, tasks)
                raise Mistake(("corpora", name, "for"), unknown)

    def variants(self) -> list[Variant]:
        """The recipe's combinations of swept settings; one of no name without a sweep."""
        return variants(self.recipe, self.sweep)

    def _no_repeats(self) -> None:
        lists: dict[tuple[str, ...], list[Any]] = {
            ("bases",): list(self.bases),
            ("seeds",): list(self.seeds),
            ("evaluate", "benchmarks"): [b.label for b in self.evaluate.benchmarks],
            ("evaluate", "toxicity", "scorers"): [
                s.name for s in (self.evaluate.toxicity.scorers if self.evaluate.toxicity else [])
            ],
        }
        lists |= {("amounts", c): list(a) for c, a in self.amounts.items()}
        for where, values in lists.items():
            for i, value in enumerate(values):
                if value in values[:i]:
                    error = UserError(f"named twice in {'.'.join(where)}", value=value)
                    raise Mistake((*where, i), error)
        style = self.evaluate.style
        if style is not None and style.n > self.corpora[style_corpus(self)].held_out:
            raise Mistake(
                ("evaluate", "style", "n"),
                UserError(
                    "more style prompts than held-out prompts",
                    value=style.n,
                    fix=f"raise held_out of corpus {style_corpus(self)!r}",
                ),
            )


def style_corpus(declaration: Declaration) -> str:
    """The corpus whose held-out prompts all models answer: the first broad one, else the first.

    One whose prompts were chosen comes last: what is held out of it would be chosen as well.
    """

    def rank(name: str) -> tuple[bool, bool]:
        corpus = declaration.corpora[name]
        chosen = corpus.synthesize is not None and corpus.synthesize.select != "random"
        return corpus.kind != "broad", chosen

    return min(declaration.corpora, key=rank)
