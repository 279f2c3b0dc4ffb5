"""Score against amount, one small chart a metric, as Vega-Lite made by altair."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import altair as alt

from epigone.findings import Subject, Summary, TeacherValue, ValueRow
from epigone.findings.verdict import percent, points, tokens
from epigone.report.text import bounds, number, visible
from epigone.schema import Direction, Interval

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
# The parameter that holds the numbers of the lines that are switched off.
HIDDEN = "hidden"
_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
_DODGE = 5
# A mouse moves the axes, and zooms with the control key held; a finger and a plain wheel scroll.
_MOVED = {
    "type": "interval",
    "translate": "[pointerdown[event.pointerType === 'mouse'], window:pointerup]"
    " > window:pointermove!",
    "zoom": "wheel![event.ctrlKey || event.metaKey]",
}
_FROM_ZERO = alt.Scale(zero=True, nice=True, padding=14)
_SPREAD = 40
IN_POINTS = "datum.value === 0 ? '0' : format(100 * datum.value, '+~f')"
TEACHER_LABELS = {
    "measured": "teacher",
    "reported": "teacher (reported)",
    "ceiling": "identical answers",
}


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart: a base on a corpus, and its number on the page."""

    base: str
    corpus: str
    label: str
    colour: str
    shape: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """One number of a line at an amount; an untrained base has the amount 0."""

    subject: Subject
    model: str
    interval: Interval


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a chart, and the lines of which at least one must be on for it to be seen."""

    chart: Any
    lines: tuple[Series, ...] = ()


class Data:
    """The rows of a chart's layers by name: altair copies what is inline at every call."""

    def __init__(self) -> None:
        """None yet."""
        self.named: dict[str, list[dict[str, Any]]] = {}

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        """A chart of the rows."""
        # Layers that share rows share their name.
        name = next((n for n, r in self.named.items() if r is rows), f"rows{len(self.named)}")
        self.named[name] = rows
        return alt.Chart(alt.NamedData(name=name))


@dataclass(frozen=True, slots=True)
class Chart:
    """One metric's chart: its specification and the same in words.

    `notes` are sentences that stand under it, one a line.
    """

    id: str
    title: str
    meaning: str
    direction: str
    teacher_known: bool
    summary: str
    spec: dict[str, Any]
    notes: tuple[str, ...] = ()


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
            k,
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
    notes: Iterable[str] = (),
) -> Chart:
    """The chart of one metric; `rows` are that metric's values of all models."""
    marks = [
        Mark(r.subject, r.model, r.value)
        for r in rows
        if r.subject is not None and r.value.value is not None
    ]
    references, words = [], ["teacher not known"]
    known = teacher is not None and teacher.value is not None
    if teacher is not None and teacher.value is not None:
        references = [(teacher.value, TEACHER_LABELS[teacher.source])]
        words = [f"{TEACHER_LABELS[teacher.source]} {number(teacher.value)}"]
    spec, told = drawn(marks, series, references, number)
    direction = better_in_words(rows[0].better if rows else "higher")
    return Chart(
        ident, title, meaning, direction, known, "; ".join([*words, *told]), spec, tuple(notes)
    )


def mean_chart(
    ident: str,
    title: str,
    meaning: str,
    summaries: Sequence[Summary],
    series: Sequence[Series],
    references: Sequence[tuple[float, str]],
    shares: bool,
    notes: Iterable[str] = (),
) -> Chart:
    """The chart of one family's summaries; every line starts at its untrained base, at 0.

    They are `shares` of a gap, or changes in points.
    """
    show = percent if shares else points
    form = "format(datum.value, '.0%')" if shares else IN_POINTS
    none = Interval(0.0, None, None, 0)
    measured = {(s.base, s.corpus) for s in summaries}
    series = [s for s in series if (s.base, s.corpus) in measured]
    marks = [
        Mark(Subject(base, base), base, none) for base in dict.fromkeys(s.base for s in series)
    ]
    for s in summaries:
        if s.estimate.value is not None:
            at = Subject("", s.base, s.corpus, s.amount, feedback=s.feedback)
            seeds = f", mean of {len(s.seeds)} seeds" if len(s.seeds) > 1 else ""
            marks.append(Mark(at, f"{s.base} on {s.corpus}{seeds}", s.estimate))
    spec, told = drawn(marks, series, references, show, form)
    return Chart(ident, title, meaning, "", True, "; ".join(told), spec, tuple(notes))


