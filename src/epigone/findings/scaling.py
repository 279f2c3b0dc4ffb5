"""Scores against the amount of data and against the size of the base: slopes and what they need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from epigone.findings.gaps import UNKNOWN, tells
from epigone.findings.grid import ScoreGrid, name_of
from epigone.findings.model import Base, FamilyName, Shape, SizeTrend, Subject, Trend
from epigone.findings.panel import Column, Estimate, Panel
from epigone.findings.resample import Array, open_percentile, tail
from epigone.schema import Interval

Predict = Callable[[Array, Array, Array, float], Array]
# A straight line is followed no farther than this many times the largest amount.
FARTHEST = 10
# Amounts at which half of a curve's gain is there, as shares of the largest one.
_HALVES = np.geomspace(1e-3, 3.0, 80)
NOT_ABOVE = "the slope is not above zero"
NOT_BELOW = "the slope is not below zero"
NOT_TOWARD = "the slope does not lead to the teacher"
BEYOND = f"more than {FARTHEST} times the largest amount, which is farther than a slope is followed"
MATCHED = "the teacher is matched already"
# Of the draws, how many must agree that one curve predicts better.
_AGREE = 0.95
BITS = 0.1


def trends(grid: ScoreGrid) -> Iterator[Trend]:
    """Every metric, and the mean of capability, against the amount: of each base and line."""
    for base in grid.bases():
        untrained = grid.untrained(base)
        for corpus in grid.lines(base):
            students = [s for s in grid.students(base, corpus) if s.model in grid.scores]
            if any(s.feedback for s in students) or len({s.amount for s in students}) < 2:
                continue
            yield from _trends_of(grid, base, corpus, untrained, students)


def _trends_of(
    grid: ScoreGrid,
    base: str,
    corpus: str,
    untrained: Subject | None,
    students: Sequence[Subject],
) -> Iterator[Trend]:
    supports = students[0].supports
    families: tuple[FamilyName, ...] = ("style", "capability", "safety", "preference")
    for family in families:
        names = {n for s in students for n in grid.table(s.model, family, supports)}
        for name in sorted(names):
            task, _, metric = name.rpartition("/")
            yield from _trend(grid, base, corpus, untrained, students, family, (task, metric))
    means: tuple[FamilyName, ...] = ("supported", "unsupported", "capability")
    for family in means:
        yield from _trend(grid, base, corpus, untrained, students, family, None)


def _trend(
    grid: ScoreGrid,
    base: str,
    corpus: str,
    untrained: Subject | None,
    students: Sequence[Subject],
    family: FamilyName,
    key: tuple[str, str] | None,
) -> Iterator[Trend]:
    supports = students[0].supports
    by_amount: dict[int, list[Subject]] = {}
    for s in students:
        table = grid.table(s.model, family, supports)
        if table if key is None else name_of(key) in table:
            by_amount.setdefault(s.amount, []).append(s)
    amounts = tuple(sorted(by_amount))
    if len(amounts) < 2:
        return
    columns = [grid.column(by_amount[a], family, supports) for a in amounts]
    start = grid.column([untrained], family, supports) if untrained else None
    if key is not None:
        columns = [only(c, name_of(key)) for c in columns]
        start = only(start, name_of(key)) if start else None
    panel = Panel(columns, grid.bank)
    if not panel.tasks:
        return
    slope = panel.contrast(slope_weights(np.log2(amounts)))
    ahead = [(a, panel.contrast(_at(amounts, a)).interval) for a in _ahead(amounts)]
    task, metric = key or ("", family)
    told = slope.interval
    if key is not None:
        told, ahead = own_unit(told, panel), [(a, own_unit(i, panel)) for a, i in ahead]
        if panel.of_shares():
            ahead = [(a, _within(i)) for a, i in ahead]
    made = Trend(
        base, corpus, family, task, metric, amounts, told, "too few amounts", predicted=(*ahead,)
    )
    made = _with_shape(made, grid, columns, start)
    yield _with_need(made, grid, columns, slope)


def _ahead(amounts: Sequence[int]) -> tuple[int, int]:
    return 2 * amounts[-1], FARTHEST * amounts[-1]


def _within(interval: Interval) -> Interval:
    """A line's value where shares end, at 0 and 1."""
    low, value, high = (
        None if x is None else min(1.0, max(0.0, x))
        for x in (interval.low, interval.value, interval.high)
    )
    return replace(interval, low=low, value=value, high=high)


