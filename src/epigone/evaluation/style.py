"""How close a model's answers are to the teacher's in style: scores of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from epigone.errors import CorpusError, UnknownName
from epigone.evaluation.distinguish import LEAST, NAME, distinguish
from epigone.evaluation.style_metrics import METRICS
from epigone.files import read_jsonl, write_jsonl
from epigone.schema import Progress, Score
from epigone.study.specs import StyleSpec
from epigone.study.style import ALL_STYLE_METRICS

Outputs = Mapping[str, str]


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
    teacher: Path, models: Sequence[Path], *, metrics: Sequence[str] = ALL_STYLE_METRICS
) -> list[Score]:
    """Scores of files of samples against the teacher's file; a model is named by its file.

    Files of one name are told apart by their folders or paths. Raises CorpusError for a file that
    is given twice, that is not JSONL with `item` (or `id`) and `output`, or that shares no item
    with the teacher's.
    """
    named = names_of([teacher, *models])[1:]
    reference = read_outputs(teacher)
    return [
        score
        for name, path in zip(named, models, strict=True)
        for score in compare(name, read_outputs(path), reference, metrics)
    ]


def names_of(paths: Sequence[Path]) -> list[str]:
    """Names of files: the stem, else the folder, else the path, of those that share a shorter one.

    Raises CorpusError for a file that is given twice.
    """
    for i, path in enumerate(paths):
        if path.resolve() in {p.resolve() for p in paths[:i]}:
            raise CorpusError("a file is given twice", value=str(path), fix="name each once")
    # A file of the working directory has no folder to be named by.
    told = [(p.stem, p.parent.name.strip(".") or p.stem, str(p)) for p in paths]
    longer = [0] * len(paths)
    while True:
        names = [forms[k] for forms, k in zip(told, longer, strict=True)]
        alike = [i for i, n in enumerate(names) if names.count(n) > 1 and longer[i] < 2]
        if not alike:
            return names
        for i in alike:
            longer[i] += 1


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
    found: dict[str, str] = {}
    try:
        for number, row in enumerate(read_jsonl(path), 1):
            item = row.get("item", row.get("id")) if isinstance(row, dict) else None
            if item is None or not isinstance(row.get("output"), str):
                raise CorpusError(f"{path}:{number}: no item and output in this row")
            if str(item) in found:
                raise CorpusError(f"{path}:{number}: item given twice", value=str(item))
            found[str(item)] = row["output"]
    except (OSError, ValueError) as error:
        raise CorpusError("samples cannot be read", value=str(path), fix=str(error)) from None
    if not found:
        raise CorpusError("no samples in the file", value=str(path))
    return found


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
        method="" if values else f"needs {LEAST} items, not {len(items)}",
    )


def _pearson(a: Sequence[float], b: Sequence[float]) -> float | None:
    if len(a) < 3 or len(set(a)) < 2 or len(set(b)) < 2:
        return None
    return float(np.corrcoef(a, b)[0, 1])
