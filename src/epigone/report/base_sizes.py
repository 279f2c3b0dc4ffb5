"""Score against the size of the base, as Vega-Lite made by altair."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import altair as alt

from epigone.findings import Base, Findings, SizeTrend, Subject
from epigone.findings.grid import counts
from epigone.findings.verdict import tokens
from epigone.report.charts import PALETTE, SHAPES, Chart, Data, Layer, Series, finished
from epigone.report.slopes import size_words
from epigone.report.text import bounds, number, visible
from epigone.report.view import MetricText
from epigone.schema import Interval, Score

_INK = "currentColor"
# These lines are other ones than those of the charts by amount, which count from 0.
_FIRST = 1000
UNTRAINED = "untrained"
MEAN = MetricText("Mean over the tasks", "The mean of the tasks' scores; tasks weigh the same.")


def size_series(sizes: Sequence[SizeTrend]) -> list[Series]:
    """The lines of these charts: untrained bases, and each corpus at its largest common amount."""
    found = dict.fromkeys((s.corpus, s.amount) for s in sizes)
    made = []
    for k, (corpus, amount) in enumerate(found):
        label = f"{visible(corpus)}, {tokens(amount)} tokens" if corpus else UNTRAINED
        # Bases have the first colours on the other charts.
        colour = PALETTE[-k % len(PALETTE)] if corpus else _INK
        made.append(Series("", corpus, label, colour, SHAPES[k % len(SHAPES)], _FIRST + k))
    return made


def size_charts(
    findings: Findings,
    scores: Sequence[Score],
    subjects: Sequence[Subject],
    metric: Callable[[str, str], MetricText],
) -> list[Chart]:
    """A chart for each metric of which there is a slope: by weights first, capability first."""
    groups: dict[tuple[str, str, str, str], list[SizeTrend]] = defaultdict(list)
    for s in findings.sizes:
        # The loss is asked of what a base knows.
        if s.by == "parameters" or s.family == "capability":
            groups[s.by, s.family, s.task, s.metric].append(s)
    lines = {line.corpus: line for line in size_series(findings.sizes)}
    facts = {b.name: b for b in findings.bases}
    made = []
    for k, key in enumerate(sorted(groups, key=_place)):
        by, _, task, name = key
        mean = _is_mean(key)
        text = MEAN if mean else metric(task, name)
        points = {}
        for trend in groups[key]:
            values = (
                _means(scores, subjects, trend)
                if mean
                else {
                    r.model: r.value for r in findings.values if (r.task, r.metric) == (task, name)
                }
            )
            points[lines[trend.corpus]] = _points(trend, facts, subjects, values)
        notes = tuple(f"{lines[t.corpus].label}: {size_words(t)}" for t in groups[key])
        spec, told = _drawn(points, by)
        direction = "by weights" if by == "parameters" else "by loss, in bits a byte"
        made.append(
            Chart(f"size-{k}", text.title, text.meaning, direction, True, told, spec, notes)
        )
    return made


def _place(key: tuple[str, str, str, str]) -> tuple[bool, bool, bool]:
    by, family, _, _ = key
    return by != "parameters", family != "capability", not _is_mean(key)


def _is_mean(key: tuple[str, str, str, str]) -> bool:
    _, family, task, name = key
    return not task and name == family


def _means(
    scores: Sequence[Score], subjects: Sequence[Subject], trend: SizeTrend
) -> Mapping[str, Interval]:
    """Each model's mean over the tasks that all the models of a trend have; without interval."""
    models = {s.model for s in _models(trend, subjects)}
    tables: dict[str, dict[tuple[str, str], float]] = {m: {} for m in models}
    for s in scores:
        if s.model in models and s.value is not None and counts(s, "capability"):
            tables[s.model][s.task, s.metric] = s.value if s.better == "higher" else -s.value
    shared = set.intersection(*(set(t) for t in tables.values())) if tables else set()
    return {
        m: Interval(fmean(t[k] for k in sorted(shared)), None, None, 0)
        for m, t in tables.items()
        if shared
    }


