"""Loss against supervised tokens seen, one chart a base and corpus, as Vega-Lite made by altair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from epigone.findings.verdict import tokens
from epigone.report.charts import PALETTE, config
from epigone.report.text import number, visible
from epigone.report.training import most_points, statistics, thinned
from epigone.report.view import Curve, Point, Trunk

# A range beyond this is told by a logarithm.
_DECADES = 100
_ROWS = 12
_DASH = [6, 3]


@dataclass(frozen=True, slots=True)
class Line:
    """One trunk among those of a chart: its colour, its facts in words, its curve in few rows."""

    label: str
    colour: str
    trunk: Trunk
    told: dict[str, str]
    rows: list[Point]


@dataclass(frozen=True, slots=True)
class CurveChart:
    """The training of one base on one corpus: its specification and the same in words."""

    id: str
    title: str
    note: str
    summary: str
    lines: tuple[Line, ...]
    decays: bool
    spec: dict[str, Any]


def curve_charts(trunks: Sequence[Trunk]) -> list[CurveChart]:
    """A chart for each base and corpus (with its variant), in the order of the trunks."""
    groups: dict[tuple[str, str], list[Trunk]] = {}
    for trunk in trunks:
        groups.setdefault((trunk.base, trunk.line), []).append(trunk)
    most = most_points(trunks)
    return [
        _chart(f"training-{k}", visible(f"{base} on {line}"), own, most)
        for k, ((base, line), own) in enumerate(groups.items())
    ]


def _chart(ident: str, title: str, trunks: Sequence[Trunk], most: int) -> CurveChart:
    lines = tuple(_line(t, trunks, PALETTE[k % len(PALETTE)]) for k, t in enumerate(trunks))
    ends = [c.points[at].seen for t in trunks for c in t.curves for at in (0, -1)]
    x, y = _axes(min(ends), max(ends))
    layers = _students(trunks, x)
    longest = 1
    for line in lines:
        for curve in line.trunk.curves:
            points = thinned(curve.points, most)
            longest = max(longest, points[0].last - points[0].first + 1)
            start = _fork(line.trunk, curve)
            layers += _layers(points, start, line, curve, x, y)
    spec: dict[str, Any] = (
        alt.layer(*layers).properties(width="container", height=220).to_dict(validate=False)
    )
    spec.pop("$schema")
    spec["config"] = config()
    note = "a point a step" if longest == 1 else f"a point is the mean of about {longest} steps"
    decays = any(c.branch is not None for t in trunks for c in t.curves)
    return CurveChart(ident, title, note, _summary(lines), lines, decays, spec)


def _line(trunk: Trunk, among: Sequence[Trunk], colour: str) -> Line:
    label = f"seed {trunk.seed}"
    if len({t.seed for t in among}) < len(among):
        # A schedule that knows its end has a run for each amount.
        label += f", {tokens(max(trunk.taken))} tokens"
    told = statistics(trunk.facts, trunk.seconds, trunk.peak_bytes)
    rows = [p for c in trunk.curves if c.branch is None for p in thinned(c.points, _ROWS)]
    if not rows:
        rows = thinned(trunk.curves[-1].points, _ROWS)
    return Line(label, colour, trunk, told, rows)


def _summary(lines: Sequence[Line]) -> str:
    words = []
    for line in lines:
        points = line.rows
        told = ", ".join(
            f"{number(p.loss)} at {tokens(p.seen)}"
            for p in dict.fromkeys((points[0], points[len(points) // 2], points[-1]))
        )
        words.append(f"{line.label}: loss {told} supervised tokens")
    return "; ".join(words)


def _axes(smallest: int, largest: int) -> tuple[Any, Any]:
    wide = largest >= _DECADES * smallest
    scale = alt.Scale(type="log", nice=False) if wide else alt.Scale(nice=False, zero=True)
    x = alt.X(
        "seen:Q",
        title="supervised tokens seen",
        scale=scale,
        axis=alt.Axis(
            labelExpr="format(datum.value, '~s')",
            grid=False,
            tickCount=4,
            labelOverlap="greedy",
            titleColor="currentColor",
            titleFontWeight="normal",
            titleOpacity=0.8,
        ),
    )
    return x, alt.Y("loss:Q", title=None, scale=alt.Scale(zero=False, nice=True))


def _fork(trunk: Trunk, curve: Curve) -> list[Point]:
    """The trunk's point from which a decay leaves."""
    if curve.branch is None:
        return []
    every = [p for c in trunk.curves if c.branch is None for p in c.points]
    return [p for p in every if p.last < curve.points[0].first][-1:]


def _layers(
    points: Sequence[Point], start: Sequence[Point], line: Line, curve: Curve, x: Any, y: Any
) -> list[Any]:
    rows = [_row(p, line, curve) for p in points]
    data = alt.Chart(alt.InlineData(rows))
    path = [{"seen": p.seen, "loss": p.loss} for p in (*start, *points)]
    drawn = alt.Chart(alt.InlineData(path)).mark_line(
        color=line.colour, strokeWidth=1.8, strokeDash=[1, 0] if curve.branch is None else _DASH
    )
    fields = [
        ("run", "Run"),
        ("steps", "Step"),
        ("tokens", "Supervised tokens seen"),
        ("shown", "Loss"),
        ("rate", "Learning rate"),
        ("norm", "Gradient norm"),
    ]
    if points[0].kl is not None:
        fields.append(("kl", "KL from the base"))
    tip = [alt.Tooltip(f"{field}:N", title=title) for field, title in fields]
    # What a mouse finds without aim is not seen, but for a step that makes no line.
    seen = 1 if len(path) == 1 else 0
    target = data.mark_circle(color=line.colour, size=60, opacity=seen)
    return [drawn.encode(x=x, y=y), target.encode(x=x, y=y, tooltip=tip)]


def _row(p: Point, line: Line, curve: Curve) -> dict[str, Any]:
    decay = "" if curve.branch is None else f", decay to {tokens(curve.branch)}"
    row = {
        "seen": p.seen,
        "loss": p.loss,
        "run": f"{line.label}{decay}",
        "steps": str(p.first + 1) if p.first == p.last else f"{p.first + 1} to {p.last + 1}",
        "tokens": f"{p.seen:,}",
        "shown": number(p.loss),
        "rate": f"{p.lr:.3g}",
        "norm": number(p.gradient_norm),
    }
    return row if p.kl is None else {**row, "kl": f"{p.kl:.4f}"}


def _students(trunks: Sequence[Trunk], x: Any) -> list[Any]:
    found = {(seen, amount) for t in trunks for amount, seen in t.taken.items()}
    if not found:
        return []
    # Beside each other, two names may need two rows.
    rows = [
        {"seen": seen, "student": tokens(amount), "up": k % 2}
        for k, (seen, amount) in enumerate(sorted(found))
    ]
    rule = alt.Chart(alt.InlineData(rows)).mark_rule(
        color="currentColor", strokeDash=[2, 3], opacity=0.45
    )
    layers = [rule.encode(x=x)]
    for up in (0, 1):
        own = [r for r in rows if r["up"] == up]
        if own:
            name = alt.Chart(alt.InlineData(own)).mark_text(
                color="currentColor", align="right", baseline="top", dx=-4, opacity=0.8
            )
            layers.append(name.encode(x=x, y=alt.value(2 + 14 * up), text="student:N"))
    return layers
