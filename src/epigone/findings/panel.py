"""Scores of several models averaged over tasks and seeds, drawn together for any question."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from epigone.findings.bank import Bank
from epigone.findings.gaps import FOUND
from epigone.findings.resample import (
    NO_ITEMS,
    PUBLISHED,
    Array,
    again,
    alike,
    cut_of,
    far_tail,
    flat,
    p_value,
    percentile,
    spread,
    stream,
)
from epigone.schema import Direction, Interval, Score

# Takes rows that hold a value of each column, and gives a value a row.
Statistic = Callable[[Array], Array]
EXACT = "reported elsewhere: taken as exact"


@dataclass(frozen=True, slots=True)
class Column:
    """What is compared: scores by seed and by task of one amount's students, or of one model.

    Students of one `line` and seed are of one training run, which varies as a whole; a model that
    was not trained here has no line. A score that has a value and no items is taken as exact; one
    that somebody else published is compared with others of its kind, and not with measured ones.
    `peers` are students of the same amount of other lines, which training again is taken to move
    as much.
    """

    tables: Mapping[int, Mapping[str, Score]]
    line: str = ""
    peers: tuple[Column, ...] = ()


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic with its 95% interval, its draws, and what a test of 0 says.

    `detectable` is the smallest value found with 80% power at a two-sided 5% level.
    """

    interval: Interval
    draws: Array
    detectable: float | None = None
    p: float | None = None


def is_share(score: Score) -> bool:
    """Whether a score is a mean of shares, from 0 to 1."""
    plain = score.aggregate == "mean" and score.better != "zero" and score.scale == 1
    ends = (min(score.values.values()), max(score.values.values())) if score.values else ()
    own = () if score.value is None else (score.value,)
    return plain and all(0 <= x <= 1 for x in (*ends, *own) if np.isfinite(x))


def tested(interval: Interval, draws: Array, error: float, p: float) -> Estimate:
    """An estimate with its test, where it has an interval.

    A test finds what lies half an interval from 0; four times in five what lies FOUND errors more.
    """
    if interval.low is None or interval.high is None:
        return Estimate(interval, draws)
    return Estimate(interval, draws, (interval.high - interval.low) / 2 + FOUND * error, p)


def nothing(why: str) -> Estimate:
    """An estimate where there is nothing to estimate from."""
    return Estimate(Interval(None, None, None, 0, why), np.empty(0))


