"""The imitation plane: the style that a student took over beside the capability that it did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from epigone.findings import Summary
from epigone.findings.verdict import percent, points, tokens
from epigone.report.charts import IN_POINTS, Data, Layer, Series, finished
from epigone.report.text import bounds, visible
from epigone.schema import Interval

# A share beyond this is a gap too small to be a share of: it would squeeze all the others.
_FARTHEST = 2.0
_HEIGHT = 380
_LABELLED = 16


@dataclass(frozen=True, slots=True)
class Plane:
    """Every cell at what it closed: the specification, and the same in words and rows.

    `shares` tells that capability is a share of its gap; otherwise it is a change in points.
    `left_out` are cells of which one of the two is not known, with why.
    """

    id: str
    spec: dict[str, Any]
    shares: bool
    summary: str
    lower_bound: bool
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Cell:
    line: Series
    style: Summary
    capability: Summary
    y: Interval


def plane(summaries: Sequence[Summary], series: Sequence[Series]) -> Plane | None:
    """The plane of a study's summaries; None where no cell has both numbers."""
    pairs = _pairs(summaries, series)
    both = [(line, s, c) for line, s, c in pairs if s.closed.value is not None]
    shares = any(c.closed.value is not None for _, _, c in both)
    cells, left_out = [], []
    for line, style, capability in pairs:
        y = capability.closed if shares else capability.estimate
        if style.closed.value is None or y.value is None:
            why = style.closed.note if style.closed.value is None else y.note
            left_out.append(f"{line.label}, {_seen(style)}: {why or 'not known'}")
        else:
            cells.append(_Cell(line, style, capability, y))
    if not cells:
        return None
    show = percent if shares else points
    data = Data()
    spec = finished(_layers(data, cells, series, shares, show), data, _HEIGHT)
    told = "; ".join(
        f"{c.line.label}, {_seen(c.style)}: style {percent(c.style.closed.value)}, capability "
        f"{show(c.y.value)}"
        for c in cells
    )
    least = any(c.style.lower_bound for c in cells)
    return Plane("imitation-plane", spec, shares, told, least, tuple(left_out))


def _pairs(
    summaries: Sequence[Summary], series: Sequence[Series]
) -> list[tuple[Series, Summary, Summary]]:
    found = []
    for line in series:
        own = [s for s in summaries if (s.base, s.corpus) == (line.base, line.corpus)]
        capability = {(s.amount, s.feedback): s for s in own if s.family == "capability"}
        for s in sorted((s for s in own if s.family == "style"), key=lambda s: s.amount):
            if (s.amount, s.feedback) in capability:
                found.append((line, s, capability[s.amount, s.feedback]))
    return found


def _seen(summary: Summary) -> str:
    seen = f"{tokens(summary.amount)} tokens" if summary.amount else "no tokens"
    return f"{seen} and feedback" if summary.feedback else seen


def _layers(
    data: Data,
    cells: Sequence[_Cell],
    series: Sequence[Series],
    shares: bool,
    show: Callable[[float | None], str],
) -> list[Layer]:
    ends = (0.0, 1.0) if shares else (0.0,)
    # To the left is room for the name of the base.
    wide = _domain([c.style.closed for c in cells], (-0.08, 1.0))
    high = _domain([c.y for c in cells], ends, least=0.0 if shares else 0.05)
    title = "capability gap closed" if shares else "change of capability, in points"

    def axis(field: str = "") -> tuple[Any, Any]:
        # A layer without the title would take it from all of them.
        return (
            _axis(alt.X, f"x{field}", "style gap closed", wide, share=True),
            _axis(alt.Y, f"y{field}", title, high, share=shares),
        )

    layers = [Layer(chart) for chart in _references(data, shares, *axis(), high)]
    for line in series:
        own = [c for c in cells if c.line == line]
        if own:
            rows = [_row(c, wide, high, shares, show) for c in own]
            drawn = _of_line(data, rows, line, axis, labelled=len(cells) <= _LABELLED)
            layers += [Layer(chart, (line,)) for chart in drawn]
    return layers


def _domain(
    found: Sequence[Interval], ends: tuple[float, ...], least: float = 0.0
) -> tuple[float, float]:
    """A scale that holds the values, the ends and most of the intervals."""
    values = [i.value for i in found if i.value is not None]
    low, high = min(*ends, *values, -least), max(*ends, *values, least)
    room = max(high - low, 2 * least)
    for i in found:
        if i.low is not None and i.high is not None:
            low, high = (
                min(low, max(i.low, low - room / 2)),
                max(high, min(i.high, high + room / 2)),
            )
    low, high = max(low, -_FARTHEST), min(high, 1 + _FARTHEST)
    return low - 0.06 * (high - low), high + 0.06 * (high - low)


def _axis(kind: Any, name: str, title: str, domain: tuple[float, float], share: bool) -> Any:
    axis = alt.Axis(
        labelExpr="format(datum.value, '.0%')" if share else IN_POINTS,
        titleColor="currentColor",
        titleFontWeight="normal",
        titleOpacity=0.8,
        tickCount=6,
    )
    scale = alt.Scale(domain=list(domain), nice=False, zero=False)
    return kind(f"{name}:Q", title=title, scale=scale, axis=axis)


