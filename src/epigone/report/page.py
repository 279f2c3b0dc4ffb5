"""The report's page: what the templates show, and the policy under which it runs."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from epigone.files import write_text
from epigone.findings import Findings, GapRow
from epigone.findings.gaps import CEILING
from epigone.findings.verdict import percent, points, probability, tokens
from epigone.report import text
from epigone.report.amounts import amount_charts, metric_charts, order
from epigone.report.base_sizes import size_charts, size_series
from epigone.report.cells import grid
from epigone.report.charts import all_series
from epigone.report.choice import choices, hours_are, in_points, uneven
from epigone.report.curves import curve_charts
from epigone.report.examples import examples_of, several
from epigone.report.judged import KINDS, bare, named, section
from epigone.report.paper import tables as tables_of_paper
from epigone.report.plane import plane
from epigone.report.slopes import shown_in
from epigone.report.verdicts import FAMILIES, cards
from epigone.report.view import MetricText, ReportView
from epigone.schema import Family

_ROOM = files("epigone.report")
VENDOR = ("vega.min.js", "vega-lite.min.js", "vega-embed.min.js")
_FAMILIES: tuple[tuple[Family, str], ...] = (
    ("style", "Style"),
    ("capability", "Capability"),
    ("safety", "Safety"),
    ("preference", "Preference"),
)
# Templates in the order of the page, and the sections that its list of contents names.
_TEMPLATES = (
    *("verdict", "plane", "amounts", "sizes", "choice", "paper", "scores", "judged", "safety"),
    *("samples", "corpus", "training", "made", "notes"),
)
_SECTIONS = (
    ("verdict", "Verdict"),
    ("plane", "Style and capability"),
    ("amounts", "Amount of data"),
    ("sizes", "Size of the base"),
    ("choice", "Data or base"),
    ("paper", "The paper"),
    ("gaps", "Gaps"),
    ("scores", "Scores"),
    ("judged", "Judges and people"),
    ("safety", "Toxicity"),
    ("samples", "Samples"),
    ("corpus", "Corpus"),
    ("training", "Training"),
    ("made", "How it was made"),
    ("notes", "Notes"),
)
# Where a sentence of the verdict leads to.
_FIGURES = {
    "plane": "The imitation plane",
    "amounts": "Scores against amount",
    "choice": "Data against base",
}


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
        "dollars": text.dollars,
        "hours": text.hours,
        "p_value": text.p_value,
        "points": points,
        "probability": probability,
        "rater": named,
        "seconds": text.seconds,
        "signed": text.signed,
        "tokens": tokens,
    }
    made.globals |= {
        "bare": bare,
        "in_points": in_points,
        "number": text.number,
        "percent": percent,
        "points": points,
        "signed": text.signed,
        "slope_shown": shown_in,
    }
    return made


def _context(view: ReportView, tables: Sequence[str]) -> dict[str, Any]:
    judged = section(view)
    scripts = [text.script_code(read("vendor", name)) for name in VENDOR]
    scripts += [text.script_code(read("static", name)) for name in ("app.js", "examples.js")]
    examples = examples_of(view, lambda task, metric: metric_text(view, task, metric).title)
    style = read("static", "style.css")
    drawn, specs = drawn_charts(view)
    specs |= {c.id: c.spec for c in judged.charts}
    findings = view.findings
    return {
        **drawn,
        "view": view,
        "findings": findings,
        "cards": cards(findings),
        "families": FAMILIES,
        "choices": choices(findings),
        "uneven": uneven(findings),
        "figures": {
            name: title for name, title in _FIGURES.items() if _shown(name, drawn, findings)
        },
        "safety_rows": [r for r in findings.values if r.family == "safety"],
        "hours": hours_are(view),
        "grid": grid(view.cells),
        "judged": judged,
        "kinds": KINDS,
        "untrained": {s.model for s in view.subjects if s.untrained},
        "gaps": [(title, _gaps(view, family)) for family, title in _FAMILIES],
        "several": several(view),
        "paper": tables_of_paper(view),
        "ceiling": CEILING,
        "values": view.findings.values,
        "metric": lambda r: metric_text(view, r.task, r.metric),
        "states": Counter(s.state for s in view.steps),
        "total_seconds": sum(s.seconds or 0.0 for s in view.steps),
        "total_dollars": sum(s.dollars or 0.0 for s in view.steps),
        "explained": _explained(view),
        "tables": tables,
        "policy": policy(scripts, style),
        "scripts": [Markup(s) for s in scripts],
        "style": Markup(style),
        "chart_data": Markup(text.script_json(specs)),
        "examples": examples,
        "sample_data": Markup(text.script_json(examples.data)),
        "templates": _TEMPLATES,
        "sections": _SECTIONS,
    }


def drawn_charts(view: ReportView) -> tuple[dict[str, Any], dict[str, Any]]:
    """The charts of each section for the templates, and the specifications of all by their id."""
    findings, series = view.findings, all_series(view.findings.values)

    def metric(task: str, name: str) -> MetricText:
        return metric_text(view, task, name)

    found = plane(findings.summaries, series)
    amounts = amount_charts(view, series, metric)
    sizes = size_charts(findings, view.scores, view.subjects, metric)
    safety = metric_charts(view, "safety", series, metric)
    curves = curve_charts(view.trunks)
    every = [*(c for row in amounts for c in row.charts), *sizes, *safety]
    specs = {c.id: c.spec for c in every} | {c.id: c.spec for c in curves}
    specs |= {found.id: found.spec} if found else {}
    drawn = {
        "series": series,
        "plane": found,
        "amounts": amounts,
        "sizes": sizes,
        "size_series": size_series(findings.sizes),
        "safety": safety,
        "curves": curves,
    }
    return drawn, specs


def _shown(figure: str, drawn: dict[str, Any], findings: Findings) -> bool:
    if figure == "choice":
        return bool(findings.local_broad or choices(findings))
    return figure == "amounts" or drawn[figure] is not None


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


def metric_text(view: ReportView, task: str, metric: str) -> MetricText:
    """What a metric is called, and what its number means."""
    named = view.metrics.get(f"{task}/{metric}") or view.metrics.get(metric)
    if named is not None:
        # One metric on several kinds of prompts: see `evaluation.toxicity`.
        kind = task.rpartition(":")[2] if task.startswith("toxicity:") else ""
        return replace(named, title=f"{named.title}, {kind} prompts") if kind else named
    title = metric.replace("_", " ").replace("-", " ")
    return MetricText(f"{task}: {title}" if task else title)


def _explained(view: ReportView) -> list[MetricText]:
    keys = dict.fromkeys((r.task, r.metric) for r in view.findings.values)
    return [m for t, k in keys if (m := metric_text(view, t, k)).meaning]


def _gaps(view: ReportView, family: Family) -> list[list[GapRow]]:
    """Rows of a family, one list a metric."""
    groups: dict[tuple[str, str], list[GapRow]] = {}
    for r in view.findings.gaps:
        if r.family == family:
            groups.setdefault((r.task, r.metric), []).append(r)
    return [groups[k] for k in sorted(groups, key=lambda k: order(view, *k))]
