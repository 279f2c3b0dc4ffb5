"""Expansion of a declaration into cells and steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from epigone.errors import UserError
from epigone.schema import Cell
from epigone.study.declare import Corpus, Declaration, Mistake, amount_label, style_corpus
from epigone.study.identity import digest, slug
from epigone.study.specs import (
    MIXES,
    BenchmarkSpec,
    CorpusSpec,
    DataSpec,
    GenerateSpec,
    ItemsSpec,
    ModelSpec,
    SourceSpec,
    Spec,
    StyleSpec,
    TrainSpec,
)
from epigone.study.terms import known_terms

# Every base counts a corpus with this tokenizer, so that all see the same conversations.
REFERENCE_TOKENIZER = "smollm2-135m-instruct"


@dataclass(frozen=True, slots=True)
class Stage:
    """A kind of work: where its function is, and the version that changes with its results.

    `preload` names the modules that a process imports before it forks to do such work.
    """

    run: str
    version: int
    spec: type[Spec]
    preload: tuple[str, ...] = ()


STAGES: Mapping[str, Stage] = {
    "items": Stage("epigone.evaluation:run_items", 1, ItemsSpec),
    "corpus": Stage("epigone.corpus:run", 3, CorpusSpec),
    "train": Stage("epigone.training:run", 1, TrainSpec, ("epigone.training.loop",)),
    "generate": Stage(
        "epigone.evaluation:run_generate", 1, GenerateSpec, ("epigone.evaluation.answers",)
    ),
    "style": Stage("epigone.evaluation:run_style", 1, StyleSpec),
    "benchmark": Stage(
        "epigone.evaluation:run_benchmark", 1, BenchmarkSpec, ("epigone.evaluation.benchmarks",)
    ),
}


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

    def task_version(self, task: str) -> int:
        """The version of a benchmark; raises UnknownName."""


def identity(stage: str, spec: Spec, inputs: Mapping[str, str]) -> dict[str, Any]:
    """What changes a step's result: stage, its version, spec, and the hashes of its inputs."""
    return {
        "stage": stage,
        "version": STAGES[stage].version,
        "spec": _identifying(spec.model_dump(mode="json"), stage),
        "inputs": dict(sorted(inputs.items())),
    }


@dataclass(frozen=True)
class Step:
    """One unit of work with an identity and inputs; `axes` make its readable name."""

    stage: str
    axes: tuple[str, ...]
    spec: Spec
    inputs: Mapping[str, Step] = field(default_factory=dict)
    model: str = ""

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What changes the step's result: stage, its version, spec, and the inputs' hashes."""
        return identity(self.stage, self.spec, {r: s.hash for r, s in self.inputs.items()})

    @cached_property
    def hash(self) -> str:
        """Hex sha256 of the identity."""
        return digest(self.identity)

    @property
    def slug(self) -> str:
        """Readable name made of the axes."""
        return slug(*self.axes)

    @property
    def name(self) -> str:
        """stage/slug-hash8: the step's folder below steps/."""
        return f"{self.stage}/{self.slug}-{self.hash[:8]}"


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that is measured: an untrained base (amount 0), or the student of a cell."""

    model: str
    base: str
    cell: Cell | None


@dataclass(frozen=True, slots=True)
class Expansion:
    """A study's steps in an order in which they can run, and the models that they measure."""

    steps: tuple[Step, ...]
    subjects: tuple[Subject, ...]
    teacher: str

    def cells(self) -> list[Cell]:
        """Every point of the grid that has a student."""
        return [s.cell for s in self.subjects if s.cell is not None]

    def steps_of(self, subject: Subject) -> list[Step]:
        """The steps that make a model and measure it, in their order."""
        cell = subject.cell
        trunk = None if cell is None else (cell.base, cell.corpus, f"s{cell.seed}")
        return [
            step
            for step in self.steps
            if step.model == subject.model or (step.stage == "train" and step.axes == trunk)
        ]


