"""Expansion of a declaration into cells and steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

from epigone.errors import UserError
from epigone.schema import Cell
from epigone.study.declare import Declaration, style_corpus
from epigone.study.measures import measures
from epigone.study.resolved import (
    Resolve,
    ask_spec,
    asked_teacher,
    at,
    bases,
    corpus_spec,
    feedback_sources,
    items_spec,
    recipe_spec,
    tokenizer,
)
from epigone.study.rounds import Learner, asks
from epigone.study.specs import (
    DataSpec,
    FeedbackSpec,
    ModelSpec,
    RecipeSpec,
    TrainSpec,
)
from epigone.study.step import Step
from epigone.study.values import Mistake, amount_label


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that is measured: an untrained base, or the student of a cell and its last step."""

    model: str
    base: str
    cell: Cell | None = None
    made_by: Step | None = None

    @property
    def makers(self) -> Iterator[Step]:
        """The steps of training and feedback that made it, the last first."""
        step = self.made_by
        while step is not None:
            yield step
            step = step.inputs.get("student")


@dataclass(frozen=True)
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
        of_models, of_names = self._places
        places = {*of_models[subject.model]}
        for step in subject.makers:
            places.update(of_names[step.name])
        return [self.steps[place] for place in sorted(places)]

    @cached_property
    def _places(self) -> tuple[Mapping[str, list[int]], Mapping[str, list[int]]]:
        """Where in `steps` those of each model stand, and those of each name."""
        of_models: defaultdict[str, list[int]] = defaultdict(list)
        of_names: defaultdict[str, list[int]] = defaultdict(list)
        for place, step in enumerate(self.steps):
            of_models[step.model].append(place)
            of_names[step.name].append(place)
        return of_models, of_names


def expand(declaration: Declaration, resolve: Resolve) -> Expansion:
    """Cells and steps of a study; raises Mistake for names that cannot be resolved."""
    models = bases(declaration, resolve)
    corpora = _corpora(declaration, resolve, models[0])
    students = list(_students(declaration, resolve, models, corpora))
    found: dict[str, Step] = {}
    for corpus in sorted(corpora.values(), key=lambda step: "held_out" in step.inputs):
        _behind_its_inputs(corpus, found)
    # A trunk makes several students; until a hub's revisions are known, two can have one hash.
    found |= {s.made_by.name: s.made_by for s in students if s.made_by is not None}
    steps = [*found.values()]
    subjects = (*(Subject(base.name, base.name) for base in models), *students)
    measured = [
        (_model(s, models), _axes(s.cell) if s.cell else (s.base,), s.made_by) for s in subjects
    ]
    known = {step.name for step in steps}
    steps += (s for s in measures(declaration, measured, corpora, resolve) if s.name not in known)
    return Expansion(tuple(steps), subjects, declaration.teacher.name)


def _behind_its_inputs(step: Step, found: dict[str, Step]) -> None:
    if step.name in found:
        return
    for before in step.inputs.values():
        _behind_its_inputs(before, found)
    found[step.name] = step


def _model(subject: Subject, bases: list[ModelSpec]) -> ModelSpec:
    if subject.cell is None:
        return next(base for base in bases if base.name == subject.base)
    return ModelSpec(kind="student", name=subject.model, amount=subject.cell.amount)


def _axes(cell: Cell) -> tuple[str, ...]:
    amount = amount_label(cell.amount) if cell.amount else ""
    axes = (cell.base, cell.corpus, cell.variant, amount, f"s{cell.seed}")
    return tuple(axis for axis in axes if axis)


def _corpora(declaration: Declaration, resolve: Resolve, base: ModelSpec) -> dict[str, Step]:
    """A step for each corpus, and before them one for the items of each benchmark.

    What models are asked must not be in what they learn from: benchmarks' items are in no corpus,
    and the held-out prompts that all models answer are in none of the other corpora.
    """
    asked: dict[str, Step] = {}
    for i, benchmark in enumerate(declaration.evaluate.benchmarks):
        with at("evaluate", "benchmarks", i):
            items = items_spec(benchmark, resolve)
        # Formats of one benchmark ask the same items.
        if not any(step.spec == items for step in asked.values()):
            asked[f"items_{benchmark.label}"] = Step("items", (benchmark.task,), items)
    first = style_corpus(declaration)
    found = {first: _corpus_step(first, declaration, resolve, asked, base)}
    if declaration.evaluate.style is not None:
        asked = {**asked, "held_out": found[first]}
    for name in declaration.corpora:
        if name != first:
            found[name] = _corpus_step(name, declaration, resolve, asked, base)
    return {name: found[name] for name in declaration.corpora}


def _corpus_step(
    name: str,
    declaration: Declaration,
    resolve: Resolve,
    asked: Mapping[str, Step],
    base: ModelSpec,
) -> Step:
    counter = tokenizer(resolve, declaration.tokenizer)
    with at("corpora", name):
        corpus, terms = declaration.corpora[name], declaration.teacher.terms
        who = declaration.teacher.name
        spec = corpus_spec(corpus, resolve, teacher=who, terms=terms, counter=counter)
        # Without the rule, nothing is compared with the items.
        avoided = asked if "contaminated" in spec.rules else {}
        if corpus.synthesize is None:
            return Step("corpus", (name,), spec, avoided)
        teacher = asked_teacher(declaration, resolve)
        assert teacher is not None
        whole = ask_spec(corpus, teacher, terms, resolve)
    recipe, replay = recipe_spec(declaration.variants()[0], resolve)
    learner = Learner(base, recipe, replay, declaration.seeds[0])
    told = corpus.synthesize
    parts = asks(name, whole, spec, avoided, learner, by=told.select, rounds=told.rounds)
    return Step("corpus", (name,), spec, {**avoided, **parts})


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
