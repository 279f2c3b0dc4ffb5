"""What a calibration has to show, measured on its study: four controls with known answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from epigone.findings import Findings, GapRow, change
from epigone.schema import Interval, Score

# So much more of the benchmark's items, at the most, may broad data be found to teach.
MARGIN = 0.05
NOTHING = Interval(None, None, None, 0, "not measured")


@dataclass(frozen=True, slots=True)
class Control:
    """One control: what it claims, its number, where that was found, and whether it was shown.

    Where it has to hold in several cells, the number is that of the cell where it holds least.
    """

    claim: str
    rule: str
    number: Interval
    where: str
    passed: bool

    def line(self) -> str:
        """The control in one line."""
        word = "passed" if self.passed else "FAILED"
        return f"{word}  {self.claim}: {_shown(self.number)}, {self.where} ({self.rule})"

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "claim": self.claim, "rule": self.rule, "passed": self.passed, "where": self.where,
            "value": self.number.value, "low": self.number.low, "high": self.number.high,
            "n": self.number.n, "note": self.number.note,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cell:
    """A number of one cell, and what it is of."""

    name: str
    number: Interval


@dataclass(frozen=True, slots=True)
class Measured:
    """What the controls look at: students at the largest amount, and the bases by their size."""

    style: Sequence[Cell]
    broad: Sequence[Cell]
    local: Sequence[Cell]
    ahead: Cell


def controls(found: Measured) -> list[Control]:
    """The four controls.

    A control that has to hold in several cells is shown only if it holds in every one of them, so
    that its error is no larger than that of one (an intersection-union test).
    """
    return [
        _everywhere(
            "style closes with broad data", "share of the gap closed; above 0",
            found.style, lambda i: i.low is not None and i.low > 0, _low,
        ),
        _everywhere(
            "broad data teaches no facts", f"change; not above 0, and below {MARGIN:g}",
            found.broad, _no_rise, _high,
        ),
        _everywhere(
            "local data teaches its task", "change; above 0",
            found.local, lambda i: i.low is not None and i.low > 0, _low,
        ),
        _everywhere(
            "a bigger base knows more", "difference; above 0",
            [found.ahead], lambda i: i.low is not None and i.low > 0, _low,
        ),
    ]  # fmt: skip


def measured(
    findings: Findings,
    scores: Sequence[Score],
    bases: Sequence[str],
    *,
    broad: str,
    local: str,
    knowledge: str,
    rule: str,
) -> Measured:
    """What the controls look at, of a study's findings and scores.

    `bases` are in the order of their size, `broad` and `local` are corpora, `knowledge` and `rule`
    benchmarks as scores name them. A cell without a number is there, as not measured.
    """
    smallest, largest = bases[0], bases[-1]
    untrained = {s.model: s for s in scores if s.task == knowledge and s.primary}
    ahead = NOTHING
    if smallest in untrained and largest in untrained:
        ahead = change(untrained[smallest], untrained[largest])
    return Measured(
        style=[Cell(base, _style_closed(findings, base, broad)) for base in bases],
        broad=[Cell(base, _one(findings.gaps, base, broad, knowledge)) for base in bases],
        local=[Cell(base, _one(findings.gaps, base, local, rule)) for base in bases],
        ahead=Cell(f"{largest} against {smallest}", ahead),
    )


def _style_closed(findings: Findings, base: str, corpus: str) -> Interval:
    """The share of the style gap that closed at the largest amount, over all style metrics."""
    wanted = (base, corpus, "style")
    found = [s for s in findings.summaries if (s.base, s.corpus, s.family) == wanted]
    last = max(found, key=lambda s: s.amount, default=None)
    return last.estimate if last else NOTHING


def _one(rows: Sequence[GapRow], base: str, corpus: str, task: str) -> Interval:
    """The change of one base's student of the largest amount, on one corpus and task."""
    wanted = (base, corpus, task)
    found = [r for r in rows if (r.subject.base, r.subject.corpus, r.task) == wanted]
    last = max(found, key=lambda r: r.subject.amount, default=None)
    return last.change if last else NOTHING


def _everywhere(
    claim: str,
    rule: str,
    cells: Sequence[Cell],
    holds: Callable[[Interval], bool],
    margin: Callable[[Interval], float],
) -> Control:
    least = min(cells, key=lambda c: (holds(c.number), margin(c.number)))
    count = sum(holds(c.number) for c in cells)
    where = least.name if len(cells) == 1 else f"{least.name}, least of {len(cells)} cells"
    return Control(claim, rule, least.number, where, count == len(cells))


def _no_rise(interval: Interval) -> bool:
    # Without the margin, a measurement too coarse to see anything would pass.
    low, high = interval.low, interval.high
    return low is not None and high is not None and low <= 0 and high < MARGIN


def _low(interval: Interval) -> float:
    return float("-inf") if interval.low is None else interval.low


def _high(interval: Interval) -> float:
    return float("-inf") if interval.high is None else -interval.high


def _shown(interval: Interval) -> str:
    if interval.value is None:
        return interval.note or "undefined"
    if interval.low is None or interval.high is None:
        return f"{interval.value:+.3f} without an interval"
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