def _models(trend: SizeTrend, subjects: Sequence[Subject]) -> list[Subject]:
    return [
        s
        for s in subjects
        if s.base in trend.bases
        and (s.untrained if not trend.corpus else (s.corpus, s.amount) == (trend.corpus,
                                                                          trend.amount))
    ]  # fmt: skip


def _points(
    trend: SizeTrend,
    facts: Mapping[str, Base],
    subjects: Sequence[Subject],
    values: Mapping[str, Interval],
) -> list[dict[str, Any]]:
    found = []
    for s in _models(trend, subjects):
        base, value = facts[s.base], values.get(s.model)
        size = base.parameters if trend.by == "parameters" else base.loss
        if value is None or value.value is None or size is None:
            continue
        found.append(
            {
                "size": size,
                "value": value.value,
                "low": value.low,
                "high": value.high,
                "base": visible(s.base),
                "model": visible(s.model),
                "weights": tokens(base.parameters) if base.parameters else "not known",
                "shown": number(value.value),
                "interval": bounds(value) or "none",
            }
        )
    return sorted(found, key=lambda p: p["size"])


def _drawn(points: Mapping[Series, list[dict[str, Any]]], by: str) -> tuple[dict[str, Any], str]:
    every = [p["size"] for own in points.values() for p in own]
    x = _axis(sorted(set(every)), by)
    y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=True, nice=True, padding=6))
    data, layers = Data(), []
    words = []
    fields = (("model", "Model"), ("weights", "Weights"), ("shown", "Score"),
              ("interval", "95% interval"))  # fmt: skip
    tip = [alt.Tooltip(f"{field}:N", title=title) for field, title in fields]
    for k, (line, own) in enumerate(points.items()):
        if not own:
            continue
        dodge = 5 * (k - (len(points) - 1) / 2)
        by_size: dict[float, list[float]] = defaultdict(list)
        for p in own:
            by_size[p["size"]].append(p["value"])
        means = [{"size": at, "value": fmean(v)} for at, v in sorted(by_size.items())]
        path = data(means).mark_line(
            color=line.colour, strokeWidth=2, opacity=0.85, clip=True, xOffset=dodge
        )
        bars = [p for p in own if p["low"] is not None]
        drawn = [path.encode(x=x, y=y)]
        if bars:
            rule = data(bars).mark_rule(
                color=line.colour, strokeWidth=2, opacity=0.5, clip=True, xOffset=dodge
            )
            drawn.append(rule.encode(x=x, y=alt.Y("low:Q", title=None), y2=alt.Y2("high:Q")))
        mark = data(own).mark_point(
            color=line.colour, fill=line.colour, shape=line.shape, size=62, opacity=1, clip=True,
            xOffset=dodge,
        ).encode(x=x, y=y, tooltip=tip)  # fmt: skip
        layers += [Layer(layer, (line,)) for layer in (*drawn, mark)]
        told = ", ".join(f"{p['base']} {p['shown']}" for p in own)
        words.append(f"{line.label}: {told}")
    return finished(layers, data, 190), "; ".join(words)


def _axis(sizes: Sequence[float], by: str) -> Any:
    weights = by == "parameters"
    # Less loss is a better base, so that better stands to the right on both axes.
    scale = (
        alt.Scale(type="log", nice=False, padding=24)
        if weights
        else alt.Scale(nice=False, padding=24, zero=False, reverse=True)
    )
    axis = alt.Axis(
        values=list(sizes),
        labelExpr="replace(format(datum.value, '.3~s'), 'G', 'B')" if weights else
        "format(datum.value, '.3~f')",
        grid=False,
        labelOverlap="greedy",
    )  # fmt: skip
    return alt.X("size:Q", title=None, scale=scale, axis=axis)
