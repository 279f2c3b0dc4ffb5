"""epigone compare: two studies side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epigone.api import compare as set_beside
from epigone.cli.common import Json, Place, say_json, table

if TYPE_CHECKING:
    from epigone.report.compared import Compared

_Run = "A study's folder under runs/, or its YAML file."


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("compare")(compare)


def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help=_Run)],
    second: Annotated[Path, typer.Argument(metavar="RUN", help=_Run)],
    out: Annotated[Path, typer.Option("-o", "--output", help="The page to write.")] = Path(
        "compare.html"
    ),
    runs: Place = "runs",
    json: Json = False,
) -> None:
    """Show which settings of two studies differ, and by how much their scores do.

    Scores are compared item by item where both were measured in the same way.

    Example: epigone compare runs/pocket runs/pocket-slow -o compare.html
    """
    found = set_beside(first, second, runs=runs, out=out)
    if json:
        say_json(
            {
                "page": str(out),
                "studies": [run.name for run in (found.first, found.second)],
                "settings": [asdict(s) for s in found.settings],
                **asdict(found.comparison),
            }
        )
    else:
        _tell(found)
        print(f"\npage: {out}")


def _tell(found: Compared) -> None:
    from epigone.findings.gaps import tells
    from epigone.findings.verdict import percent, points
    from epigone.report.compare_page import cell_name, estimate, pair_name, titles
    from epigone.report.page import metric_text
    from epigone.report.text import signed

    for letter, name in zip("AB", titles(found.first, found.second), strict=True):
        print(f"{letter}: {name}")
    for remark in found.comparison.remarks:
        print(remark)
    settings = [[s.name, s.first or "-", s.second or "-"] for s in found.settings]
    _table("Settings that differ", ("setting", "A", "B"), settings)
    rows = []
    for f in found.comparison.families:
        show = percent if f.family == "style" else points
        own = ["-" if s is None else estimate(s.estimate, show) for s in (f.first, f.second)]
        moved = estimate(f.difference, points) if f.difference.value is not None else "-"
        rows.append([cell_name(f.pair), f.family, *own, moved])
    _table("Families of metrics", ("students", "family", "A", "B", "B minus A"), rows)
    told = [
        [pair_name(s.pair), metric_text(found.first.view, s.task, s.metric).title,
         estimate(s.first), estimate(s.second), estimate(s.difference, signed)]
        for s in found.comparison.scores
        if tells(s.difference)
    ]  # fmt: skip
    _table(
        "Scores whose difference is told from 0", ("model", "metric", "A", "B", "B minus A"), told
    )


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"\n{title}{':' if rows else ': none'}")
    if rows:
        table("", columns, rows)
