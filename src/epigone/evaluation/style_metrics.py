"""Style metrics: what a model's answer to a prompt is beside the teacher's, item by item."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from epigone.evaluation import formulas, structure
from epigone.evaluation.words import words
from epigone.schema import Aggregate, Direction

Detector = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Metric:
    """A style metric: per-item values of a model's and the teacher's outputs.

    `measure` gives None where the metric does not apply to an item. `ceiling` is what outputs
    identical to the teacher's get. `scale` is that of `Score`.
    """

    measure: Callable[[str, str], float | None]
    ceiling: float
    aggregate: Aggregate = "mean"
    better: Direction = "higher"
    scale: float | None = 1.0


def unigram_intersection(model: str, teacher: str) -> float:
    """Shared unigrams in per cent: 200 |A n B| / (|A| + |B|) over multisets of words.

    Gudibande et al. (2023), table 2, row 3. The paper does not define its intersection; this is
    the Dice coefficient, which is the F1 of unigrams (ROUGE-1 without stemming).
    """
    a, b = Counter(words(model)), Counter(words(teacher))
    total = a.total() + b.total()
    return 200.0 * (a & b).total() / total if total else 100.0


def length(model: str, teacher: str) -> float:
    """Length in words; the metric is its Pearson correlation with the teacher's (row 4)."""
    return float(len(words(model)))


def length_ratio(model: str, teacher: str) -> float:
    """Base-2 logarithm of the ratio of lengths in words, each plus one: -1 is half as long.

    The mean of logarithms is that of a geometric mean of ratios, in which half and twice as long
    cancel out; a mean of plain ratios is above 1 for two samples of one model.
    """
    return math.log2((len(words(model)) + 1) / (len(words(teacher)) + 1))


def hedging(model: str, teacher: str) -> float:
    """Hedges in a hundred words, minus the teacher's; see `formulas.hedges`."""
    return formulas.hedges(model) - formulas.hedges(teacher)


def if_teacher(has: Detector) -> Metric:
    """If the teacher's answer has it, has the model's? 1 or 0 (the form of table 2, rows 1, 2)."""

    def measure(model: str, teacher: str) -> float | None:
        return float(has(model)) if has(teacher) else None

    return Metric(measure, 1.0)


def more_than_teacher(has: Detector) -> Metric:
    """How much more often the model's answers have it than the teacher's: 1, 0 or -1 an item.

    Beside `if_teacher`, which a model that always does it passes in full; and for what is too rare
    in the teacher's answers to look at these alone.
    """

    def measure(model: str, teacher: str) -> float:
        return float(has(model)) - float(has(teacher))

    return Metric(measure, 0.0, better="zero")


METRICS: Mapping[str, Metric] = {
    "list": if_teacher(structure.has_list),
    "summary": if_teacher(structure.has_summary),
    "unigram": Metric(unigram_intersection, 100.0, scale=100.0),
    "length": Metric(length, 1.0, "pearson", scale=None),
    "length_ratio": Metric(length_ratio, 0.0, better="zero", scale=None),
    "headings": if_teacher(structure.has_headings),
    "code": if_teacher(structure.has_code),
    "more_lists": more_than_teacher(structure.has_list),
    "more_summaries": more_than_teacher(structure.has_summary),
    "more_headings": more_than_teacher(structure.has_headings),
    "more_code": more_than_teacher(structure.has_code),
    "opening": more_than_teacher(formulas.has_opening),
    "closing": more_than_teacher(formulas.has_closing),
    "refusal": more_than_teacher(formulas.has_refusal),
    "disclaimer": more_than_teacher(formulas.has_disclaimer),
    "hedging": Metric(hedging, 0.0, better="zero", scale=100.0),
}
