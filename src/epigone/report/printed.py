"""A report as files for papers: Markdown with SVG figures, and PDF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from epigone.files import write_aside
from epigone.report.blocks import Figure, line
from epigone.report.charts import Series
from epigone.report.document import document
from epigone.report.figures import needed, static, svg
from epigone.report.judged import KINDS, section
from epigone.report.markdown import markdown
from epigone.report.page import drawn_charts
from epigone.report.pdf import pdf
from epigone.report.view import ReportView

FOLDER = "figures"
_PLANE = (
    "Every student at the share of the gap in style that it closed, and at its capability. Bars "
    "are 95% intervals; the mark grows with the amount of data."
)

_KINDS = tuple(Series("", "", name, colour, shape) for name, colour, shape in KINDS)


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
    """The page's charts as figures, but for the curves of training."""
    drawn, _ = drawn_charts(view)
    series, found = drawn["series"], []
    if (plane := drawn["plane"]) is not None:
        title = "The imitation plane"
        found.append(
            Figure(plane.id, title, _PLANE, line(plane.summary), static(plane.spec, title, series))
        )
    charts = [(c, series) for row in drawn["amounts"] for c in row.charts]
    charts += [(c, drawn["size_series"]) for c in drawn["sizes"]]
    charts += [(c, series) for c in drawn["safety"]]
    for chart, lines in charts:
        title = f"{chart.title} ({chart.direction})" if chart.direction else chart.title
        spec = static(chart.spec, line(title), lines)
        found.append(Figure(chart.id, line(title), line(chart.meaning), line(chart.summary), spec))
    for drawing in section(view).charts:
        title = line(f"{drawing.title} ({drawing.note})")
        spec = static(drawing.spec, title, _KINDS if drawing.length else ())
        found.append(Figure(drawing.id, title, "", line(drawing.summary), spec))
    return found
