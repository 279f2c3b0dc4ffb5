"""The share of the style gap that closed, over all style metrics at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from epigone.findings.gaps import (
    NO_GAP,
    UNKNOWN,
    gap_exists,
    pair,
    share,
    teacher_value,
    with_fixed,
)
from epigone.findings.model import TeacherValue
from epigone.findings.panel import Estimate, between_seeds, nothing, tested
from epigone.findings.resample import (
    NO_ITEMS,
    RESAMPLES,
    Array,
    Resampler,
    again,
    cut_of,
    far_tail,
    flat,
    p_value,
    percentile,
    spread,
    stream,
    usable,
)
from epigone.schema import Interval, Score


@dataclass(frozen=True, slots=True)
class StyleMetric:
    """One style metric of a base, its students by seed and the teacher."""

    base: Score
    students: Mapping[int, Score]
    teacher: Score | None
    reported: float | None


@dataclass(frozen=True, slots=True)
class StyleClosed:
    """Mean share of the style gap closed, the metrics it is made of, and how it was bounded."""

    estimate: Estimate
    metrics: tuple[str, ...]
    lower_bound: bool


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where a metric's base, students and measured teacher stand among the columns."""

    name: str
    where: slice
    known: TeacherValue
    measured: Score | None


@dataclass(frozen=True, slots=True)
class _Share:
    """What one metric says: by seed as it is (seeds,) and drawn (resamples, seeds), its items."""

    plan: _Plan
    point: Array
    draws: Array
    groups: int


def style_closed(
    metrics: Sequence[StyleMetric],
    seed: int = 0,
    resamples: int = RESAMPLES,
    peers: Sequence[Sequence[StyleMetric]] = (),
) -> StyleClosed:
    """Mean over style metrics of the share of the gap closed, seeds averaged.

    The same resampled prompts serve all the metrics. Metrics whose gap is unknown or cannot be
    told from 0 are left out, and the note says how many. `peers` have the students of other lines
    in place of these, which training again is taken to move as much.
    """
    if metrics and not any(usable(s) for m in metrics for s in (m.base, *m.students.values())):
        return _reported(metrics)
    shares, reasons, groups = _shares(metrics, seed, resamples)
    if not shares:
        none = Interval(None, None, None, groups, reasons[0] if reasons else "no style metrics")
        return StyleClosed(Estimate(none, np.empty(0)), (), False)
    names = tuple(s.plan.name for s in shares)
    others = [found for p in peers if (found := _shares(p, seed, resamples)[0])]
    alike = [s for s in others if tuple(x.plan.name for x in s) == names]
    note = f"{len(shares)} of {len(metrics)} metrics: {reasons[0]} on the rest" if reasons else ""
    lower = any(s.plan.known.source == "ceiling" for s in shares)
    return StyleClosed(_mean(shares, alike, seed, groups, note), names, lower)


def _shares(
    metrics: Sequence[StyleMetric], seed: int, resamples: int
) -> tuple[list[_Share], list[str], int]:
    """What each metric says, why others say nothing, and the number of groups of prompts."""
    columns, plans, reasons = _plans(metrics)
    if not plans:
        return [], reasons, 0
    resampler = Resampler(columns)
    draws, point = resampler.draws(stream(seed, "style"), resamples), resampler.point()[None, :]
    shares: list[_Share] = []
    for plan in plans:
        found = _share(plan, resampler, point, draws)
        if found is None:
            reasons.append(NO_GAP)
        else:
            shares.append(found)
    return shares, reasons, resampler.groups


def _plans(metrics: Sequence[StyleMetric]) -> tuple[list[Score], list[_Plan], list[str]]:
    columns: list[Score] = []
    plans: list[_Plan] = []
    reasons: list[str] = []
    for metric in metrics:
        known = teacher_value(metric.base, metric.teacher, metric.reported)
        measured = metric.teacher if known.source == "measured" else None
        students = [metric.students[s] for s in sorted(metric.students)]
        paired, note = pair([metric.base, *students, *([measured] if measured else [])])
        if known.value is None or paired is None:
            reasons.append(UNKNOWN if known.value is None else note)
            continue
        where = slice(len(columns), len(columns) + len(paired))
        plans.append(_Plan(metric.base.metric, where, known, measured))
        columns += paired
    return columns, plans, reasons


def _share(plan: _Plan, resampler: Resampler, point: Array, draws: Array) -> _Share | None:
    """None where the teacher cannot be told from the base."""
    p = with_fixed(point[:, plan.where], plan.known, plan.measured)
    d = with_fixed(draws[:, plan.where], plan.known, plan.measured)
    groups = resampler.groups_of(plan.where.start)
    if not gap_exists(float(p[0, -1] - p[0, 0]), d[:, -1] - d[:, 0], groups):
        return None
    return _Share(plan, _by_seed(p)[0], _by_seed(d), groups)


def _by_seed(columns: Array) -> Array:
    seeds = range(1, columns.shape[1] - 1)
    return np.stack([share(columns[:, [0, k, -1]]) for k in seeds], axis=1)


def _over_metrics(shares: Sequence[_Share]) -> tuple[Array, Array]:
    return np.mean([s.point for s in shares], axis=0), np.mean([s.draws for s in shares], axis=0)


def _mean(
    shares: Sequence[_Share],
    alike: Sequence[Sequence[_Share]],
    seed: int,
    groups: int,
    note: str,
) -> Estimate:
    point, by_seed = _over_metrics(shares)
    value, draws = float(point.mean()), by_seed.mean(axis=1)
    own = [s.groups for s in shares]
    seeds = []
    if len(point) > 1:
        several = [_over_metrics(s) for s in (shares, *alike)]
        seeds = [f for f in [between_seeds(several, len(point))] if f[0] > 0]
    if min(own) < 2 or (flat(value, draws) and not seeds):
        return Estimate(percentile(value, draws, min(own), groups, note), draws)
    freedom, wider = spread(
        own, [_variance(s.draws.mean(axis=1)) for s in shares], independent=False
    )
    spreads = [(_variance(draws) * wider**2, freedom), *seeds]
    draws = again(draws, seeds, stream(seed, "seeds", "style"))
    interval = percentile(value, draws, min(own), groups, note, cut_of(freedom, wider))
    p = p_value(draws, freedom, wider, far_tail(value, spreads))
    return tested(interval, draws, sum(v for v, _ in spreads) ** 0.5, p)


def _variance(draws: Array) -> float:
    good = draws[np.isfinite(draws)]
    return float(good.var()) if len(good) else 0.0


def _reported(metrics: Sequence[StyleMetric]) -> StyleClosed:
    """The mean share where all that is known are values without items."""
    found: dict[str, float] = {}
    lower = False
    for m in metrics:
        known = teacher_value(m.base, m.teacher, m.reported)
        values = [s.value for s in m.students.values() if s.value is not None]
        if known.value is None or m.base.value is None or not values:
            continue
        if known.value != m.base.value:
            mean = sum(values) / len(values)
            found[m.base.metric] = (mean - m.base.value) / (known.value - m.base.value)
            lower = lower or known.source == "ceiling"
    if not found:
        return StyleClosed(nothing(UNKNOWN), (), False)
    value = sum(found.values()) / len(found)
    return StyleClosed(
        Estimate(Interval(value, None, None, 0, NO_ITEMS), np.empty(0)), tuple(found), lower
    )
