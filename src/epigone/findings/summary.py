"""Many metrics at once: the style gap closed, and changes averaged over capability tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from epigone.findings.gaps import (
    NO_GAP,
    POWER,
    UNKNOWN,
    gap_exists,
    pair,
    share,
    teacher_value,
    with_fixed,
)
from epigone.findings.model import TeacherValue
from epigone.findings.resample import (
    RESAMPLES,
    Array,
    Resampler,
    percentile,
    stream,
    tail_of_mean,
)
from epigone.schema import Interval, Score


@dataclass(frozen=True, slots=True)
class StyleMetric:
    """One style metric of a base, its students (one a seed) and the teacher."""

    base: Score
    students: tuple[Score, ...]
    teacher: Score | None
    reported: float | None


@dataclass(frozen=True, slots=True)
class Part:
    """What one task adds to a mean over tasks: coefficient times score, summed."""

    name: str
    terms: tuple[tuple[float, Score], ...]


@dataclass(frozen=True, slots=True)
class StyleClosed:
    """Mean share of the style gap closed, the metrics it is made of, and how it was bounded."""

    interval: Interval
    metrics: tuple[str, ...]
    lower_bound: bool


def style_closed(
    metrics: Sequence[StyleMetric], seed: int = 0, resamples: int = RESAMPLES
) -> StyleClosed:
    """Mean over style metrics of the share of the gap closed, seeds averaged.

    The same resampled prompts serve all the metrics. Metrics whose gap is unknown or cannot be
    told from 0 are left out, and the note says how many.
    """
    columns: list[Score] = []
    plans: list[tuple[str, slice, TeacherValue, Score | None]] = []
    reasons: list[str] = []
    for metric in metrics:
        known = teacher_value(metric.base, metric.teacher, metric.reported)
        measured = metric.teacher if known.source == "measured" else None
        group = [metric.base, *metric.students, *([measured] if measured else [])]
        paired, note = pair(group)
        if known.value is None or paired is None:
            reasons.append(UNKNOWN if known.value is None else note)
            continue
        where = slice(len(columns), len(columns) + len(paired))
        plans.append((metric.base.metric, where, known, measured))
        columns += paired
    if not plans:
        note = reasons[0] if reasons else "no style metrics"
        return StyleClosed(Interval(None, None, None, 0, note), (), False)
    resampler = Resampler(columns)
    draws, point = resampler.draws(stream(seed, "style"), resamples), resampler.point()[None, :]
    shares: list[tuple[float, Array]] = []
    groups: list[int] = []
    used: list[tuple[str, TeacherValue]] = []
    for name, where, known, measured in plans:
        d = with_fixed(draws[:, where], known, measured)
        p = with_fixed(point[:, where], known, measured)
        own = resampler.groups_of(where.start)
        if gap_exists(float(p[0, -1] - p[0, 0]), d[:, -1] - d[:, 0], own):
            shares.append((float(share(p)[0]), share(d)))
            groups.append(own)
            used.append((name, known))
        else:
            reasons.append(NO_GAP)
    if not shares:
        return StyleClosed(Interval(None, None, None, resampler.groups, reasons[0]), (), False)
    note = f"{len(shares)} of {len(metrics)} metrics: {reasons[0]} on the rest" if reasons else ""
    value = float(np.mean([s[0] for s in shares]))
    mean = np.mean([s[1] for s in shares], axis=0)
    cut = tail_of_mean(groups, [_variance(s[1]) for s in shares], independent=False)
    interval = percentile(value, mean, min(groups), resampler.groups, note, cut)
    lower = any(k.source == "ceiling" for _, k in used)
    return StyleClosed(interval, tuple(n for n, _ in used), lower)


def mean_contrast(
    parts: Sequence[Part], seed: int = 0, resamples: int = RESAMPLES
) -> tuple[Interval, float | None, tuple[str, ...]]:
    """Mean over tasks of a sum of scores with coefficients; detectable size; tasks used.

    Within a task all scores are taken on the items that they share and are resampled together;
    tasks are resampled independently, and each is widened for its own items only. Metrics where
    lower is better count with the sign turned, so up is good.
    """
    values: list[float] = []
    draws: list[Array] = []
    names: list[str] = []
    notes: list[str] = []
    groups: list[int] = []
    n = 0
    for part in parts:
        paired, note = pair([s for _, s in part.terms])
        if note:
            notes.append(f"{part.name}: {note}")
        if paired is None:
            continue
        resampler = Resampler(paired)
        good = 1.0 if paired[0].better == "higher" else -1.0
        coefficients = good * np.array([c for c, _ in part.terms])
        value = float(resampler.point() @ coefficients)
        if not np.isfinite(value):
            notes.append(f"{part.name}: undefined on these items")
            continue
        values.append(value)
        draws.append(resampler.draws(stream(seed, part.name), resamples) @ coefficients)
        names.append(part.name)
        n += paired[0].n
        groups.append(resampler.groups)
    note = "; ".join(notes)
    if not values:
        return Interval(None, None, None, 0, note or "no tasks in common"), None, ()
    mean = np.mean(draws, axis=0)
    cut = tail_of_mean(groups, [_variance(d) for d in draws]) if min(groups) > 1 else None
    interval = percentile(float(np.mean(values)), mean, min(groups), n, note, cut)
    size = None if interval.low is None else POWER * float(np.nanstd(mean))
    return interval, size, tuple(names)


def _variance(draws: Array) -> float:
    good = draws[np.isfinite(draws)]
    return float(good.var()) if len(good) else 0.0


def mean_of(scores: Sequence[Score], sign: float = 1.0) -> tuple[tuple[float, Score], ...]:
    """Terms of `mean_contrast` for the average over seeds."""
    return tuple((sign / len(scores), s) for s in scores)


def parts_of(tables: Sequence[tuple[Mapping[str, Sequence[Score]], float]]) -> list[Part]:
    """Parts of `mean_contrast` from (scores by task, sign) tables: the tasks that all have."""
    shared = set.intersection(*(set(t) for t, _ in tables)) if tables else set()
    return [
        Part(task, tuple(term for table, sign in tables for term in mean_of(table[task], sign)))
        for task in sorted(shared)
    ]