def _row(
    cell: _Cell,
    wide: tuple[float, float],
    high: tuple[float, float],
    shares: bool,
    show: Callable[[float | None], str],
) -> dict[str, Any]:
    style, y = cell.style.closed, cell.y
    return {
        "x": _inside(style.value, wide),
        "y": _inside(y.value, high),
        **_ends("x", style, wide),
        **_ends("y", y, high),
        "line": cell.line.label,
        "amount": cell.style.amount,
        "label": tokens(cell.style.amount) if cell.style.amount else "feedback",
        "seen": _seen(cell.style),
        "style": f"{percent(style.value)} [{bounds(style, percent) or 'no interval'}]",
        "capability": f"{show(y.value)} [{bounds(y, show) or 'no interval'}]",
        "change": f"{points(cell.capability.estimate.value)}"
        f" [{bounds(cell.capability.estimate, points) or 'no interval'}]",
        "tasks": visible(", ".join(cell.capability.parts)),
    }


def _ends(name: str, interval: Interval, domain: tuple[float, float]) -> dict[str, Any]:
    low, high = interval.low, interval.high
    if low is None and high is None:
        return {}
    # A share without a bound on one side goes on to the edge.
    return {
        f"{name}_low": domain[0] if low is None else _inside(low, domain),
        f"{name}_high": domain[1] if high is None else _inside(high, domain),
    }


def _inside(value: float | None, domain: tuple[float, float]) -> float:
    return min(max(value or 0.0, domain[0]), domain[1])


def _of_line(
    data: Data,
    rows: list[dict[str, Any]],
    line: Series,
    axis: Callable[..., tuple[Any, Any]],
    labelled: bool,
) -> list[Any]:
    x, y = axis()
    low_x, low_y = axis("_low")
    trained = [r for r in rows if r["amount"]]
    path = [{"x": 0.0, "y": 0.0, "amount": 0}, *({k: r[k] for k in ("x", "y", "amount")}
                                                  for r in trained)]  # fmt: skip
    layers = [
        data(path)
        .mark_line(color=line.colour, strokeWidth=2, opacity=0.7, clip=True)
        .encode(x=x, y=y, order=alt.Order("amount:Q"))
    ]
    for name in ("x", "y"):
        bars = [r for r in rows if f"{name}_low" in r]
        if bars:
            rule = data(bars).mark_rule(color=line.colour, strokeWidth=2, opacity=0.4, clip=True)
            flat = name == "x"
            ends = {"x2": alt.X2("x_high:Q")} if flat else {"y2": alt.Y2("y_high:Q")}
            layers.append(rule.encode(x=low_x if flat else x, y=y if flat else low_y, **ends))
    named = rows if labelled else rows[-1:]
    layers.append(
        data(named)
        .mark_text(
            color="currentColor", align="left", baseline="bottom", dx=7, dy=-5, opacity=0.85,
            clip=True,
        )
        .encode(x=x, y=y, text=alt.Text("label:N"))
    )  # fmt: skip
    tip = [
        alt.Tooltip(f"{field}:N", title=title)
        for field, title in (
            ("line", "Student"),
            ("seen", "Seen"),
            ("style", "Style gap closed [95%]"),
            ("capability", "Capability [95%]"),
            ("change", "Its change [95%]"),
            ("tasks", "Tasks"),
        )
    ]
    mark = data(rows).mark_point(
        color=line.colour, fill=line.colour, shape=line.shape, opacity=1, clip=True
    )
    size = alt.Size(
        "amount:Q",
        scale=alt.Scale(type="sqrt", range=[45, 190], zero=False),
        legend=None,
    )
    layers.append(mark.encode(x=x, y=y, size=size, tooltip=tip))
    return layers


def _references(data: Data, shares: bool, x: Any, y: Any, high: tuple[float, float]) -> list[Any]:
    def rule(name: str, value: float) -> Any:
        at = data([{name: value}]).mark_rule(
            color="currentColor",
            strokeDash=[5, 4] if value else [1, 0],
            opacity=0.55 if value else 0.3,
            clip=True,
        )
        return at.encode(**{name: (x if name == "x" else y)})

    layers = [rule("x", 0.0), rule("x", 1.0), rule("y", 0.0)]
    names = [{"x": 0.0, "y": 0.0, "label": "base"}]
    if shares:
        layers.append(rule("y", 1.0))
        names.append({"x": 1.0, "y": 1.0, "label": "teacher"})
    cross = data(names).mark_point(
        color="currentColor", shape="cross", fill="currentColor", size=60, opacity=0.8, clip=True
    )
    if not shares:
        names = [*names, {"x": 1.0, "y": high[1], "label": "teacher's style"}]
    layers.append(cross.encode(x=x, y=y))
    layers += [_name(data, row, x, y) for row in names]
    return layers


def _name(data: Data, row: dict[str, Any], x: Any, y: Any) -> Any:
    name = data([row]).mark_text(
        color="currentColor",
        align="right",
        baseline="top",
        dx=-7,
        dy=7,
        opacity=0.8,
        clip=True,
    )
    return name.encode(x=x, y=y, text=alt.Text("label:N"))
