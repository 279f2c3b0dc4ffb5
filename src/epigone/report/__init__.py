"""Findings to one self-contained HTML file and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from epigone.report.view import (
    CellState,
    Corpus,
    Curve,
    Item,
    MetricText,
    Output,
    Point,
    Reported,
    ReportView,
    Source,
    Step,
    Teacher,
    Trunk,
)

__all__ = [
    "CellState",
    "Corpus",
    "Curve",
    "Item",
    "MetricText",
    "Output",
    "Point",
    "ReportView",
    "Reported",
    "Source",
    "Step",
    "Teacher",
    "Trunk",
    "build",
    "export",
]


def build(view: ReportView, out: Path) -> Path:
    """Write `out/index.html` and `out/tables/*.csv`; the page's path is returned.

    Equal views give equal bytes. The page loads nothing from anywhere else.
    """
    # altair takes most of a second to import: a plan or a status must not pay for it.
    from epigone.report.page import render
    from epigone.report.tables import write_tables

    return render(view, out, write_tables(view, out / "tables"))


def export(view: ReportView, out: Path, formats: Sequence[str]) -> list[Path]:
    """Write `out/report.md` and `out/report.pdf`, as `formats` ask, and the figures of both.

    The files are returned in the order of `formats`. Raises MissingExtra where the packages that
    draw the figures are not installed.
    """
    from epigone.report.printed import write

    return write(view, out, formats)
