"""How close a model's answers are to the teacher's in style: scores of samples."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from epigone.errors import CorpusError, UnknownName
from epigone.evaluation.distinguish import LEAST, NAME, distinguish
from epigone.evaluation.outputs import names_of, output_of, rows_of
from epigone.evaluation.style_metrics import METRICS
from epigone.files import read_jsonl, write_jsonl
from epigone.schema import Progress, Score
from epigone.study.specs import StyleSpec
from epigone.study.style import ALL_STYLE_METRICS

# Goes up where a metric's values change: scores of two versions are not compared.
VERSION = 2
Outputs = Mapping[str, str]
_JUDGE = "epigone judge --protocol tone, on the same files"


def run(
    spec: StyleSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """See `epigone.evaluation.run_style`; writes scores.jsonl."""
    teacher = read_outputs(inputs["teacher"] / "samples.jsonl")
    model = read_outputs(inputs["model"] / "samples.jsonl")
    scores = compare(spec.model, model, teacher, spec.metrics)
    write_jsonl(out / "scores.jsonl", (s.to_json() for s in scores))
    progress(1, 1)
    return {s.metric: s.value for s in scores}


def style(
    teacher: Path,
    models: Sequence[Path],
    *,
    metrics: Sequence[str] = ALL_STYLE_METRICS,
    judged: Path | None = None,
) -> list[Score]:
    """Scores of files of samples against the teacher's file; a model is named by its file.

    Files of one name are told apart by their folders or paths. `judged` are scores of `epigone
    judge` on the same files, of which the tone is taken. Raises CorpusError for a file that is
    given twice, that is not JSONL with `item` (or `id`) and `output`, or that shares no item with
    the teacher's, and for scores that are no judge's or of other items.
    """
    reference = read_outputs(teacher)
    first, *names = names_of([teacher, *models])
    outputs = {name: read_outputs(path) for name, path in zip(names, models, strict=True)}
    tones = [] if judged is None else _tones(judged, first, reference, outputs)
    found = [s for name, own in outputs.items() for s in compare(name, own, reference, metrics)]
    return [*found, *tones]


def _tones(
    path: Path, teacher: str, reference: Outputs, outputs: Mapping[str, Outputs]
) -> list[Score]:
    """A judge's scores of tone on the items that a model and the teacher answered.

    The teacher's own is what identical answers would get.
    """
    tones = {score.model: score for score in _judged(path) if score.metric == "tone"}
    found = [_on(tones[name], reference.keys() & own) for name, own in outputs.items()
             if name in tones]  # fmt: skip
    if not found:
        raise CorpusError("no tone of these models in the scores", value=str(path), fix=_JUDGE)
    for score in found:
        if not score.n:
            raise CorpusError(
                f"the tone of '{score.model}' is that of other items", value=str(path), fix=_JUDGE
            )
    same = _on(tones[teacher], reference).value if teacher in tones else None
    return [replace(score, ceiling=same) for score in found]


def _judged(path: Path) -> list[Score]:
    """The scores that `epigone judge` wrote; raises CorpusError for any other file."""
    try:
        rows = list(read_jsonl(path))
    except (OSError, ValueError) as error:
        raise CorpusError("scores cannot be read", value=str(path), fix=str(error)) from None
    try:
        scores = [Score.from_json(row) for row in rows]
        if not all(np.isfinite([*s.values.values()]).all() for s in scores):
            raise ValueError("a value is no number")
    except (TypeError, ValueError, AttributeError):
        raise CorpusError(
            "not the scores of epigone judge", value=str(path), fix="give its scores.jsonl"
        ) from None
    return scores


def _on(score: Score, items: Collection[str]) -> Score:
    """A score on these items alone."""
    values = {i: v for i, v in score.values.items() if i in items}
    mean = float(np.mean(list(values.values()))) if values else None
    return replace(score, value=mean, n=len(values), values=values)


def compare(model: str, outputs: Outputs, teacher: Outputs, metrics: Sequence[str]) -> list[Score]:
    """One score a metric, on the items that both have; raises CorpusError if there are none."""
    for name in metrics:
        if name not in ALL_STYLE_METRICS:
            raise UnknownName("style metric", name, ALL_STYLE_METRICS)
    items = [i for i in teacher if i in outputs]
    if not items:
        raise CorpusError("no item of the teacher's samples is in the model's", value=model)
    return [_score(name, model, items, outputs, teacher) for name in metrics]


def read_outputs(path: Path) -> dict[str, str]:
    """Outputs by item of a JSONL file whose rows have `item` (or `id`) and `output`."""
    return {item: output_of(row, where) for item, row, where in rows_of(path)}


def _score(
    name: str, model: str, items: Sequence[str], outputs: Outputs, teacher: Outputs
) -> Score:
    if name == NAME:
        return _distinguishable(model, items, outputs, teacher)
    metric = METRICS[name]
    measured = {i: metric.measure(outputs[i], teacher[i]) for i in items}
    values = {i: v for i, v in measured.items() if v is not None}
    against: dict[str, float] = {}
    if metric.aggregate == "pearson":
        against = {i: float(metric.measure(teacher[i], teacher[i]) or 0.0) for i in values}
        value = _pearson(list(values.values()), list(against.values()))
    else:
        value = float(np.mean(list(values.values()))) if values else None
    return Score(
        metric=name,
        model=model,
        family="style",
        value=value,
        n=len(values),
        values=values,
        better=metric.better,
        aggregate=metric.aggregate,
        against=against,
        ceiling=metric.ceiling,
        version=VERSION,
        scale=metric.scale,
    )


def _distinguishable(model: str, items: Sequence[str], outputs: Outputs, teacher: Outputs) -> Score:
    values = distinguish(outputs, teacher, items)
    return Score(
        metric=NAME,
        model=model,
        family="style",
        value=float(np.mean(list(values.values()))) if values else None,
        n=len(values),
        values=values,
        better="lower",
        aggregate="auc",
        ceiling=0.5,
        version=VERSION,
        method="" if values else f"needs {LEAST} items, not {len(items)}",
    )


def _pearson(a: Sequence[float], b: Sequence[float]) -> float | None:
    if len(a) < 3 or len(set(a)) < 2 or len(set(b)) < 2:
        return None
    return float(np.corrcoef(a, b)[0, 1])
