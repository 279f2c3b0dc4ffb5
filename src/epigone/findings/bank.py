"""Draws of many models' scores, made once for all the questions that are asked of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from epigone.findings.resample import (
    RESAMPLES,
    Array,
    Resampler,
    incomparable,
    kind_of,
    restrict,
    stream,
    usable,
)
from epigone.schema import Score

_Items = frozenset[str]


@dataclass(frozen=True, slots=True)
class Drawn:
    """Scores on the `n` items that all of them have: as they are (k,) and drawn (resamples, k)."""

    point: Array
    draws: Array
    groups: int
    n: int
    note: str = ""


class Bank:
    """Scores that are resampled by the same draws wherever they are compared.

    The draws of the same items of a task are the same for every set of models and every metric, so
    that any two answers rest on one bootstrap; each is made once, for all models at once.
    """

    def __init__(
        self, scores: Iterable[Score] = (), seed: int = 0, resamples: int = RESAMPLES
    ) -> None:
        """Hold the scores; nothing is drawn yet."""
        self.seed = seed
        self.resamples = resamples
        self._known: dict[int, tuple[Score, _Items]] = {}
        self._same: dict[_Items, _Items] = {}
        self._of: dict[tuple[str, str], list[Score]] = defaultdict(list)
        self._drawn: dict[tuple[str, str, _Items], dict[int, tuple[float, Array]]] = {}
        self._groups: dict[tuple[str, str, _Items], int] = {}
        for score in scores:
            self.items(score)

    def items(self, score: Score) -> _Items:
        """Items of a score that can be used, one object for equal sets."""
        found = self._known.get(id(score))
        if found is None:
            items = frozenset(usable(score))
            items = self._same.setdefault(items, items)
            # The score is kept, so that no other one comes to have its id.
            found = self._known[id(score)] = (score, items)
            self._of[score.task, score.metric].append(score)
        return found[1]

    def together(self, scores: Sequence[Score]) -> tuple[Drawn | None, str]:
        """The scores on the items that all of them have; None and why where there are none."""
        sets = [self.items(s) for s in scores]
        shared = sets[0]
        if any(s is not shared for s in sets):
            shared = frozenset.intersection(*sets)
            shared = self._same.setdefault(shared, shared)
        if why := incomparable(scores, shared):
            return None, why
        most = max(map(len, sets))
        note = f"on the {len(shared)} items in common of {most}" if len(shared) < most else ""
        key = scores[0].task, scores[0].metric, shared
        made = self._drawn.setdefault(key, {})
        if any(id(s) not in made for s in scores):
            self._draw(scores, key)
        point, draws = zip(*(made[id(s)] for s in scores), strict=True)
        return Drawn(
            np.array(point), np.stack(draws, axis=1), self._groups[key], len(shared), note
        ), note

    def _draw(self, scores: Sequence[Score], key: tuple[str, str, _Items]) -> None:
        task, metric, shared = key
        made = self._drawn[key]
        like = [
            s
            for s in self._of[task, metric]
            if id(s) not in made and kind_of(s) == kind_of(scores[0]) and shared <= self.items(s)
        ]
        names = sorted(shared)
        resampler = Resampler([restrict(s, names) for s in like])
        point = resampler.point()
        # Other metrics and formats of the task have the same items: "nq_open:chat", "nq_open".
        items = "\n".join(names)
        draws = resampler.draws(stream(self.seed, task.partition(":")[0], items), self.resamples)
        for j, score in enumerate(like):
            made[id(score)] = float(point[j]), np.ascontiguousarray(draws[:, j])
        self._groups[key] = resampler.groups
