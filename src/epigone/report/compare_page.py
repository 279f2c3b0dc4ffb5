"""Two studies side by side on one self-contained page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from markupsafe import Markup

from epigone.files import write_text
from epigone.findings import FamilyBeside, Pair, ScoreBeside, Subject
from epigone.findings.gaps import tells
from epigone.findings.verdict import percent, points, tokens
from epigone.report import text
from epigone.report.compared import Compared, Run
from epigone.report.page import environment, metric_text, policy, read
from epigone.report.tracks import change_track, reach_of
from epigone.report.verdicts import Bar
from epigone.schema import Interval


@dataclass(frozen=True, slots=True)
class FamilyRow:
    """One family of one pair as the page shows it: each study's own number, and the difference."""

    row: FamilyBeside
    first: str
    second: str
    bar: Bar | None


def render(found: Compared, out: Path) -> Path:
    """Write the page to `out`; its path is returned. Equal comparisons give equal bytes."""
    style = read("static", "style.css")
    comparison = found.comparison
    reach = reach_of(*(f.difference for f in comparison.families))
    html = (
        environment()
        .get_template("compare.html.j2")
        .render(
            runs=(found.first, found.second),
            titles=titles(found.first, found.second),
            settings=found.settings,
            comparison=comparison,
            families=[(cell_name(p), [_family(f, reach) for f in rows])
                      for p, rows in _by_pair(comparison.families)],
            scores=[(pair_name(p), [*rows], _quiet(p, rows))
                    for p, rows in _by_pair(comparison.scores)],
            metric=lambda r: metric_text(found.first.view, r.task, r.metric).title,
            subject=subject_name,
            tells=tells,
            policy=policy((), style),
            style=Markup(style),
        )
    )  # fmt: skip
    write_text(out, html)
    return out


def titles(first: Run, second: Run) -> tuple[str, str]:
    """What the two are called: their names, with their places where those are the same."""
    if first.name != second.name:
        return first.name, second.name
    return f"{first.name} ({first.place})", f"{second.name} ({second.place})"


def subject_name(s: Subject, amount: str = "") -> str:
    """A base, or one student, in words; `amount` is said in place of its own."""
    if s.untrained:
        return f"{s.base}, untrained"
    return f"{_line(s, amount)}, seed {s.seed}"


def pair_name(pair: Pair | None) -> str:
    """A pair in words, with both amounts where they are apart."""
    return "teacher" if pair is None else subject_name(pair.first, _amounts(pair))


def cell_name(pair: Pair | None) -> str:
    """A pair whose seeds were averaged."""
    return "" if pair is None else _line(pair.first, _amounts(pair))


def _line(s: Subject, amount: str) -> str:
    seen = amount or _amount(s)
    return f"{s.base} on {s.corpus}, {seen}" if s.corpus else f"{s.base}, {seen}"


def _amount(s: Subject) -> str:
    seen = f"{tokens(s.amount)} tokens" if s.amount else ""
    return " and ".join(filter(None, (seen, "feedback" if s.feedback else "")))


def _amounts(pair: Pair) -> str:
    if pair.first.amount == pair.second.amount:
        return ""
    return f"{_amount(pair.first)} against {_amount(pair.second)}"


_Row = TypeVar("_Row", FamilyBeside, ScoreBeside)


def _by_pair(rows: Sequence[_Row]) -> Iterator[tuple[Pair | None, list[_Row]]]:
    for pair, rows_of_pair in groupby(rows, key=lambda r: r.pair):
        yield pair, list(rows_of_pair)


def _quiet(pair: Pair | None, rows: Sequence[ScoreBeside]) -> bool:
    """Whether nothing differs, as it should be of what was not trained."""
    trained = pair is not None and not pair.first.untrained
    return not trained and not any(r.difference.value for r in rows)


def _family(row: FamilyBeside, reach: float) -> FamilyRow:
    show = percent if row.family == "style" else points
    first, second = (
        "" if s is None else estimate(s.estimate, show) for s in (row.first, row.second)
    )
    bar = None
    if row.difference.value is not None:
        bounds = text.bounds(row.difference, points).replace(" points to ", " to ")
        label = f"Difference, {row.family}"
        track = change_track(row.difference, reach)
        bar = Bar(label, points(row.difference.value), bounds, track)
    return FamilyRow(row, first, second, bar)


def estimate(interval: Interval, show: Callable[[float | None], str] = text.number) -> str:
    """A number with its interval in brackets."""
    if interval.value is None:
        return "not known"
    if interval.low is None or interval.high is None:
        return show(interval.value)
    low = show(interval.low).removesuffix(" points")
    high = show(interval.high).removesuffix(" points")
    return f"{show(interval.value)} [{low}, {high}]"
