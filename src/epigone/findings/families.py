"""One number for each family of metrics of a base's students, and Holm's rule over many tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from epigone.findings.gaps import NO_GAP, UNKNOWN, gap_exists, share
from epigone.findings.grid import ScoreGrid
from epigone.findings.model import FamilyName, Subject, Summary
from epigone.findings.panel import Column, Panel
from epigone.findings.resample import NO_ITEMS
from epigone.findings.style_gap import StyleMetric, style_closed
from epigone.schema import Interval

MEANS: tuple[FamilyName, ...] = (
    "capability",
    "supported",
    "unsupported",
    "safety",
    "preference",
)


def summaries(grid: ScoreGrid) -> Iterator[Summary]:
    """Every family of every base, line and amount that has a score of it."""
    for base in grid.bases():
        cells: dict[tuple[str, int], list[Subject]] = defaultdict(list)
        for s in grid.students(base):
            if s.model in grid.scores:
                cells[s.corpus or "", s.amount].append(s)
        untrained = grid.untrained(base)
        if untrained is None or untrained.model not in grid.scores:
            continue
        for (corpus, amount), students in sorted(cells.items()):
            blank = Summary(
                base, corpus, amount, "style", _none(""), _none(""), (),
                tuple(s.seed for s in students), feedback=students[0].feedback,
            )  # fmt: skip
            yield from _style(grid, untrained, students, blank)
            for family in MEANS:
                yield from _mean(grid, untrained, students, replace(blank, family=family))


def _style(
    grid: ScoreGrid, untrained: Subject, students: Sequence[Subject], blank: Summary
) -> Iterator[Summary]:
    scored = [s for s in students if grid.table(s.model, "style")]
    if not scored:
        return
    metrics = _style_metrics(grid, untrained, scored)
    peers = [_style_metrics(grid, untrained, p) for p in grid.peers(scored)]
    found = style_closed(metrics, grid.bank.seed, grid.bank.resamples, peers)
    e = found.estimate
    yield replace(
        blank, estimate=e.interval, closed=e.interval, parts=found.metrics, p=e.p,
        seeds=tuple(s.seed for s in scored), detectable=e.detectable, lower_bound=found.lower_bound,
    )  # fmt: skip


def _style_metrics(
    grid: ScoreGrid, untrained: Subject, students: Sequence[Subject]
) -> list[StyleMetric]:
    before = grid.table(untrained.model, "style")
    after = {s.seed: grid.table(s.model, "style") for s in students}
    return [
        StyleMetric(
            before[k],
            {seed: t[k] for seed, t in after.items()},
            grid.teacher_score((before[k].task, before[k].metric)),
            grid.reported_for((before[k].task, before[k].metric)),
        )
        for k in sorted(set(before).intersection(*after.values()))
    ]


def _mean(
    grid: ScoreGrid, untrained: Subject, students: Sequence[Subject], blank: Summary
) -> Iterator[Summary]:
    supports = students[0].supports
    own = [s for s in students if grid.table(s.model, blank.family, supports)]
    if not own:
        return
    columns = [
        grid.column([untrained], blank.family, supports),
        grid.column(own, blank.family, supports),
    ]
    panel = Panel(columns, grid.bank)
    moved = panel.contrast([-1.0, 1.0])
    yield replace(
        blank, estimate=moved.interval, closed=_closed(grid, columns), parts=tuple(panel.tasks),
        seeds=tuple(s.seed for s in own), detectable=moved.detectable, p=moved.p,
    )  # fmt: skip


def _closed(grid: ScoreGrid, columns: Sequence[Column]) -> Interval:
    """Share closed of the gap between the means over the tasks where the teacher is known."""
    teacher = grid.teacher_column(columns[0].tables[min(columns[0].tables)])
    if not teacher.tables[0]:
        return _none(UNKNOWN)
    panel = Panel([*columns, teacher], grid.bank)
    if not panel.tasks:
        return _none("; ".join(panel.notes) or UNKNOWN)
    drawn = panel.drawn()
    gap, draws = drawn[0, 2] - drawn[0, 0], drawn[1:, 2] - drawn[1:, 0]
    groups = [g for g in panel.groups if g]
    if not groups:
        ratio = float(share(drawn[:1])[0])
        return Interval(ratio, None, None, 0, NO_ITEMS) if np.isfinite(ratio) else _none(NO_GAP)
    if not gap_exists(float(gap), draws, min(groups)):
        return _none(NO_GAP)
    return panel.statistic(share).interval


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Adjusted p-values (S. Holm, Scandinavian Journal of Statistics 6, 1979), in their order.

    What has no p is no test.
    """
    known = sorted((x, i) for i, x in enumerate(p) if x is not None)
    found: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, (x, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * x))
        found[i] = largest
    return found


def _none(why: str) -> Interval:
    return Interval(None, None, None, 0, why)
