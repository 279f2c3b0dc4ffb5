"""How near each answer is to the teacher's in style: one number an answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from epigone.schema import Score

# Length is a term of its own, beside style.
_LENGTHS = ("length", "length_ratio")


@dataclass(frozen=True, slots=True)
class Likeness:
    """Likeness in style by model and item, and the metrics that it is made of.

    It is the mean over metrics of a value's standard score among all these models' answers.
    """

    metrics: tuple[str, ...]
    values: Mapping[str, Mapping[str, float]]

    def above(self, model: str, other: str, items: Iterable[str]) -> list[bool]:
        """Whether `model` is the nearer to the teacher, on those items where both are known."""
        own, its = self.values.get(model, {}), self.values.get(other, {})
        return [own[i] > its[i] for i in items if i in own and i in its]


def likeness(scores: Iterable[Score], models: Sequence[str]) -> Likeness:
    """From the primary scores of style whose items have values of their own.

    A correlation and a classifier's AUC have none, and lengths are left out. Of a metric of which 0
    is best, the size counts.
    """
    by_metric: dict[str, dict[tuple[str, str], float]] = {}
    for s in scores:
        wanted = s.family == "style" and s.primary and s.aggregate == "mean" and not s.task
        if not wanted or s.metric in _LENGTHS or s.model not in models:
            continue
        for item, value in s.values.items():
            if np.isfinite(value):
                near = {"higher": value, "lower": -value, "zero": -abs(value)}[s.better]
                by_metric.setdefault(s.metric, {})[s.model, item] = near
    standard: dict[tuple[str, str], list[float]] = {}
    used = []
    for metric, values in sorted(by_metric.items()):
        every = np.array([*values.values()])
        if every.std() > 0:
            used.append(metric)
            for key, value in values.items():
                standard.setdefault(key, []).append((value - every.mean()) / every.std())
    found: dict[str, dict[str, float]] = {m: {} for m in models}
    for (model, item), parts in standard.items():
        found[model][item] = float(np.mean(parts))
    return Likeness(tuple(used), found)
