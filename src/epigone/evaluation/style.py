"""Style metrics of "The False Promise of Imitating Proprietary LLMs", table 2, without a judge."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from epigone.errors import CorpusError, UnknownName
from epigone.files import read_jsonl, write_jsonl
from epigone.schema import Aggregate, Progress, Score
from epigone.study.declare import STYLE_METRICS
from epigone.study.specs import StyleSpec

Outputs = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Metric:
    """A style metric: per-item values of a model's and the teacher's outputs.

    `measure` gives None where the metric does not apply to an item. `ceiling` is what outputs
    identical to the teacher's get.
    """

    measure: Callable[[str, str], float | None]
    ceiling: float
    aggregate: Aggregate = "mean"


def has_list(text: str) -> bool:
    """Whether an answer holds a list: at least two bullets or numbered items outside code."""
    items = [bool(_ITEM.match(line)) for line in _prose_lines(text)]
    return sum(items) >= 2


def has_summary(text: str) -> bool:
    """Whether the last paragraph sums up: it is prose that begins with a closing formula."""
    paragraphs = [p.strip() for p in re.split(r"\n\s*\n", "\n".join(_prose_lines(text)))]
    paragraphs = [p for p in paragraphs if p]
    if len(paragraphs) < 2:
        return False
    last = paragraphs[-1]
    return not _ITEM.match(last) and bool(_CLOSING.match(last.lstrip("*_#> ")))


def words(text: str) -> list[str]:
    """Lower-case words: runs of letters and digits, with inner apostrophes."""
    return _WORD.findall(text.lower())


def list_agreement(model: str, teacher: str) -> float | None:
    """If the teacher outputs a list, do we? (table 2, row 1)"""
    return float(has_list(model)) if has_list(teacher) else None


def summary_agreement(model: str, teacher: str) -> float | None:
    """If the teacher outputs a summary paragraph, do we? (table 2, row 2)"""
    return float(has_summary(model)) if has_summary(teacher) else None


def unigram_intersection(model: str, teacher: str) -> float:
    """Shared unigrams in per cent: 200 |A n B| / (|A| + |B|) over multisets of words.

    Table 2, row 3. The paper does not define its intersection; this is the Dice coefficient,
    which is the F1 of unigrams (ROUGE-1 without stemming).
    """
    a, b = Counter(words(model)), Counter(words(teacher))
    total = a.total() + b.total()
    return 200.0 * (a & b).total() / total if total else 100.0


def length(model: str, teacher: str) -> float:
    """Length in words; the metric is its Pearson correlation with the teacher's (row 4)."""
    return float(len(words(model)))


METRICS: Mapping[str, Metric] = {
    "list": Metric(list_agreement, 1.0),
    "summary": Metric(summary_agreement, 1.0),
    "unigram": Metric(unigram_intersection, 100.0),
    "length": Metric(length, 1.0, "pearson"),
}

# A bullet needs a following space, so that "**bold**" and "-5" are none.
_ITEM = re.compile(
    r"\s{0,12}(?:[-*+\u2022\u2023\u25e6\u2043\u2013]|\(?\d{1,3}[.):]|[a-zA-Z][.)])\s+\S"
)
# No "finally" and "in general": in ChatGPT's answers they begin a last step or a caveat.
_CLOSING = re.compile(
    r"(?:in (?:conclusion|summary|short|brief|closing|essence|the end)|overall|ultimately|"
    r"to (?:sum(?:mari[sz]e)?(?: (?:it )?(?:all )?up)?|conclude)|in sum|all in all|"
    r"altogether|summary|conclusion|as a whole|by following these)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")


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
    teacher: Path, models: Sequence[Path], *, metrics: Sequence[str] = STYLE_METRICS
) -> list[Score]:
    """Scores of files of samples against the teacher's file; a model is named by its file.

    Files of one name are told apart by their paths. Raises CorpusError for a file that is not
    JSONL with `item` (or `id`) and `output`, or that shares no item with the teacher's.
    """
    reference = read_outputs(teacher)
    stems = Counter(path.stem for path in models)
    return [
        score
        for path in models
        for score in compare(
            path.stem if stems[path.stem] == 1 else str(path),
            read_outputs(path),
            reference,
            metrics,
        )
    ]


def compare(model: str, outputs: Outputs, teacher: Outputs, metrics: Sequence[str]) -> list[Score]:
    """One score a metric, on the items that both have; raises CorpusError if there are none."""
    for name in metrics:
        if name not in METRICS:
            raise UnknownName("style metric", name, METRICS)
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
        aggregate=metric.aggregate,
        against=against,
        ceiling=metric.ceiling,
    )


def _pearson(a: Sequence[float], b: Sequence[float]) -> float | None:
    if len(a) < 3 or len(set(a)) < 2 or len(set(b)) < 2:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _prose_lines(text: str) -> list[str]:
    lines: list[str] = []
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        elif not fenced:
            lines.append(line)
    return lines
