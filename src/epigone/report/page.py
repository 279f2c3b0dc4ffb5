"""The report's page: what the templates show, and the policy under which it runs."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from epigone.files import write_text
from epigone.findings import GapRow, Summary, ValueRow, Verdict
from epigone.findings.gaps import teacher_value
from epigone.findings.verdict import latest, percent, points, tokens
from epigone.report import text
from epigone.report.charts import Chart, Series, all_series, chart
from epigone.report.curves import curve_charts
from epigone.report.examples import examples_of, several
from epigone.report.judged import KINDS, bare, named, section
from epigone.report.paper import tables as tables_of_paper
from epigone.report.tracks import Track, change_track, reach_of, style_track
from epigone.report.view import MetricText, ReportView
from epigone.schema import Family, Interval

_ROOM = files("epigone.report")
VENDOR = ("vega.min.js", "vega-lite.min.js", "vega-embed.min.js")
_FAMILIES: tuple[tuple[Family, str], ...] = (
    ("style", "Style"),
    ("capability", "Capability"),
    ("safety", "Safety"),
    ("preference", "Preference"),
)


@dataclass(frozen=True, slots=True)
class Bar:
    """One labelled interval bar of a verdict."""

    label: str
    value: str
    bounds: str
    track: Track


@dataclass(frozen=True, slots=True)
class Card:
    """The verdict on one base: its bars in three groups and the sentences beneath them."""

    verdict: Verdict
    name: str
    style: Bar
    capability: Bar
    detectable: str
    scaling: tuple[Bar, ...]


def render(view: ReportView, out: Path, tables: Sequence[str]) -> Path:
    """Write `out/index.html`; `tables` are the files beside it to link to."""
    html = environment().get_template("index.html.j2").render(_context(view, tables))
    path = out / "index.html"
    write_text(path, html)
    return path


def environment() -> jinja2.Environment:
    """Templates that escape all they are given and refuse what they are not given."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("epigone.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda v: text.visible(v) if type(v) is str else v,
    )
    made.filters |= {
        "bounds": text.bounds,
        "number": text.number,
        "percent": percent,
        "points": points,
        "rater": named,
        "seconds": text.seconds,
        "signed": text.signed,
        "tokens": tokens,
    }
    made.globals |= {"bare": bare, "percent": percent, "signed": text.signed}
    return made


def _context(view: ReportView, tables: Sequence[str]) -> dict[str, Any]:
    series = all_series(view.findings.values)
    charts = [(title, _charts(view, family, series)) for family, title in _FAMILIES]
    curves = curve_charts(view.trunks)
    judged = section(view)
    specs = {c.id: c.spec for _, row in charts for c in row} | {c.id: c.spec for c in curves}
    specs |= {c.id: c.spec for c in judged.charts}
    scripts = [text.script_code(read("vendor", name)) for name in VENDOR]
    scripts += [text.script_code(read("static", name)) for name in ("app.js", "examples.js")]
    examples = examples_of(view, lambda task, metric: _metric(view, task, metric).title)
    style = read("static", "style.css")
    return {
        "view": view,
        "findings": view.findings,
        "cards": [_card(view, v) for v in view.findings.verdicts],
        "series": series,
        "charts": [(title, row) for title, row in charts if row],
        "curves": curves,
        "judged": judged,
        "kinds": KINDS,
        "untrained": {s.model for s in view.subjects if s.untrained},
        "gaps": [(title, _gaps(view, family)) for family, title in _FAMILIES],
        "several": several(view),
        "paper": tables_of_paper(view),
        "values": view.findings.values,
        "metric": lambda r: _metric(view, r.task, r.metric),
        "states": Counter(s.state for s in view.steps),
        "total_seconds": sum(s.seconds or 0.0 for s in view.steps),
        "explained": _explained(view),
        "tables": tables,
        "policy": policy(scripts, style),
        "scripts": [Markup(s) for s in scripts],
        "style": Markup(style),
        "chart_data": Markup(text.script_json(specs)),
        "examples": examples,
        "sample_data": Markup(text.script_json(examples.data)),
    }


def read(folder: str, name: str) -> str:
    """A file of the room that goes into a page."""
    return (_ROOM / folder / name).read_text(encoding="utf-8")