class Panel:
    """The mean over tasks of every column, as it is and as it is drawn.

    The tasks are those that all columns have. Within a task all scores are taken on the items that
    they share, and are resampled together; tasks are resampled independently, each by the same
    draws in every panel of the same items. Where lower is better the sign is turned: up is good.
    """

    def __init__(self, columns: Sequence[Column], bank: Bank) -> None:
        """Draw the tasks that the columns share."""
        self.columns = columns
        self.bank = bank
        self.seeds = [self._seeds(c) for c in columns]
        self.tasks: list[str] = []
        self.notes: list[str] = []
        self.n = 0
        self.groups: list[int] = []
        self.better: Direction = "higher"  # that of the last task
        self._exact = False
        self._scores: list[Score] = []
        points, draws = [], []
        tables = [c.tables[s] for c, seeds in zip(columns, self.seeds, strict=True) for s in seeds]
        for task in sorted(set.intersection(*(set(t) for t in tables)) if tables else ()):
            found = self._drawn([t[task] for t in tables], task)
            if found is not None:
                self.tasks.append(task)
                points.append(found[0])
                draws.append(found[1])
        self._points = np.array(points)
        self._draws = draws
        starts = np.cumsum([0, *map(len, self.seeds)])
        self._where = [slice(a, b) for a, b in pairwise(starts)]

    def _seeds(self, column: Column) -> list[int]:
        """The seeds that every column of its line has."""
        if not column.line:
            return sorted(column.tables)
        same = [set(c.tables) for c in self.columns if c.line == column.line]
        return sorted(set.intersection(*same))

    def _drawn(self, scores: Sequence[Score], task: str) -> tuple[Array, Array] | None:
        measured = [i for i, s in enumerate(scores) if self.bank.items(s)]
        exact = [i for i in range(len(scores)) if i not in measured]
        if any(scores[i].value is None or scores[i].values for i in exact):
            self.notes.append(f"{task}: not measured on every model")
            return None
        if measured and any(scores[i].method == PUBLISHED for i in exact):
            # Of others' items and prompts: only a teacher's value is taken as exact.
            self.notes.append(f"{task}: {NO_ITEMS}")
            return None
        self.better = scores[0].better
        good = 1.0 if self.better == "higher" else -1.0
        point = np.array([np.nan if s.value is None else s.value for s in scores])
        draws = np.broadcast_to(point, (self.bank.resamples, len(scores))).copy()
        groups = 0
        if measured:
            found, note = self.bank.together([scores[i] for i in measured])
            if note:
                self.notes.append(f"{task}: {note}")
            if found is None:
                return None
            point[measured], draws[:, measured] = found.point, found.draws
            groups = found.groups
            self.n += found.n
        if not np.isfinite(point).all():
            self.notes.append(f"{task}: undefined on these items")
            return None
        self._exact = self._exact or bool(exact)
        self._scores += scores
        self.groups.append(groups)
        return good * point, good * draws

    def of_shares(self) -> bool:
        """Whether all its scores are means of shares."""
        return all(map(is_share, self._scores))

    def contrast(self, weights: Sequence[float] | Array) -> Estimate:
        """A sum of the columns with one weight each."""
        w = np.asarray(weights)
        reach = float(max(w[w > 0].sum(), -w[w < 0].sum()))
        return self._estimate(lambda rows: rows @ w, reach)

    def statistic(self, of: Statistic) -> Estimate:
        """Any statistic of the columns' means."""
        return self._estimate(of)

    def drawn(self) -> Array:
        """The columns' means over tasks and seeds: as they are in the first row, then drawn."""
        return self._columns(np.concatenate([self._point(), np.mean(self._draws, axis=0)]))

    def _point(self) -> Array:
        mean: Array = self._points.mean(axis=0, keepdims=True)
        return mean

    def _columns(self, rows: Array, line: str = "", seed: int = 0) -> Array:
        """Seeds averaged, but of `line` one seed alone."""
        found = []
        for column, seeds, where in zip(self.columns, self.seeds, self._where, strict=True):
            if line and column.line == line:
                found.append(rows[:, where.start + seeds.index(seed)])
            else:
                found.append(rows[:, where].mean(axis=1))
        return np.stack(found, axis=1)

    def _estimate(self, of: Statistic, reach: float | None = None) -> Estimate:
        """`reach` is the most that a linear statistic of shares can be; None of any other."""
        if not self.tasks:
            return nothing("; ".join(self.notes) or "no tasks in common")
        mean = np.mean(self._draws, axis=0)
        value = float(of(self._columns(self._point()))[0])
        draws = of(self._columns(mean))
        note = "; ".join([*self.notes, *([EXACT] if self._exact else [])])
        groups = [g for g in self.groups if g]
        if not groups:
            return Estimate(Interval(value, None, None, 0, NO_ITEMS), draws)
        if min(groups) < 2 or not np.isfinite(value):
            return Estimate(percentile(value, draws, min(groups), self.n, note), draws)
        if reach is not None:
            parts = [float(of(self._columns(d)).var()) for d, g in self._measured()]
            variances = [v / len(self.tasks) ** 2 for v in parts]
        else:
            groups, variances = [min(groups)], [float(np.nanvar(draws))]
        seeds = self._between_seeds(of, mean)
        if flat(value, draws) and not seeds:
            if reach is not None and self.of_shares():
                interval, p = alike(value, min(groups), reach, self.n, note)
                return Estimate(interval, draws, p=p)
            return Estimate(percentile(value, draws, min(groups), self.n, note), draws)
        freedom, wider = spread(groups, variances)
        spreads = [(float(np.nanvar(draws)) * wider**2, freedom), *seeds]
        draws = again(draws, seeds, stream(self.bank.seed, "seeds", *self.tasks))
        interval = percentile(value, draws, min(groups), self.n, note, cut_of(freedom, wider))
        p = p_value(draws, freedom, wider, far_tail(value, spreads))
        return tested(interval, draws, sum(v for v, _ in spreads) ** 0.5, p)

    def _measured(self) -> list[tuple[Array, int]]:
        return [(d, g) for d, g in zip(self._draws, self.groups, strict=True) if g]

    def _between_seeds(self, of: Statistic, mean: Array) -> list[tuple[float, int]]:
        """What training again adds to the variance of the mean over seeds, line by line."""
        seeds = {c.line: s for c, s in zip(self.columns, self.seeds, strict=True) if c.line}
        found = []
        for line, own in seeds.items():
            if len(own) < 2:
                continue
            lines = [self._by_seed(of, mean, line), *self._peers(of, line)]
            found.append(between_seeds(lines, len(own)))
        return [f for f in found if f[0] > 0]

    def _by_seed(self, of: Statistic, mean: Array, line: str) -> tuple[Array, Array]:
        """The statistic of each seed of a line alone: (seeds,) and (resamples, seeds)."""
        own = next(s for c, s in zip(self.columns, self.seeds, strict=True) if c.line == line)
        point = [of(self._columns(self._point(), line, s))[0] for s in own]
        return np.array(point), np.stack([of(self._columns(mean, line, s)) for s in own], axis=1)

    def _peers(self, of: Statistic, line: str) -> Iterator[tuple[Array, Array]]:
        """The same of every line that stands in this one's place."""
        names = set.intersection(
            *({p.line for p in c.peers} for c in self.columns if c.line == line)
        )
        for name in sorted(names - {c.line for c in self.columns}):
            columns = [
                next(p for p in c.peers if p.line == name) if c.line == line else c
                for c in self.columns
            ]
            other = Panel(columns, self.bank)
            own = [s for c, s in zip(columns, other.seeds, strict=True) if c.line == name]
            several = all(len(s) > 1 for s in own)
            if other.tasks == self.tasks and several:
                yield other._by_seed(of, np.mean(other._draws, axis=0), name)


def between_seeds(lines: Sequence[tuple[Array, Array]], seeds: int) -> tuple[float, int]:
    """Variance that training again adds to a mean over seeds, and its degrees of freedom.

    `lines` are those whose variance is taken to be the same, each as its statistic by seed,
    (seeds,) and drawn (resamples, seeds). It is the variance between seeds less what the choice of
    items alone puts between them (a moment estimate as in a two-way analysis of variance with
    random effects), pooled over the lines and never below 0.
    """
    total, freedom = 0.0, 0
    for point, draws in lines:
        k = len(point)
        apart = draws - draws.mean(axis=1, keepdims=True)
        total += (k - 1) * float(point.var(ddof=1)) - float(np.nanvar(apart, axis=0).sum())
        freedom += k - 1
    return max(0.0, total / freedom) / seeds, freedom
