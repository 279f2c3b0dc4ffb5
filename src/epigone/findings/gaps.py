"""One metric: a value's interval, a paired change, and the share of the gap that closed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np

from epigone.findings.bank import Bank
from epigone.findings.model import TeacherValue
from epigone.findings.resample import (
    LEVEL,
    NO_ITEMS,
    PUBLISHED,
    RESAMPLES,
    Array,
    Resampler,
    flat,
    incomparable,
    percentile,
    restrict,
    shared_items,
    stream,
    usable,
)
from epigone.findings.shares import share_interval
from epigone.schema import Interval, Score

# z(0.975) + z(0.80): a two-sided 5% test that finds the difference four times in five.
FOUND = NormalDist().inv_cdf(0.80)
POWER = NormalDist().inv_cdf(0.975) + FOUND

UNKNOWN = "teacher not known"
CEILING = (
    "ceiling of identical answers: the teacher's own second sample was not collected, "
    "so the share closed is a lower bound"
)
REPORTED = "teacher's value as reported elsewhere, taken as exact"
NO_GAP = "the teacher cannot be told from the untrained base"


def value_interval(score: Score, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """One score with its 95% interval.

    Wilson's interval for a share of independent items (a scale of 1, all values 0 or 1), Tango's
    for a difference of two shares (all -1, 0 or 1), `share_interval` for a win rate with ties, the
    bootstrap over items or clusters otherwise. A score without per-item values has no bounds.
    """
    items = sorted(usable(score))
    if not items:
        why = NO_ITEMS if score.method == PUBLISHED else "no per-item values"
        return Interval(score.value, None, None, score.n, why)
    values = [score.values[i] for i in items]
    n = len(values)
    # A rating or a ratio that happens to be 0 or 1 on every item is no share.
    counted = score.aggregate == "mean" and score.scale == 1 and not score.clusters
    if counted and score.better == "zero" and set(values) <= {-1, 0, 1}:
        return Interval(sum(values) / n, *tango(values.count(1), values.count(-1), n), n)
    if counted and score.family == "preference":
        return share_interval(np.array(values))
    if counted and score.better != "zero" and set(values) <= {0, 1}:
        return Interval(sum(values) / n, *wilson(sum(values), n), n)
    resampler = Resampler([score])
    draws = resampler.draws(stream(seed, score.metric, score.task), resamples)[:, 0]
    return percentile(float(resampler.point()[0]), draws, resampler.groups, n)


def wilson(successes: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a proportion (E. B. Wilson, JASA 22, 1927)."""
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p = successes / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    low = 0.0 if successes <= 0 else middle - half
    return low, 1.0 if successes >= n else middle + half


def tango(more: int, fewer: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Score interval of a difference of two shares of the same n items (T. Tango, SiM 17, 1998).

    `more` items have it in the first only, `fewer` in the second only. It has a width even where
    the two agree on every item, so that five such items say less than five hundred.
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)

    def holds(delta: float) -> bool:
        b = (2 * n - more + fewer) * delta - more - fewer
        c = -fewer * delta * (1 - delta)
        # The share of `fewer` that is likeliest if the difference is delta.
        share = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        return (more - fewer - n * delta) ** 2 <= z * z * n * (2 * share + delta * (1 - delta))

    def bound(end: float) -> float:
        inside, outside = (more - fewer) / n, end
        for _ in range(50):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if holds(middle) else (inside, middle)
        return inside

    return bound(-1.0), bound(1.0)