def own_unit(interval: Interval, panel: Panel) -> Interval:
    """An interval of one metric as the metric counts, where the panel turned its sign."""
    if interval.value is None or panel.better == "higher":
        return interval
    low, high = interval.low, interval.high
    return replace(
        interval,
        value=-interval.value,
        low=None if high is None else -high,
        high=None if low is None else -low,
    )


def only(column: Column, name: str) -> Column:
    """A column of one metric alone."""
    tables = {s: {n: x for n, x in t.items() if n == name} for s, t in column.tables.items()}
    return Column(tables, column.line, tuple(only(p, name) for p in column.peers))


def slope_weights(x: Array) -> Array:
    """Weights of a least-squares slope over points at `x`."""
    centred = x - x.mean()
    out: Array = centred / (centred @ centred)
    return out


def _at(amounts: Sequence[int], amount: int) -> Array:
    """Weights of a least-squares line's value at an amount."""
    x = np.log2(amounts)
    out: Array = 1 / len(x) + (np.log2(amount) - x.mean()) * slope_weights(x)
    return out


def _with_shape(
    made: Trend, grid: ScoreGrid, columns: Sequence[Column], start: Column | None
) -> Trend:
    """Whether the scores level off: each curve predicts every amount from the others."""
    if len(made.amounts) < 4 or start is None or not any(start.tables.values()):
        return made
    panel = Panel([start, *columns], grid.bank)
    if not panel.tasks:
        return made
    rows = panel.drawn()
    amounts = np.array(made.amounts, dtype=np.float64)
    better = _left_out(rows, amounts, straight) - _left_out(rows, amounts, saturating)
    known = np.isfinite(better[1:])
    if not known.any() or np.allclose(rows, rows[0]):
        return made
    share = float((better[1:][known] > 0).mean())
    shape: Shape = (
        "saturating" if share >= _AGREE else "straight" if share <= 1 - _AGREE else "unclear"
    )
    half = None
    found = _fit(rows, amounts)[1]
    if shape == "saturating" and found[0] > amounts.max():
        # Scores that rise ever faster are nearer this curve than a line; nothing levels off there.
        shape = "unclear"
    if shape == "saturating":
        groups = min(g for g in panel.groups if g)
        half = open_percentile(float(found[0]), found[1:], groups, panel.n, "", tail(groups))
    return replace(made, shape=shape, saturating=share, half=half)


def _left_out(rows: Array, amounts: Array, predict: Predict) -> Array:
    """Sum of squares by which a curve misses each amount when fitted to the others."""
    missed = np.zeros(len(rows))
    for k in range(len(amounts)):
        others = np.arange(len(amounts)) != k
        guess = predict(rows[:, 0], rows[:, 1:][:, others], amounts[others], amounts[k])
        missed += (guess - rows[:, 1 + k]) ** 2
    return missed


def straight(base: Array, scores: Array, amounts: Array, at: float) -> Array:
    """The value at an amount of a straight line in the logarithm of the amount."""
    x = np.log2(amounts)
    out: Array = scores.mean(axis=1) + (np.log2(at) - x.mean()) * (scores @ slope_weights(x))
    return out


def saturating(base: Array, scores: Array, amounts: Array, at: float) -> Array:
    """The value at an amount of base + gain * amount / (amount + half): see `_fit`."""
    gain, half = _fit(np.concatenate([base[:, None], scores], axis=1), amounts)
    out: Array = base + gain * at / (at + half)
    return out


def _fit(rows: Array, amounts: Array) -> tuple[Array, Array]:
    """Gain and half-way amount of the curve that starts at the base and levels off.

    It has as many parameters as a straight line, two. The half-way amount is the best of a grid,
    the gain follows by least squares.
    """
    halves = _HALVES * amounts.max()
    basis = amounts[None, :] / (amounts[None, :] + halves[:, None])  # (halves, amounts)
    y = rows[:, 1:] - rows[:, :1]
    gains = (y @ basis.T) / (basis**2).sum(axis=1)  # (rows, halves)
    # The squares missed, less what does not depend on the curve.
    missed = -gains * (y @ basis.T)
    best = missed.argmin(axis=1)
    return gains[np.arange(len(rows)), best], halves[best]


