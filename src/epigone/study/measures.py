"""The steps that measure a study's models: answers, style, benchmarks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from epigone.study.declare import Declaration, Toxicity, style_corpus
from epigone.study.judge import COMPARING, Judge, second_of
from epigone.study.resolved import (
    Resolve,
    asked_teacher,
    at,
    benchmark_spec,
    continuations_spec,
    data_spec,
    items_spec,
    judge_model,
    judge_spec,
    scorer_spec,
    second_spec,
    tokenizer,
)
from epigone.study.specs import (
    GenerateSpec,
    ModelSpec,
    OverlapSpec,
    StyleSpec,
    ToxicitySpec,
)
from epigone.study.step import Step

# A model, the axes of its name, and the step that made it where it is a student.
Measured = tuple[ModelSpec, tuple[str, ...], Step | None]


def measures(
    declaration: Declaration,
    models: Sequence[Measured],
    corpora: Mapping[str, Step],
    resolve: Resolve,
) -> Iterator[Step]:
    """Every step that measures a model, behind those whose results it takes."""
    teacher = asked_teacher(declaration, resolve)
    if teacher is not None:
        models = [(teacher, (teacher.name,), None), *models]
    if declaration.evaluate.style is not None:
        # Style is that of the recorded answers, which students were trained on.
        local = [m for m in models if m[0] is not teacher]
        answered: dict[str, Step] = {}
        for step in _style(declaration, local, corpora, resolve, teacher):
            if step.stage == "generate":
                answered[step.model] = step
            elif step.stage == "second":
                answered[second_of(step.model)] = step
            yield step
        if declaration.evaluate.judge is not None:
            with at("evaluate", "judge"):
                yield from _judge(declaration.evaluate.judge, answered, resolve)
    yield from _benchmarks(declaration, models, resolve)
    if declaration.evaluate.toxicity is not None:
        yield from _toxicity(declaration.evaluate.toxicity, models, resolve)


def _style(
    declaration: Declaration,
    models: Sequence[Measured],
    corpora: Mapping[str, Step],
    resolve: Resolve,
    asked: ModelSpec | None,
) -> Iterator[Step]:
    style = declaration.evaluate.style
    assert style is not None
    prompts = {"corpus": corpora[style_corpus(declaration)]}
    metrics = tuple(style.metrics)
    spec = ModelSpec(kind="teacher", name=declaration.teacher.name)
    first = GenerateSpec(
        model=spec,
        n=style.n,
        max_new_tokens=style.max_new_tokens,
        tokenizer=tokenizer(resolve, declaration.tokenizer),
    )
    teacher = Step("generate", (spec.name,), first, prompts, spec.name)
    yield teacher
    second = second_spec(declaration, first, asked, resolve)
    if second is not None:
        again = Step("second", (spec.name,), second, prompts, spec.name)
        yield again
        compared = {"teacher": teacher, "model": again}
        own = StyleSpec(model=spec.name, metrics=metrics)
        yield Step("style", (spec.name,), own, compared, spec.name)
    for model, axes, made_by in models:
        inputs = prompts | ({"student": made_by} if made_by else {})
        wanted = GenerateSpec(model=model, n=style.n, max_new_tokens=style.max_new_tokens)
        samples = Step("generate", axes, wanted, inputs, model.name)
        yield samples
        compared = {"teacher": teacher, "model": samples}
        scored = StyleSpec(model=model.name, metrics=metrics)
        yield Step("style", axes, scored, compared, model.name)


def _judge(judge: Judge, answered: Mapping[str, Step], resolve: Resolve) -> Iterator[Step]:
    """A step for each model, so that a new one costs its own judging alone; the teacher is first.

    The teacher's answers are looked at one by one; where all models are compared with one another,
    each pair of them is a step. Its second answers, where there are any, are judged as a model's:
    what it comes to beside itself is the most that an imitation can.
    """
    by = judge_model(judge, resolve)
    teacher, *models = answered
    comparing = [p for p in judge.protocols if p in COMPARING]
    alone = [p for p in judge.protocols if p not in COMPARING]
    if alone:
        spec = judge_spec(judge, by, teacher, "", alone, resolve)
        step = answered[teacher]
        yield Step("judge", (by.name, *step.axes), spec, {"model": step}, teacher)
    for model in models:
        spec = judge_spec(judge, by, model, teacher, judge.protocols, resolve)
        inputs = {"model": answered[model], "against": answered[teacher]}
        again = ("second",) if model == second_of(teacher) else ()
        yield Step("judge", (by.name, *answered[model].axes, *again), spec, inputs, model)
    models = [m for m in models if m != second_of(teacher)]
    for one, other in combinations(models, 2) if judge.against == "all" else ():
        spec = judge_spec(judge, by, other, one, comparing, resolve)
        inputs = {"model": answered[other], "against": answered[one]}
        axes = (by.name, *answered[other].axes, "against", *answered[one].axes)
        yield Step("judge", axes, spec, inputs, other)


def _benchmarks(
    declaration: Declaration, models: Sequence[Measured], resolve: Resolve
) -> Iterator[Step]:
    told: set[str] = set()
    overlaps: dict[tuple[str, str], Step] = {}
    for i, benchmark in enumerate(declaration.evaluate.benchmarks):
        with at("evaluate", "benchmarks", i):
            items = items_spec(benchmark, resolve)
        asked = Step("items", (benchmark.task,), items)
        spec = benchmark_spec(benchmark, models[0][0], items, declaration.evaluate.limit)
        for model, axes, made_by in models:
            inputs: dict[str, Step] = {}
            if made_by is not None:
                inputs["student"] = made_by
                corpus = _learnt_from(made_by)
                if corpus is not None:
                    pair = (corpus.name, asked.name)
                    if pair not in overlaps:
                        name = (*corpus.axes, benchmark.task)
                        compared = {"corpus": corpus, "items": asked}
                        overlaps[pair] = Step("overlap", name, OverlapSpec(), compared)
                        if asked.name not in told:
                            told.add(asked.name)
                            yield asked
                        yield overlaps[pair]
                    inputs["overlap"] = overlaps[pair]
            own = spec.model_copy(update={"model": model})
            yield Step("benchmark", (benchmark.label, *axes), own, inputs, model.name)


def _toxicity(toxicity: Toxicity, models: Sequence[Measured], resolve: Resolve) -> Iterator[Step]:
    with at("evaluate", "toxicity", "prompts"):
        prompts = data_spec(toxicity.prompts, resolve)
    scorers = []
    for i, scorer in enumerate(toxicity.scorers):
        with at("evaluate", "toxicity", "scorers", i):
            scorers.append(scorer_spec(scorer, resolve))
    for model, axes, made_by in models:
        spec = continuations_spec(toxicity, model, prompts)
        inputs = {"student": made_by} if made_by else {}
        said = Step("continuations", axes, spec, inputs, model.name)
        yield said
        for by in scorers:
            asked = ToxicitySpec(model=model.name, scorer=by)
            yield Step("toxicity", (by.name, *axes), asked, {"continuations": said}, model.name)


def _learnt_from(step: Step | None) -> Step | None:
    """The corpus that a student was trained on, before any feedback."""
    while step is not None and "corpus" not in step.inputs:
        step = step.inputs.get("student")
    return None if step is None else step.inputs["corpus"]
