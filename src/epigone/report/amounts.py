"""The charts of scores against amount, by family, and the slopes under them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from epigone.findings import Summary, Trend, ValueRow
from epigone.findings.gaps import teacher_value
from epigone.findings.model import FamilyName
from epigone.report.charts import Chart, Series, chart, mean_chart
from epigone.report.slopes import trend_words
from epigone.report.view import MetricText, ReportView
from epigone.schema import Direction, Family

Metric = Callable[[str, str], MetricText]
_MEANS: tuple[tuple[FamilyName, str, str], ...] = (
    ("style", "Style gap closed", "The mean over the style metrics whose gap is known."),
    ("unsupported", "Capability on other tasks", "Change of tasks that the corpus has none of."),
    ("supported", "Capability on its own tasks", "Change of the tasks that the corpus is for."),
    ("capability", "Capability", "Mean change over all tasks."),
)


@dataclass(frozen=True, slots=True)
class Row:
    """A family's charts."""

    title: str
    charts: tuple[Chart, ...]


def amount_charts(view: ReportView, series: Sequence[Series], metric: Metric) -> list[Row]:
    """The families' means first, then each metric of style, capability and preference."""
    rows = [Row("In short", tuple(_means(view, series)))]
    families: tuple[tuple[Family, str], ...] = (
        ("style", "Style"), ("capability", "Capability"), ("preference", "Preference"),
    )  # fmt: skip
    rows += [Row(title, tuple(metric_charts(view, f, series, metric))) for f, title in families]
    return [r for r in rows if r.charts]


def _means(view: ReportView, series: Sequence[Series]) -> list[Chart]:
    found = view.findings
    told = [s for s in found.summaries if s.estimate.value is not None]
    split = any(s.family == "supported" for s in told)
    wanted = [
        m for m in _MEANS
        if m[0] == "style" or (m[0] == "capability") is not split
    ]  # fmt: skip
    made = []
    for family, title, meaning in wanted:
        own = [s for s in told if s.family == family]
        if not own:
            continue
        notes = [_note(t, series) for t in found.trends if (t.task, t.metric) == ("", family)]
        made.append(_mean(family, title, meaning, own, series, notes))
    return made


def _mean(
    family: str,
    title: str,
    meaning: str,
    own: Sequence[Summary],
    series: Sequence[Series],
    notes: Sequence[str],
) -> Chart:
    if family == "style":
        least = any(s.lower_bound for s in own)
        ends = [(1.0, "identical answers" if least else "teacher"), (0.0, "")]
        return mean_chart(f"mean-{family}", title, meaning, own, series, ends, True, notes)
    return mean_chart(f"mean-{family}", title, meaning, own, series, [(0.0, "")], False, notes)


def metric_charts(
    view: ReportView, family: Family, series: Sequence[Series], metric: Metric
) -> list[Chart]:
    """A chart for each metric of a family, in the order in which the view explains them."""
    rows: dict[tuple[str, str], list[ValueRow]] = {}
    for r in view.findings.values:
        if r.family == family and r.subject is not None and r.value.value is not None:
            rows.setdefault((r.task, r.metric), []).append(r)
    found = []
    for k, (task, name) in enumerate(sorted(rows, key=lambda k: order(view, *k))):
        own = rows[task, name]
        known = next(
            (g.teacher for g in view.findings.gaps if (g.task, g.metric) == (task, name)), None
        )
        if known is None:
            score = next(s for s in view.scores if (s.task, s.metric) == (task, name))
            known = teacher_value(score, None, None)
        named = metric(task, name)
        notes = [
            _note(t, series, own[0].better)
            for t in view.findings.trends
            if (t.family, t.task, t.metric) == (family, task, name)
        ]
        ident = f"{family}-{k}"
        found.append(chart(ident, named.title, named.meaning, own, series, known, notes))
    return found


def _note(trend: Trend, series: Sequence[Series], better: Direction = "higher") -> str:
    label = next(
        (s.label for s in series if (s.base, s.corpus) == (trend.base, trend.corpus)), trend.base
    )
    return f"{label}: {trend_words(trend, better)}"


def order(view: ReportView, task: str, metric: str) -> tuple[int, str, str]:
    """Metrics come in the order in which the view explains them, the others after them."""
    names = list(view.metrics)
    name = next((n for n in (f"{task}/{metric}", metric) if n in view.metrics), None)
    return names.index(name) if name else len(names), task, metric