def change(base: Score, student: Score, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Student minus base on the items that both have, paired, in the metric's own unit."""
    return paired_change(base, student, Bank(seed=seed, resamples=resamples))[0]


def detectable(
    base: Score, student: Score, seed: int = 0, resamples: int = RESAMPLES
) -> float | None:
    """Smallest change that this comparison would find with 80% power at a two-sided 5% level.

    2.80 standard errors of the paired difference: from the standard deviation of the items'
    differences for a mean of independent items (E. Miller, arXiv 2411.00640), from the
    bootstrap for correlations and clusters. None where no spread can be seen.
    """
    return paired_change(base, student, Bank(seed=seed, resamples=resamples))[1]


def paired_change(base: Score, student: Score, bank: Bank) -> tuple[Interval, float | None]:
    """`change` and `detectable` from the same draws."""
    drawn, note = bank.together([base, student])
    if drawn is None:
        told = published(base, student)
        return Interval(told[1] - told[0] if told else None, None, None, 0, note), None
    moved = drawn.draws[:, 1] - drawn.draws[:, 0]
    value = float(drawn.point[1] - drawn.point[0])
    interval = percentile(value, moved, drawn.groups, drawn.n, note)
    if interval.low is None:
        return interval, None
    if base.aggregate != "pearson" and drawn.groups == drawn.n:
        a, b = base.values, student.values
        items = bank.items(base) & bank.items(student)
        error = float(np.std([b[i] - a[i] for i in sorted(items)], ddof=1)) / drawn.n**0.5
    else:
        error = float(np.nanstd(moved))
    return interval, POWER * error


def pair(scores: Sequence[Score]) -> tuple[list[Score] | None, str]:
    """The scores on the items that all of them have, and a note where some were left out.

    None where they cannot be compared: no common item, or different versions of a metric.
    """
    items = shared_items(scores)
    if why := incomparable(scores, items):
        return None, why
    most = max(len(usable(s)) for s in scores)
    note = f"on the {len(items)} items in common of {most}" if len(items) < most else ""
    return [restrict(s, items) for s in scores], note


def published(base: Score, student: Score) -> tuple[float, float] | None:
    """The values of two scores that others published, which are compared by these alone.

    None where one of them was measured: their items are not the same.
    """
    if base.value is None or student.value is None or base.values or student.values:
        return None
    both = base.method == student.method == PUBLISHED
    return (base.value, student.value) if both else None


def teacher_value(base: Score, teacher: Score | None, reported: float | None) -> TeacherValue:
    """The teacher's value of a metric: measured, else reported, else a style metric's ceiling.

    A teacher's style score is that of its second sample against its first. Where it is the ceiling
    on every item, the teacher says the same again, as at temperature 0: that is measured too.
    """
    if teacher is not None and teacher.value is not None:
        return TeacherValue(teacher.value, "measured", teacher.method)
    if reported is not None:
        return TeacherValue(reported, "reported")
    if base.family == "style" and base.ceiling is not None:
        return TeacherValue(base.ceiling, "ceiling")
    return TeacherValue(None, "unknown")


def gap_closed(
    base: Score,
    student: Score,
    teacher: Score | None,
    *,
    reported: float | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    bank: Bank | None = None,
) -> Interval:
    """Share of the gap that closed, (student - base) / (teacher - base), paired over items.

    A measured teacher is resampled with the others; a reported value and a ceiling are taken
    as exact and flagged in the note. The value is None where the teacher is not known, and
    where teacher minus base cannot be told from 0. `bank` holds draws to go on with.
    """
    known = teacher_value(base, teacher, reported)
    if known.source == "unknown" or known.value is None:
        return Interval(None, None, None, 0, UNKNOWN)
    measured = teacher if known.source == "measured" else None
    scores = [base, student] if measured is None else [base, student, measured]
    drawn, note = (bank or Bank(seed=seed, resamples=resamples)).together(scores)
    flags = {"reported": REPORTED, "ceiling": CEILING}
    if drawn is None:
        told = published(base, student) if measured is None else None
        if told is None:
            return Interval(None, None, None, 0, note)
        note = f"{note}; {flags[known.source]}"
        gap = known.value - told[0]
        if gap == 0:
            return Interval(None, None, None, 0, f"{NO_GAP}; {note}")
        return Interval((told[1] - told[0]) / gap, None, None, 0, note)
    note = "; ".join(x for x in (note, flags.get(known.source, "")) if x)
    draws = with_fixed(drawn.draws, known, measured)
    point = with_fixed(drawn.point[None, :], known, measured)
    gap = float(point[0, 2] - point[0, 0])
    if not gap_exists(gap, draws[:, 2] - draws[:, 0], drawn.groups):
        return Interval(None, None, None, drawn.n, "; ".join(x for x in (NO_GAP, note) if x))
    return percentile(float(share(point)[0]), share(draws), drawn.groups, drawn.n, note)


def with_fixed(columns: Array, known: TeacherValue, measured: Score | None) -> Array:
    """Columns with the teacher's in the last place: the resampled one, or the fixed value."""
    if measured is not None:
        return columns
    fixed = np.full((len(columns), 1), np.nan if known.value is None else known.value)
    return np.concatenate([columns, fixed], axis=1)


def share(columns: Array) -> Array:
    """(student - base) / (teacher - base) of rows that hold base, student(s), teacher."""
    base, teacher = columns[:, 0], columns[:, -1]
    student = columns[:, 1:-1].mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (student - base) / (teacher - base)
    return np.where(np.isfinite(ratio), ratio, np.nan)


def tells(interval: Interval) -> bool:
    """Whether an interval tells its value from 0."""
    return (
        interval.low is not None and interval.high is not None and interval.low * interval.high > 0
    )


def gap_exists(gap: float, draws: Array, groups: int) -> bool:
    """Whether a gap between teacher and base is told from 0 by its draws.

    A gap that is the same on every item has no spread to resample; a sign test then tells it
    from 0 with six groups or more (2 * 0.5**6 < 0.05). A base that never writes a list is such.
    """
    if flat(gap, draws):
        return groups >= 6 and gap != 0
    return tells(percentile(gap, draws, groups, groups))


def reported_value(
    reported: Mapping[str, float], metric: str, task: str, metrics_of_task: int
) -> float | None:
    """The teacher's reported value of a metric: by `task/metric`, else by the task's name.

    A task's name alone counts only where the task has one metric; a score without a task is
    looked up by its metric.
    """
    exact = reported.get(f"{task}/{metric}" if task else metric)
    if exact is not None or not task or metrics_of_task > 1:
        return exact
    return reported.get(task)
