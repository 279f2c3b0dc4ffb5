"""Score against amount, one small chart a metric, as Vega-Lite made by altair."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import altair as alt

from epigone.findings import Subject, TeacherValue, ValueRow
from epigone.findings.verdict import tokens
from epigone.report.text import bounds, number, visible
from epigone.schema import Direction

# Every colour keeps 3:1 against both the light and the dark background (see the tests), so a
# chart needs no second version for the other scheme or for paper.
PALETTE = (
    "#3a7bd5",
    "#c9661a",
    "#2f8f63",
    "#b0529c",
    "#7d68d4",
    "#3f8896",
    "#cf4b57",
    "#83802a",
)
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "stroke", "wedge")
_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
_DODGE = 5
_SPREAD = 40
TEACHER_LABELS = {
    "measured": "teacher",
    "reported": "teacher (reported)",
    "ceiling": "identical answers",
}


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart: a base on a corpus."""

    base: str
    corpus: str
    label: str
    colour: str
    shape: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One metric's chart: its specification and the same in words."""

    id: str
    title: str
    meaning: str
    direction: str
    teacher_known: bool
    summary: str
    spec: dict[str, Any]


def all_series(rows: Sequence[ValueRow]) -> list[Series]:
    """The lines that the charts share, in the order of the rows."""
    bases = list(dict.fromkeys(r.subject.base for r in rows if r.subject))
    found: list[tuple[str, str]] = []
    for base in bases:
        own = [r.subject for r in rows if r.subject and r.subject.base == base]
        corpora = dict.fromkeys(s.corpus or "" for s in own if not s.untrained)
        found += [(base, c) for c in corpora or [""]]
    several = len({c for _, c in found}) > 1
    return [
        Series(
            base,
            corpus,
            visible(f"{base} on {corpus}" if several and corpus else base),
            PALETTE[k % len(PALETTE)],
            # The next round of colours comes with other shapes.
            SHAPES[(k + k // len(PALETTE)) % len(SHAPES)],
        )
        for k, (base, corpus) in enumerate(found)
    ]


def chart(
    ident: str,
    title: str,
    meaning: str,
    rows: Sequence[ValueRow],
    series: Sequence[Series],
    teacher: TeacherValue | None,
) -> Chart:
    """The chart of one metric; `rows` are that metric's values of all models."""
    rows = [r for r in rows if r.subject is not None and r.value.value is not None]
    amounts = sorted({r.subject.amount for r in rows if r.subject})
    better = rows[0].better if rows else "higher"
    layers: list[Any] = []
    words: list[str] = []
    if teacher is not None and teacher.value is not None:
        layers += _teacher(teacher.value, TEACHER_LABELS[teacher.source])
        words.append(f"{TEACHER_LABELS[teacher.source]} {number(teacher.value)}")
    else:
        words.append("teacher not known")
    for k, line in enumerate(series):
        points = _points(rows, line)
        if points:
            dodge = (k - (len(series) - 1) / 2) * min(_DODGE, _SPREAD / len(series))
            layers += _line(points, line, dodge, _axes(amounts))
            told = ", ".join(f"{p['when']} {p['shown']}" for p in points)
            words.append(f"{line.label}: {told}")
    # Checking against the schema takes seconds for a page and cannot depend on the data: the
    # tests do it.
    spec = alt.layer(*layers).properties(width="container", height=190).to_dict(validate=False)
    # The page names the mode itself; an address in the file would only look like a request.
    spec.pop("$schema")
    spec["config"] = config()
    known = teacher is not None and teacher.value is not None
    return Chart(ident, title, meaning, _better(better), known, "; ".join(words), spec)


def _points(rows: Sequence[ValueRow], line: Series) -> list[dict[str, Any]]:
    points = []
    for r in rows:
        s = r.subject
        if s is None or s.base != line.base:
            continue
        if not s.untrained and (s.corpus or "") != line.corpus:
            continue
        points.append(
            {
                "amount": s.amount,
                "value": r.value.value,
                "low": r.value.low,
                "high": r.value.high,
                "model": visible(r.model),
                "when": _when(s),
                "trained": not s.untrained,
                "shown": number(r.value.value),
                "interval": bounds(r.value) or "none",
                "items": r.value.n,
            }
        )
    return sorted(points, key=lambda p: (p["amount"], p["trained"], p["model"]))


def _when(subject: Subject) -> str:
    if subject.untrained:
        return "untrained"
    seen = f"{tokens(subject.amount)} tokens" if subject.amount else "none"
    return f"{seen}, then feedback" if subject.feedback else seen


def _line(points: list[dict[str, Any]], line: Series, dodge: float, axes: Any) -> list[Any]:
    x, y = axes
    # After feedback alone, a student has seen as little as its base and is not the same.
    by_amount: dict[tuple[int, bool], list[float]] = defaultdict(list)
    for p in points:
        by_amount[p["amount"], p["trained"]].append(p["value"])
    means = [{"amount": a, "value": fmean(v)} for (a, _), v in sorted(by_amount.items())]
    bars = [p for p in points if p["low"] is not None]
    tip = [
        alt.Tooltip(f"{field}:N", title=title)
        for field, title in (
            ("model", "Model"),
            ("when", "Seen"),
            ("shown", "Score"),
            ("interval", "95% interval"),
            ("items", "Items"),
        )
    ]
    path = alt.Chart(alt.InlineData(means)).mark_line(
        color=line.colour, strokeWidth=2, xOffset=dodge, opacity=0.85
    )
    mark = alt.Chart(alt.InlineData(points)).mark_point(
        color=line.colour, fill=line.colour, shape=line.shape, size=62, opacity=1, xOffset=dodge
    )
    layers = [path.encode(x=x, y=y)]
    if bars:
        rule = alt.Chart(alt.InlineData(bars)).mark_rule(
            color=line.colour, strokeWidth=2, opacity=0.5, xOffset=dodge
        )
        layers.append(rule.encode(x=x, y=alt.Y("low:Q", title=None), y2="high:Q"))
    return [*layers, mark.encode(x=x, y=y, tooltip=tip)]


def _teacher(value: float, label: str) -> list[Any]:
    at = alt.Chart(alt.InlineData([{"value": value, "label": label}]))
    y = alt.Y("value:Q", title=None)
    return [
        at.mark_rule(color="currentColor", strokeDash=[5, 4], opacity=0.6).encode(y=y),
        at.mark_text(
            color="currentColor", align="right", baseline="bottom", dx=-2, dy=-3, opacity=0.8
        ).encode(x=alt.value("width"), y=y, text="label:N"),
    ]


def _axes(amounts: Sequence[int]) -> tuple[Any, Any]:
    smallest = next((a for a in amounts if a > 0), 1)
    x = alt.X(
        "amount:Q",
        title=None,
        # symlog with half the smallest amount keeps "untrained" in view beside any range.
        scale=alt.Scale(type="symlog", constant=smallest / 2, padding=22, nice=False, zero=True),
        axis=alt.Axis(
            values=list(amounts),
            labelExpr="datum.value === 0 ? 'untrained' : format(datum.value, '~s')",
            grid=False,
            labelOverlap="greedy",
        ),
    )
    y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=True, nice=True))
    return x, y


def _better(better: Direction) -> str:
    return "nearer to 0 is better" if better == "zero" else f"{better} is better"


def config() -> dict[str, Any]:
    """How every chart looks."""
    axis = {
        "labelColor": "currentColor",
        "labelFontSize": 11,
        "labelOpacity": 0.8,
        "domainColor": "currentColor",
        "domainOpacity": 0.25,
        "gridColor": "currentColor",
        "gridOpacity": 0.1,
        "tickColor": "currentColor",
        "tickOpacity": 0.25,
        "tickCount": 5,
    }
    return {
        "aria": False,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "axis": axis,
        "background": "transparent",
        "font": _FONT,
        "text": {"fontSize": 11},
        "view": {"stroke": None},
    }
