"""Expansion of a declaration into cells and steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any

from epigone.errors import UserError
from epigone.schema import Cell
from epigone.study.declare import Declaration, style_corpus
from epigone.study.identity import digest, slug
from epigone.study.resolved import (
    Resolve,
    at,
    bases,
    corpus_spec,
    feedback_sources,
    recipe_spec,
    tokenizer,
)
from epigone.study.specs import (
    BenchmarkSpec,
    CorpusSpec,
    DataSpec,
    FeedbackSpec,
    GenerateSpec,
    ItemsSpec,
    ModelSpec,
    RecipeSpec,
    Spec,
    StyleSpec,
    TrainSpec,
)
from epigone.study.values import Mistake, amount_label


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
    "train": Stage("epigone.training:run", 3, TrainSpec, ("epigone.training.loop",)),
    "feedback": Stage("epigone.training:run_feedback", 1, FeedbackSpec),
    "generate": Stage(
        "epigone.evaluation:run_generate", 1, GenerateSpec, ("epigone.evaluation.answers",)
    ),
    "style": Stage("epigone.evaluation:run_style", 1, StyleSpec),
    "benchmark": Stage(
        "epigone.evaluation:run_benchmark", 1, BenchmarkSpec, ("epigone.evaluation.benchmarks",)
    ),
}


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
    """One unit of work with an identity and inputs; `axes` make its readable name.

    `model` is the one that it measures, or makes by `feedback` of that name.
    """

    stage: str
    axes: tuple[str, ...]
    spec: Spec
    inputs: Mapping[str, Step] = field(default_factory=dict)
    model: str = ""
    feedback: str = ""

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
    """A model that is measured: an untrained base, or the student of a cell and its last step."""

    model: str
    base: str
    cell: Cell | None = None
    made_by: Step | None = None


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
        made = set()
        step = subject.made_by
        while step is not None:
            made.add(step.name)
            step = step.inputs.get("student")
        return [s for s in self.steps if s.model == subject.model or s.name in made]


def expand(declaration: Declaration, resolve: Resolve) -> Expansion:
    """Cells and steps of a study; raises Mistake for names that cannot be resolved."""
    models = bases(declaration, resolve)
    corpora = _corpora(declaration, resolve)
    students = list(_students(declaration, resolve, models, corpora))
    steps: list[Step] = []
    for corpus in sorted(corpora.values(), key=lambda step: "held_out" in step.inputs):
        steps += [s for s in (*corpus.inputs.values(), corpus) if s not in steps]
    # A trunk makes several students; until a hub's revisions are known, two can have one hash.
    steps += {s.made_by.name: s.made_by for s in students if s.made_by is not None}.values()
    steps += _measures(declaration, models, students, corpora, resolve)
    untrained = [Subject(base.name, base.name) for base in models]
    return Expansion(tuple(steps), (*untrained, *students), declaration.teacher.name)


def _axes(cell: Cell) -> tuple[str, ...]:
    amount = amount_label(cell.amount) if cell.amount else ""
    axes = (cell.base, cell.corpus, cell.variant, amount, f"s{cell.seed}")
    return tuple(axis for axis in axes if axis)


def _corpora(declaration: Declaration, resolve: Resolve) -> dict[str, Step]:
    """A step for each corpus, and before them one for the items of each benchmark.

    What models are asked must not be in what they learn from: benchmarks' items are in no corpus,
    and the held-out prompts that all models answer are in none of the other corpora.
    """
    asked: dict[str, Step] = {}
    for i, task in enumerate(declaration.evaluate.benchmarks):
        with at("evaluate", "benchmarks", i):
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
    with at("corpora", name):
        spec = corpus_spec(
            declaration.corpora[name],
            resolve,
            teacher=declaration.teacher.name,
            terms=declaration.teacher.terms,
        )
    # Without the rule, nothing is compared with the items.
    return Step("corpus", (name,), spec, asked if "contaminated" in spec.rules else {})


@dataclass(frozen=True, slots=True)
class _Recipe:
    """A variant of the recipe as training is asked for it."""

    variant: str
    spec: RecipeSpec
    replay: tuple[DataSpec, ...]


def _students(
    declaration: Declaration,
    resolve: Resolve,
    models: list[ModelSpec],
    corpora: Mapping[str, Step],
) -> Iterator[Subject]:
    """Every student of imitation and, after those of its base, every one of feedback."""
    recipes = [_Recipe(v.name, *recipe_spec(v, resolve)) for v in declaration.variants()]
    _refuse_same(recipes)
    precision = {recipe.variant: recipe.spec.precision for recipe in recipes}
    judged = _judged(declaration, resolve)
    for base in models:
        made: dict[Cell, Step] = {}
        for corpus, recipe, seed in product(corpora, recipes, declaration.seeds):
            amounts = tuple(sorted(declaration.amounts[corpus]))
            made |= _imitate(base, corpora[corpus], amounts, recipe, seed)
        for cell, step in made.items():
            yield Subject(":".join(_axes(cell)), base.name, cell, step)
        for name, feedback in declaration.feedback.items():
            starts: dict[Cell, Step | None] = {
                Cell(base.name, "", 0, seed): None for seed in declaration.seeds
            }
            if feedback.after is not None:
                amount = feedback.amount or max(declaration.amounts[feedback.after])
                wanted = (feedback.after, amount)
                starts = {c: s for c, s in made.items() if (c.corpus, c.amount) == wanted}
            for start, before in starts.items():
                spec = FeedbackSpec(
                    base=base,
                    amount=start.amount,
                    sources=judged[name],
                    precision=precision.get(start.variant, recipes[0].spec.precision),
                    seed=start.seed,
                    **feedback.settings(),
                )
                yield _feed_back(name, spec, start, before)


def _refuse_same(recipes: list[_Recipe]) -> None:
    """Raise Mistake where two variants are one recipe: two templates may have the same text."""
    for i, one in enumerate(recipes):
        for other in recipes[:i]:
            if (
                one.replay == other.replay
                and one.spec.model_copy(update={"preset": other.spec.preset}) == other.spec
            ):
                error = UserError(
                    f"two combinations of the sweep are the same recipe: {other.variant}",
                    value=one.variant,
                )
                raise Mistake(("sweep",), error)


def _judged(declaration: Declaration, resolve: Resolve) -> dict[str, tuple[DataSpec, ...]]:
    teacher = declaration.teacher
    found = {}
    for name, feedback in declaration.feedback.items():
        with at("feedback", name):
            found[name] = feedback_sources(
                feedback, resolve, teacher=teacher.name, terms=teacher.terms
            )
    return found


def _imitate(
    base: ModelSpec, corpus: Step, amounts: tuple[int, ...], recipe: _Recipe, seed: int
) -> Iterator[tuple[Cell, Step]]:
    """The students of one corpus: of one run where the schedule allows it, else of one each."""
    (name,) = corpus.axes
    for group in [amounts] if recipe.spec.trunk else [(amount,) for amount in amounts]:
        cells = [Cell(base.name, name, amount, seed, recipe.variant) for amount in group]
        alone = _axes(cells[0])
        axes = alone if not recipe.spec.trunk else (*alone[:-2], alone[-1])
        spec = TrainSpec(
            base=base, amounts=group, recipe=recipe.spec, seed=seed, replay=recipe.replay
        )
        step = Step("train", axes, spec, {"corpus": corpus})
        for cell in cells:
            yield cell, step


def _feed_back(name: str, spec: FeedbackSpec, start: Cell, step: Step | None) -> Subject:
    variant = f"{start.variant},{name}" if start.variant else name
    cell = replace(start, variant=variant)
    axes = _axes(cell)
    inputs = {} if step is None else {"student": step}
    model = ":".join(axes)
    return Subject(model, start.base, cell, Step("feedback", axes, spec, inputs, model, name))


def _measures(
    declaration: Declaration,
    models: list[ModelSpec],
    students: list[Subject],
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
                tokenizer=tokenizer(resolve),
            ),
            prompts,
            teacher_spec.name,
        )
        yield teacher
    for model, axes, inputs in _measured(models, students):
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
            with at("evaluate", "benchmarks", i):
                version = resolve.task_version(task)
            spec = BenchmarkSpec(model=model, task=task, task_version=version, limit=evaluate.limit)
            yield Step("benchmark", (task, *axes), spec, inputs, model.name)


def _measured(
    models: list[ModelSpec], students: list[Subject]
) -> Iterator[tuple[ModelSpec, tuple[str, ...], Mapping[str, Step]]]:
    for base in models:
        yield base, (base.name,), {}
    for student in students:
        assert student.cell is not None
        assert student.made_by is not None
        amount = student.cell.amount
        spec = ModelSpec(kind="student", name=student.model, amount=amount)
        yield spec, _axes(student.cell), {"student": student.made_by}


def _identifying(spec: dict[str, Any], stage: str) -> dict[str, Any]:
    """A spec without what changes no result: paths, a preset that is filled in, a base's name."""

    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: kept(v) for k, v in value.items() if k not in ("ref", "preset")}
        return [kept(v) for v in value] if isinstance(value, list) else value

    found: dict[str, Any] = kept(spec)
    if stage in ("train", "feedback"):
        del found["base"]["name"]
    # A source's own name, not where it lies, is written into what is made of it.
    for part in ("sources", "replay"):
        for source, told in zip(found.get(part, ()), spec.get(part, ()), strict=True):
            source["name"] = told["ref"].rsplit("/", 1)[-1]
    return found
