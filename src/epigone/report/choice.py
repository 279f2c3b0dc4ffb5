"""More data or a better base, and local against broad data, as the page shows them."""

from __future__ import annotations

from dataclasses import dataclass

from epigone.findings import DataOrBase, Findings
from epigone.findings.verdict import points, probability
from epigone.report.tracks import reach_of
from epigone.report.verdicts import Bar, choice_bars
from epigone.report.view import ReportView


@dataclass(frozen=True, slots=True)
class Choice:
    """One base and corpus: its two gains as bars, and what they cost in words."""

    found: DataOrBase
    bars: tuple[Bar, ...]
    probability: str
    data_per_hour: str
    base_per_hour: str
    per_hour: str
    data_per_dollar: str


def choices(findings: Findings) -> list[Choice]:
    """A row for each base and corpus that has two amounts or more, on one scale."""
    found = [c for c in findings.data_or_base if c.data_gain.value is not None]
    reach = reach_of(*(c.data_gain for c in found), *(c.base_gain for c in found))
    return [_choice(c, reach) for c in found]


def _choice(c: DataOrBase, reach: float) -> Choice:
    return Choice(
        found=c,
        bars=choice_bars(c, reach),
        probability="" if c.base_better is None else probability(c.base_better),
        data_per_hour=_per(c.data_gain.value, c.data_hours, "an hour"),
        base_per_hour=_per(c.base_gain.value if c.base_gain else None, c.base_hours, "an hour"),
        per_hour="" if c.base_better_per_hour is None else probability(c.base_better_per_hour),
        data_per_dollar=_per(c.data_gain.value, c.data_dollars, "a dollar"),
    )


def in_points(value: float | None) -> str:
    """A difference in points, for where the unit is said once for many."""
    return points(value).removesuffix(" points")


def _per(gain: float | None, cost: float | None, unit: str) -> str:
    return "" if gain is None or not cost else f"{in_points(gain / cost)} {unit}"


def hours_are(view: ReportView) -> str:
    """On what the hours of training were spent."""
    devices = dict.fromkeys(str(t.facts.get("device", "")).partition(":")[0] for t in view.trunks)
    named = [{"cuda": "GPUs"}.get(d, d) for d in devices if d]
    return f"hours of training on {' and '.join(named)}" if named else "hours of training"


def uneven(findings: Findings) -> bool:
    """Whether local and broad students of different amounts had to be compared."""
    return any(r.local_amount != r.broad_amount for r in findings.local_broad)