def _with_need(made: Trend, grid: ScoreGrid, columns: Sequence[Column], slope: Estimate) -> Trend:
    """How many tokens would match the teacher at this slope, if that can be said."""
    first = columns[0].tables[min(columns[0].tables)]
    teacher = grid.teacher_column(first)
    if set(teacher.tables[0]) != set(first):
        return replace(made, why=UNKNOWN)
    if slope.interval.low is None:
        return replace(made, why=slope.interval.note)
    panel = Panel([*columns, teacher], grid.bank)
    groups = [g for g in panel.groups if g]
    if not panel.tasks or not groups:
        return replace(made, why=UNKNOWN)
    rows = panel.drawn()
    x = np.log2(made.amounts)
    slopes = rows[:, :-1] @ slope_weights(x)
    away = rows[:, -1] - rows[:, :-1] @ _at(made.amounts, made.amounts[-1])
    # What is best at 0 may have to rise or to fall; the panel turned its sign.
    up = -1.0 if panel.better == "zero" and away[0] < 0 else 1.0
    if not tells(slope.interval) or up * (slope.interval.value or 0.0) <= 0:
        why = {"higher": NOT_ABOVE, "lower": NOT_BELOW, "zero": NOT_TOWARD}
        return replace(made, why=why[panel.better if made.metric != made.family else "higher"])
    with np.errstate(divide="ignore", invalid="ignore"):
        doublings = away / slopes
    # A draw whose slope is not above 0 never gets there.
    doublings[up * slopes <= 0] = np.inf
    if doublings[0] <= 0:
        return replace(made, why=MATCHED)
    if doublings[0] > np.log2(FARTHEST):
        return replace(made, why=BEYOND)
    far = np.log2(FARTHEST)
    held = np.where(doublings > far, np.inf, doublings)
    found = open_percentile(
        float(held[0]), held[1:], min(groups), panel.n, "", tail(min(groups)), BEYOND
    )
    scale = made.amounts[-1]
    low, value, high = (
        None if b is None else scale * 2**b for b in (found.low, found.value, found.high)
    )
    return replace(made, needed=Interval(value, low, high, found.n, found.note))


def sizes(grid: ScoreGrid) -> Iterator[SizeTrend]:
    """Every capability metric and its mean against size: untrained bases, and each line's most."""
    common: dict[str, set[int]] = {}
    for line in dict.fromkeys(c for b in grid.bases() for c in grid.lines(b)):
        amounts = [{s.amount for s in grid.students(b, line)} for b in grid.bases()]
        common[line] = set.intersection(*amounts)
    for corpus, amount in [("", 0), *((c, max(a)) for c, a in common.items() if a)]:
        for by in ("parameters", "loss"):
            yield from _size_trends(grid, corpus, amount, by)


def _size_trends(
    grid: ScoreGrid, corpus: str, amount: int, by: Literal["parameters", "loss"]
) -> Iterator[SizeTrend]:
    known = [b for b in grid.bases() if _size(grid.facts.get(b), by) is not None]
    models: dict[str, list[Subject]] = {}
    for base in known:
        own = grid.students(base, corpus, amount) if corpus else [grid.untrained(base)]
        models[base] = [s for s in own if s is not None and s.model in grid.scores]
    names = sorted(
        (b for b in known if models[b]), key=lambda b: _size(grid.facts.get(b), by) or 0.0
    )
    x = np.array([_size(grid.facts.get(b), by) or 0.0 for b in names])
    if len(names) < 2 or np.ptp(x) == 0:
        return
    families: tuple[FamilyName, ...] = ("capability", "style", "safety", "preference")
    for family in families:
        columns = [grid.column(models[b], family) for b in names]
        tables = [t for c in columns for t in c.tables.values()]
        shared = sorted(set.intersection(*(set(t) for t in tables)))
        keys = [*shared, *([""] if family == "capability" and shared else [])]
        for name in keys:
            used = [only(c, name) for c in columns] if name else columns
            panel = Panel(used, grid.bank)
            if not panel.tasks:
                continue
            slope = panel.contrast(slope_weights(x)).interval
            if name:
                slope = own_unit(slope, panel)
            task, _, metric = name.rpartition("/") if name else ("", "", family)
            yield SizeTrend(corpus, amount, family, task, metric, by, tuple(names), slope)


def _size(base: Base | None, by: Literal["parameters", "loss"]) -> float | None:
    """Doublings of the weights, or steps of 0.1 bits by which the loss is lower."""
    if base is None:
        return None
    if by == "parameters":
        return float(np.log2(base.parameters)) if base.parameters else None
    return None if base.loss is None else -base.loss / BITS