def expand(declaration: Declaration, resolve: Resolve) -> Expansion:
    """Cells and steps of a study; raises Mistake for names that cannot be resolved."""
    bases = _bases(declaration, resolve)
    corpora = _corpora(declaration, resolve)
    steps: list[Step] = []
    for corpus in sorted(corpora.values(), key=lambda step: "held_out" in step.inputs):
        steps += [s for s in (*corpus.inputs.values(), corpus) if s not in steps]
    subjects = [Subject(base.name, base.name, None) for base in bases]
    models: list[tuple[ModelSpec, Mapping[str, Step]]] = [(base, {}) for base in bases]
    for trunk, cells in _trunks(declaration, bases, corpora):
        steps.append(trunk)
        for cell in cells:
            name = ":".join(_axes(cell))
            subjects.append(Subject(name, cell.base, cell))
            student = ModelSpec(kind="student", name=name, amount=cell.amount)
            models.append((student, {"student": trunk}))
    steps += _measures(declaration, models, corpora, resolve)
    return Expansion(tuple(steps), tuple(subjects), declaration.teacher.name)


def _axes(cell: Cell) -> tuple[str, ...]:
    return (cell.base, cell.corpus, amount_label(cell.amount), f"s{cell.seed}")


@contextmanager
def _at(*where: str | int) -> Iterator[None]:
    """Say where in the study file the name stands that cannot be resolved."""
    try:
        yield
    except Mistake as mistake:
        raise Mistake((*where, *mistake.where), mistake.error) from None
    except UserError as error:
        raise Mistake(where, error) from None


def _bases(declaration: Declaration, resolve: Resolve) -> list[ModelSpec]:
    bases: list[ModelSpec] = []
    for i, ref in enumerate(declaration.bases):
        with _at("bases", i):
            name = resolve.model_name(ref)
            if any(b.name == name for b in bases):
                raise UserError("two bases of one name", value=name, fix="name one by a folder")
            if name == declaration.teacher.name:
                raise UserError("a base has the teacher's name", value=name, fix="rename one")
            found = resolve.fingerprint(ref)
            where = resolve.reference(ref)
            bases.append(ModelSpec(kind="base", name=name, ref=where, fingerprint=found))
    return bases


def _tokenizer(resolve: Resolve) -> SourceSpec:
    return SourceSpec(ref=REFERENCE_TOKENIZER, fingerprint=resolve.fingerprint(REFERENCE_TOKENIZER))


def _corpora(declaration: Declaration, resolve: Resolve) -> dict[str, Step]:
    """A step for each corpus, and before them one for the items of each benchmark.

    What models are asked must not be in what they learn from: benchmarks' items are in no corpus,
    and the held-out prompts that all models answer are in none of the other corpora.
    """
    asked: dict[str, Step] = {}
    for i, task in enumerate(declaration.evaluate.benchmarks):
        with _at("evaluate", "benchmarks", i):
            items = ItemsSpec(task=task, task_version=resolve.task_version(task))
        asked[f"items_{task}"] = Step("items", (task,), items)
    first = style_corpus(declaration)
    found = {first: _corpus_step(first, declaration, resolve, asked)}
    if declaration.evaluate.style is not None:
        asked = {**asked, "held_out": found[first]}
    for name in declaration.corpora:
        if name != first:
            found[name] = _corpus_step(name, declaration, resolve, asked)
    return {name: found[name] for name in declaration.corpora}


def _corpus_step(
    name: str, declaration: Declaration, resolve: Resolve, asked: Mapping[str, Step]
) -> Step:
    with _at("corpora", name):
        spec = corpus_spec(
            declaration.corpora[name],
            resolve,
            teacher=declaration.teacher.name,
            terms=declaration.teacher.terms,
        )
    # Without the rule, nothing is compared with the items.
    return Step("corpus", (name,), spec, asked if "contaminated" in spec.rules else {})


