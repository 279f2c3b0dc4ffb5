"""What the page shows of each base's verdict: bars, sentences, and every corpus in a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from epigone.findings import DataOrBase, Findings, Summary, Verdict
from epigone.findings.model import FamilyName
from epigone.findings.verdict import latest, percent, points, tokens
from epigone.report import text
from epigone.report.tracks import Track, change_track, reach_of, style_track
from epigone.schema import Interval

_NOTHING = Interval(None, None, None, 0)
FAMILIES = {
    "style": "Style",
    "capability": "Capability, all tasks",
    "supported": "Capability, its own tasks",
    "unsupported": "Capability, other tasks",
    "safety": "Safety",
    "preference": "Preference",
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One labelled interval bar."""

    label: str
    value: str
    bounds: str
    track: Track


@dataclass(frozen=True, slots=True)
class Card:
    """The verdict on one base: its bars in three groups, and its corpora in a table.

    `detectable` are the smallest changes of capability that the study can see, a text a bar.
    """

    verdict: Verdict
    style: Bar
    capability: tuple[Bar, ...]
    detectable: tuple[str, ...]
    scaling: tuple[Bar, ...]
    rows: tuple[Summary, ...]


def cards(findings: Findings) -> list[Card]:
    """A card for each base."""
    return [_card(findings, v) for v in findings.verdicts]


def _card(findings: Findings, verdict: Verdict) -> Card:
    own = [s for s in findings.summaries if s.base == verdict.base]
    style = latest(own, verdict.broad or verdict.local, "style")
    spoken: tuple[tuple[str, FamilyName], ...] = (
        (verdict.broad, "unsupported"),
        (verdict.local, "supported"),
    )
    halves = [s for c, family in spoken if c and (s := latest(own, c, family)) is not None]
    moved = style.estimate if style else _NOTHING
    sizes = [s.detectable for s in halves]
    reach = max([reach_of(*(s.estimate for s in halves)), *(d or 0.0 for d in sizes)])
    return Card(
        verdict=verdict,
        style=Bar(
            _style_label(style),
            percent(moved.value),
            text.bounds(moved, percent),
            style_track(moved, end_of(style)),
        ),
        capability=tuple(change_bar(_half(s, halves), s.estimate, reach) for s in halves)
        or (change_bar("Capability change", _NOTHING, reach),),
        detectable=tuple("" if d is None else points(d, signed=False) for d in sizes) or ("",),
        scaling=_scaling(next((c for c in findings.data_or_base if _speaks(c, verdict)), None)),
        rows=tuple(s for s in own if not _twice(s, own)),
    )


def _twice(summary: Summary, among: Sequence[Summary]) -> bool:
    """Whether it is of all tasks and the same as that of the tasks without examples."""
    return summary.family == "capability" and any(
        (s.corpus, s.amount, s.family, s.parts)
        == (summary.corpus, summary.amount, "unsupported", summary.parts)
        for s in among
    )


def _speaks(choice: DataOrBase, verdict: Verdict) -> bool:
    return (choice.base, choice.corpus) == (verdict.base, verdict.broad or verdict.local)


def _style_label(summary: Summary | None) -> str:
    """Which metrics the share is a mean of: those whose gap can be told."""
    named = summary.parts if summary else ()
    return f"Style gap closed: {', '.join(named)}" if named else "Style gap closed"


def _half(summary: Summary, halves: Sequence[Summary]) -> str:
    where = {"supported": "its own tasks", "unsupported": "other tasks"}[summary.family]
    if len(halves) < 2 and summary.family == "unsupported":
        where = "all tasks"
    tasks = ", ".join(dict.fromkeys(p.rpartition("/")[0] or p for p in summary.parts))
    return f"Capability on {where}{f' ({tasks})' if tasks else ''} after {summary.corpus}"


def end_of(summary: Summary | None) -> str:
    """What stands at a share of 1."""
    return "identical answers" if summary and summary.lower_bound else "teacher"


def _scaling(found: DataOrBase | None) -> tuple[Bar, ...]:
    return choice_bars(found, reach_of(found.data_gain, found.base_gain)) if found else ()


def choice_bars(found: DataOrBase, reach: float) -> tuple[Bar, ...]:
    """The gain of twice the data, and that of the next base where there is one."""
    bars = [
        change_bar(
            f"Twice the data ({tokens(found.previous)} to {tokens(found.amount)} tokens)",
            found.data_gain,
            reach,
        )
    ]
    if found.base_gain is not None:
        how = f"at {tokens(found.amount)} tokens" if found.trained else "both untrained"
        bars.append(change_bar(f"{found.other} instead, {how}", found.base_gain, reach))
    return tuple(bars)


def change_bar(label: str, interval: Interval, reach: float) -> Bar:
    """A change in points on a symmetric scale."""
    between = text.bounds(interval, points).replace(" points to ", " to ")
    return Bar(label, points(interval.value), between, change_track(interval, reach))
