"""A report as files for papers: Markdown with SVG figures, and PDF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from epigone.files import write_aside
from epigone.report.charts import all_series
from epigone.report.document import Figure, document, line
from epigone.report.figures import needed, static, svg
from epigone.report.markdown import markdown
from epigone.report.pdf import pdf
from epigone.report.view import ReportView

FOLDER = "figures"


def write(view: ReportView, out: Path, formats: Sequence[str]) -> list[Path]:
    """Write the files that `formats` ask for, in that order, and `out/figures/*.svg`.

    Equal views give equal bytes on a machine. Raises MissingExtra where the packages that draw are
    not installed.
    """
    needed()
    figures = figures_of(view)
    drawn = {f.name: svg(f.spec) for f in figures}
    for name, content in drawn.items():
        with write_aside(out / FOLDER / f"{name}.svg") as file:
            file.write(content)
    blocks = document(view, figures)
    written = []
    for kind in formats:
        path = out / f"report.{kind}"
        content = pdf(blocks, drawn) if kind == "pdf" else markdown(blocks, FOLDER).encode()
        with write_aside(path) as file:
            file.write(content)
        written.append(path)
    return written


def figures_of(view: ReportView) -> list[Figure]:
    """The page's charts as figures."""
    from epigone.report.page import _FAMILIES, _charts

    series = all_series(view.findings.values)
    found = []
    for family, _ in _FAMILIES:
        for chart in _charts(view, family, series):
            title = line(f"{chart.title} ({chart.direction})")
            spec = static(chart.spec, title, series)
            found.append(Figure(chart.id, title, line(chart.meaning), line(chart.summary),
                                spec))  # fmt: skip
    return found