def corpus_spec(
    corpus: Corpus,
    resolve: Resolve,
    *,
    teacher: str,
    terms: str = "",
    licence: str = "",
    seed: int = 0,
) -> CorpusSpec:
    """What the stage `corpus` is asked to do; `terms` and `licence` hold where a source has none.

    Raises Mistake, with the place in the corpus, for a source that cannot be resolved.
    """
    sources = []
    for i, source in enumerate(corpus.sources):
        with _at("from", i):
            known = resolve.provenance(source.ref)
            under = source.terms or terms or known[1]
            if under:
                known_terms(under)
            told = source.model_dump(exclude={"ref", "licence", "terms", "cap"})
            sources.append(
                DataSpec(
                    ref=resolve.reference(source.ref),
                    fingerprint=resolve.data_fingerprint(source.ref),
                    licence=source.licence or licence or known[0],
                    terms=under,
                    cap=source.cap or MIXES.get(corpus.mix, {}).get(source.format, 0),
                    **told,
                )
            )
    return CorpusSpec(
        kind=corpus.kind,
        sources=tuple(sources),
        tokenizer=_tokenizer(resolve),
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


def _trunks(
    declaration: Declaration, bases: list[ModelSpec], corpora: Mapping[str, Step]
) -> Iterator[tuple[Step, list[Cell]]]:
    recipe = declaration.recipe.resolved()
    for base in bases:
        for name, corpus in corpora.items():
            amounts = tuple(sorted(declaration.amounts[name]))
            for seed in declaration.seeds:
                spec = TrainSpec(base=base, amounts=amounts, recipe=recipe, seed=seed)
                trunk = Step("train", (base.name, name, f"s{seed}"), spec, {"corpus": corpus})
                yield trunk, [Cell(base.name, name, amount, seed) for amount in amounts]


def _measures(
    declaration: Declaration,
    models: list[tuple[ModelSpec, Mapping[str, Step]]],
    corpora: Mapping[str, Step],
    resolve: Resolve,
) -> Iterator[Step]:
    evaluate = declaration.evaluate
    style = evaluate.style
    if style is not None:
        prompts = {"corpus": corpora[style_corpus(declaration)]}
        teacher_spec = ModelSpec(kind="teacher", name=declaration.teacher.name)
        teacher = Step(
            "generate",
            (teacher_spec.name,),
            GenerateSpec(
                model=teacher_spec,
                n=style.n,
                max_new_tokens=style.max_new_tokens,
                tokenizer=_tokenizer(resolve),
            ),
            prompts,
            teacher_spec.name,
        )
        yield teacher
    for model, inputs in models:
        axes = tuple(model.name.split(":"))
        if style is not None:
            samples = Step(
                "generate",
                axes,
                GenerateSpec(model=model, n=style.n, max_new_tokens=style.max_new_tokens),
                {**prompts, **inputs},
                model.name,
            )
            yield samples
            yield Step(
                "style",
                axes,
                StyleSpec(model=model.name, metrics=tuple(style.metrics)),
                {"teacher": teacher, "model": samples},
                model.name,
            )
        for i, task in enumerate(evaluate.benchmarks):
            with _at("evaluate", "benchmarks", i):
                version = resolve.task_version(task)
            spec = BenchmarkSpec(model=model, task=task, task_version=version, limit=evaluate.limit)
            yield Step("benchmark", (task, *axes), spec, inputs, model.name)


def _identifying(spec: dict[str, Any], stage: str) -> dict[str, Any]:
    """A spec without what changes no result: paths, a preset that is filled in, a base's name."""

    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: kept(v) for k, v in value.items() if k not in ("ref", "preset")}
        return [kept(v) for v in value] if isinstance(value, list) else value

    found: dict[str, Any] = kept(spec)
    if stage == "train":
        del found["base"]["name"]
    if stage == "corpus":
        # A source's own name, not where it lies, is written into every conversation.
        for source, told in zip(found["sources"], spec["sources"], strict=True):
            source["name"] = told["ref"].rsplit("/", 1)[-1]
    return found