def policy(scripts: Sequence[str], style: str) -> str:
    """The page may run and load nothing but what was written into it."""

    def source(content: str) -> str:
        digest = hashlib.sha256(content.encode()).digest()
        return f"'sha256-{base64.b64encode(digest).decode()}'"

    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(source(s) for s in scripts)}",
            f"style-src {source(style)}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _metric(view: ReportView, task: str, metric: str) -> MetricText:
    named = view.metrics.get(f"{task}/{metric}") or view.metrics.get(metric)
    if named is not None:
        return named
    title = metric.replace("_", " ").replace("-", " ")
    return MetricText(f"{task}: {title}" if task else title)


def _explained(view: ReportView) -> list[MetricText]:
    keys = dict.fromkeys((r.task, r.metric) for r in view.findings.values)
    return [m for t, k in keys if (m := _metric(view, t, k)).meaning]


def _charts(view: ReportView, family: Family, series: Sequence[Series]) -> list[Chart]:
    rows: dict[tuple[str, str], list[ValueRow]] = {}
    for r in view.findings.values:
        if r.family == family and r.subject is not None and r.value.value is not None:
            rows.setdefault((r.task, r.metric), []).append(r)
    found = []
    for k, (task, metric) in enumerate(sorted(rows, key=lambda k: _order(view, *k))):
        own = rows[task, metric]
        known = next(
            (g.teacher for g in view.findings.gaps if (g.task, g.metric) == (task, metric)), None
        )
        if known is None:
            score = next(s for s in view.scores if (s.task, s.metric) == (task, metric))
            known = teacher_value(score, None, None)
        named = _metric(view, task, metric)
        found.append(chart(f"{family}-{k}", named.title, named.meaning, own, series, known))
    return found


def _gaps(view: ReportView, family: Family) -> list[list[GapRow]]:
    """Rows of a family, one list a metric."""
    groups: dict[tuple[str, str], list[GapRow]] = {}
    for r in view.findings.gaps:
        if r.family == family:
            groups.setdefault((r.task, r.metric), []).append(r)
    return [groups[k] for k in sorted(groups, key=lambda k: _order(view, *k))]


def _order(view: ReportView, task: str, metric: str) -> tuple[int, str, str]:
    """Metrics come in the order in which the view explains them, the others after them."""
    names = list(view.metrics)
    name = next((n for n in (f"{task}/{metric}", metric) if n in view.metrics), None)
    return names.index(name) if name else len(names), task, metric


def _card(view: ReportView, verdict: Verdict) -> Card:
    own = [s for s in view.findings.summaries if (s.base, s.corpus) == _key(verdict)]
    style, capability = latest(own, "style"), latest(own, "capability")
    several = len({v.corpus for v in view.findings.verdicts}) > 1
    by_kind = {s.kind: s.interval or Interval(None, None, None, 0) for s in verdict.sentences}
    moved, changed = by_kind["style"], by_kind["capability"]
    size = capability.capability_detectable if capability else None
    reach = max(size or 0.0, reach_of(changed))
    return Card(
        verdict=verdict,
        name=f"{verdict.base} on {verdict.corpus}" if several else verdict.base,
        style=Bar(
            _style_label(style),
            percent(moved.value),
            text.bounds(moved, percent),
            style_track(moved, _end(style)),
        ),
        capability=_change_bar("Capability change", changed, reach),
        detectable=points(size, signed=False) if size is not None else "",
        scaling=_scaling_bars(verdict),
    )


def _key(verdict: Verdict) -> tuple[str, str]:
    return verdict.base, verdict.corpus


def _style_label(summary: Summary | None) -> str:
    """Which metrics the share is a mean of: those whose gap can be told."""
    named = summary.style_metrics if summary else ()
    return f"Style gap closed: {', '.join(named)}" if named else "Style gap closed"


def _end(summary: Summary | None) -> str:
    return "identical answers" if summary and summary.style_is_lower_bound else "teacher"


def _scaling_bars(verdict: Verdict) -> tuple[Bar, ...]:
    s = verdict.scaling
    if s is None:
        return ()
    reach = reach_of(s.data_gain, s.base_difference)
    start = "untrained" if s.previous == 0 else tokens(s.previous)
    bars = [_change_bar(f"{start} to {tokens(s.amount)} tokens", s.data_gain, reach)]
    if s.base_difference is not None:
        bars.append(_change_bar(f"{s.other} instead", s.base_difference, reach))
    return tuple(bars)


def _change_bar(label: str, interval: Interval, reach: float) -> Bar:
    between = text.bounds(interval, points).replace(" points to ", " to ")
    return Bar(label, points(interval.value), between, change_track(interval, reach))