def drawn(
    marks: Sequence[Mark],
    series: Sequence[Series],
    references: Sequence[tuple[float, str]],
    show: Callable[[float | None], str],
    form: str = "",
) -> tuple[dict[str, Any], list[str]]:
    """The specification of lines against amount, and each line in words.

    `references` are values with names at which a dashed line stands. `form` labels the vertical
    axis of differences; without one, a dotted line stands at each untrained base.
    """
    data = Data()
    axes = _axes(sorted({m.subject.amount for m in marks}), form)
    layers = [Layer(layer) for value, label in references for layer in _level(data, value, label)]
    words = []
    for k, line in enumerate(series):
        points = _points(marks, line, show)
        if points:
            dodge = (k - (len(series) - 1) / 2) * min(_DODGE, _SPREAD / len(series))
            layers += _line(data, points, line, dodge, axes, of_base=not form)
            told = ", ".join(f"{p['when']} {p['shown']}" for p in points)
            words.append(f"{line.label}: {told}")
    return finished(layers, data, 190), words


def finished(layers: Sequence[Layer], data: Data, height: int) -> dict[str, Any]:
    """The specification of layers as the page takes it: lines can be hidden and the view moved.

    The axes are those of the last layer.
    """
    # Checking against the schema takes seconds for a page and cannot depend on the data: the
    # tests do it. So does altair's own way of putting layers together, which copies them thrice.
    inner = {"top_level": False}
    spec: dict[str, Any] = {
        "layer": [layer.chart.to_dict(validate=False, context=dict(inner)) for layer in layers],
        "width": "container",
        "height": height,
    }
    for layer, its in zip(layers, spec["layer"], strict=True):
        if layer.lines:
            on = (f"indexof({HIDDEN}, {line.index}) < 0" for line in layer.lines)
            its["transform"] = [{"filter": " || ".join(on)}]
    spec["layer"][-1]["params"] = [{"name": "view", "select": _MOVED, "bind": "scales"}]
    spec["params"] = [{"name": HIDDEN, "value": []}]
    spec["datasets"] = data.named
    spec["config"] = config()
    return spec


def _points(
    marks: Sequence[Mark], line: Series, show: Callable[[float | None], str]
) -> list[dict[str, Any]]:
    points = []
    for m in marks:
        s = m.subject
        if s.base != line.base:
            continue
        if not s.untrained and (s.corpus or "") != line.corpus:
            continue
        points.append(
            {
                "amount": s.amount,
                "value": m.interval.value,
                "low": m.interval.low,
                "high": m.interval.high,
                "model": visible(m.model),
                "when": _when(s),
                "trained": not s.untrained,
                "shown": show(m.interval.value),
                "interval": bounds(m.interval, show) or "none",
                "items": m.interval.n,
            }
        )
    return sorted(points, key=lambda p: (p["amount"], p["trained"], p["model"]))


def _when(subject: Subject) -> str:
    if subject.untrained:
        return "untrained"
    seen = f"{tokens(subject.amount)} tokens" if subject.amount else "none"
    return f"{seen}, then feedback" if subject.feedback else seen


def _line(
    data: Data,
    points: list[dict[str, Any]],
    line: Series,
    dodge: float,
    axes: Any,
    of_base: bool,
) -> list[Layer]:
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
    layers = []
    start = [{"value": p["value"]} for p in points if not p["trained"]]
    if of_base and start:
        level = data(start).mark_rule(color=line.colour, strokeDash=[1, 4], opacity=0.6, clip=True)
        layers.append(level.encode(y=alt.Y("value:Q", title=None)))
    path = data(means).mark_line(
        color=line.colour, strokeWidth=2, xOffset=dodge, opacity=0.85, clip=True
    )
    layers.append(path.encode(x=x, y=y))
    if bars:
        rule = data(points if len(bars) == len(points) else bars).mark_rule(
            color=line.colour, strokeWidth=2, opacity=0.5, xOffset=dodge, clip=True
        )
        layers.append(rule.encode(x=x, y=alt.Y("low:Q", title=None), y2=alt.Y2("high:Q")))
    mark = data(points).mark_point(
        color=line.colour,
        fill=line.colour,
        shape=line.shape,
        size=62,
        opacity=1,
        xOffset=dodge,
        clip=True,
    )
    layers.append(mark.encode(x=x, y=y, tooltip=tip))
    return [Layer(layer, (line,)) for layer in layers]


def _level(data: Data, value: float, label: str) -> list[Any]:
    at = data([{"value": value, "label": label}])
    y = alt.Y("value:Q", title=None)
    rule = at.mark_rule(
        color="currentColor", strokeDash=[5, 4] if label else [1, 0], opacity=0.6, clip=True
    )
    if not label:
        return [rule.encode(y=y)]
    text = at.mark_text(
        color="currentColor", align="right", baseline="bottom", dx=-2, dy=-3, opacity=0.8, clip=True
    )
    return [rule.encode(y=y), text.encode(x=alt.value("width"), y=y, text=alt.Text("label:N"))]


def _axes(amounts: Sequence[int], form: str = "") -> tuple[Any, Any]:
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
    axis = alt.Axis(labelExpr=form) if form else alt.Axis()
    return x, alt.Y("value:Q", title=None, scale=_FROM_ZERO, axis=axis)


def better_in_words(better: Direction) -> str:
    """Which way a metric is good."""
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
