"""More data or a better base, and local against broad data: what each buys on the same items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from epigone.findings.grid import ScoreGrid
from epigone.findings.model import DataOrBase, FamilyName, LocalBroad, Subject
from epigone.findings.panel import Column, Estimate, Panel
from epigone.findings.scaling import only
from epigone.schema import Score


def data_or_base(grid: ScoreGrid) -> Iterator[DataOrBase]:
    """Every base and line with two amounts or more, on the capability that its corpus is for.

    Of a local corpus that is the task it has examples of, of a broad one all tasks.
    """
    for base in grid.bases():
        for corpus in grid.lines(base):
            if any(s.feedback for s in grid.students(base, corpus)):
                continue
            supports = grid.supports(base, corpus)
            family: FamilyName = "supported" if supports else "capability"
            scored = grid.scored(base, corpus, family, supports)
            if len(scored) < 2:
                continue
            previous, amount = sorted(scored)[-2:]
            yield _compared(grid, base, corpus, family, (previous, amount), scored)


def _compared(
    grid: ScoreGrid,
    base: str,
    corpus: str,
    family: FamilyName,
    step: tuple[int, int],
    scored: dict[int, list[Subject]],
) -> DataOrBase:
    previous, amount = step
    supports = grid.supports(base, corpus)
    columns = [grid.column(scored[a], family, supports) for a in step]
    doublings = float(np.log2(amount / previous))
    gain = [-1 / doublings, 1 / doublings]
    panel = Panel(columns, grid.bank)
    alone = panel.contrast(gain)
    found = DataOrBase(
        base, corpus, family, tuple(panel.tasks), previous, amount, alone.interval,
        data_hours=_mean([s.hours for s in scored[amount]]),
        data_dollars=_mean([s.dollars for s in scored[amount]]),
    )  # fmt: skip
    other = next_base(grid, base, family, supports)
    if other is None:
        return found
    theirs = [
        s for s in grid.students(other, corpus, amount)
        if grid.table(s.model, family, supports) and not s.feedback
    ]  # fmt: skip
    if theirs:
        pair = [grid.column(theirs, family, supports), columns[1]]
    else:
        start, own = grid.untrained(other), grid.untrained(base)
        if start is None or own is None:
            return found
        pair = [grid.column([m], family, supports) for m in (start, own)]
    return _against(grid, replace(found, other=other, trained=bool(theirs)), columns, pair, theirs)


def _against(
    grid: ScoreGrid,
    found: DataOrBase,
    columns: Sequence[Column],
    pair: Sequence[Column],
    theirs: Sequence[Subject],
) -> DataOrBase:
    panel = Panel([*columns, *pair], grid.bank)
    doublings = float(np.log2(found.amount / found.previous))
    data = np.array([-1 / doublings, 1 / doublings, 0, 0])
    base = np.array([0, 0, 1, -1])
    ahead = panel.contrast(base)
    contrast = panel.contrast(base - data)
    if contrast.interval.value is None:
        return found
    hours = _mean([s.hours for s in theirs])
    per_hour = None
    if hours and found.data_hours:
        per_hour = _above(panel.contrast(base / hours - data / found.data_hours))
    return replace(
        found,
        tasks=tuple(panel.tasks),
        data_gain=panel.contrast(data).interval,
        base_gain=ahead.interval,
        contrast=contrast.interval,
        base_better=_above(contrast),
        base_better_per_hour=per_hour,
        base_hours=hours,
        p=contrast.p,
    )


def _above(found: Estimate) -> float | None:
    if found.detectable is None:
        # Draws that are all alike know no probability.
        return None
    return float((found.draws > 0).mean() + (found.draws == 0).mean() / 2)


def next_base(
    grid: ScoreGrid, base: str, family: FamilyName, supports: Sequence[str]
) -> str | None:
    """The next larger base; where sizes are not known, the best untrained one if it is better."""
    others = [b for b in grid.bases() if b != base and _scored(grid, b, family, supports)]
    known = {b: f.parameters for b in [base, *others] if (f := grid.facts.get(b)) is not None}
    if all(known.get(b) for b in [base, *others]):
        larger = [b for b in others if (known[b] or 0) > (known[base] or 0)]
        return min(larger, key=lambda b: known[b] or 0, default=None)
    level = {b: _level(grid, b, family, supports) for b in [base, *others]}
    better = [b for b in others if level[b] > level[base]]
    return max(better, key=lambda b: level[b], default=None)


def _scored(grid: ScoreGrid, base: str, family: FamilyName, supports: Sequence[str]) -> bool:
    start = grid.untrained(base)
    return start is not None and bool(grid.table(start.model, family, supports))


def _level(grid: ScoreGrid, base: str, family: FamilyName, supports: Sequence[str]) -> float:
    start = grid.untrained(base)
    table = grid.table(start.model, family, supports) if start else {}
    values = [(s.value, s.better) for s in table.values() if s.value is not None]
    signed = [v if better == "higher" else -v for v, better in values]
    return sum(signed) / len(signed) if signed else 0.0


def local_broad(grid: ScoreGrid) -> Iterator[LocalBroad]:
    """Every base and task of a local line, beside every broad line at the nearest amount.

    Of several local amounts the one that has a broad one nearest is taken, of equally near ones
    the larger.
    """
    for base in grid.bases():
        lines = grid.lines(base)
        for local in lines:
            supports = grid.supports(base, local)
            if not supports:
                continue
            for broad in (c for c in lines if not grid.supports(base, c)):
                yield from _beside(grid, base, local, broad, supports)


def _beside(
    grid: ScoreGrid, base: str, local: str, broad: str, supports: Sequence[str]
) -> Iterator[LocalBroad]:
    mine = grid.scored(base, local, "supported", supports)
    theirs = grid.scored(base, broad, "supported", supports)
    pairs = [(a, b) for a in mine for b in theirs if a and b]
    start = grid.untrained(base)
    if not pairs or start is None:
        return
    a, b = min(pairs, key=lambda p: (abs(np.log2(p[0] / p[1])), -p[0]))
    columns = [grid.column(m, "supported", supports) for m in ([start], theirs[b], mine[a])]
    for name, score in grid.table(start.model, "supported", supports).items():
        used = [only(c, name) for c in columns]
        panel = Panel(used, grid.bank)
        if not panel.tasks:
            continue
        first, second, third = (_average([t[name] for t in c.tables.values()]) for c in used)
        yield LocalBroad(
            base, score.task, score.metric, local, a, broad, b, first, second, third,
            grid.known(score),
            panel.contrast([-1, 1, 0]).interval, panel.contrast([-1, 0, 1]).interval,
            panel.contrast([0, -1, 1]).interval,
        )  # fmt: skip


def _average(scores: Sequence[Score]) -> float | None:
    return _mean([s.value for s in scores])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
