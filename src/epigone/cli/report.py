"""epigone report: the verdict and the page."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, get_args

import typer

from epigone.api import Study
from epigone.api.study import Format
from epigone.cli.common import Json, Place, StudyArgument, say_json
from epigone.errors import UnknownName


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("report")(report)


def report(
    study: StudyArgument,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="html, md or pdf; may be given several times."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder, if not report/ of the study's.")
    ] = None,
    runs: Place = "runs",
    json: Json = False,
) -> None:
    """Build report/index.html and its tables from what is done, and print the verdict.

    With --format md or pdf, report/report.md or report/report.pdf with figures as SVG.

    Example: epigone report studies/pocket.yaml --format md --format pdf
    """
    loaded = Study.load(study, runs=runs)
    written = loaded.report_as(_known(formats or ["html"]), out=out)
    if json:
        files = {kind: str(path) for kind, path in written.items()}
        page = files.get("html")
        say_json({"report": page, "files": files, **asdict(loaded.findings())})
    else:
        tell_verdict(loaded, *written.values())


def _known(formats: list[str]) -> list[Format]:
    known: tuple[Format, ...] = get_args(Format)
    for name in formats:
        if name not in known:
            raise UnknownName("format", name, known)
    return [kind for kind in known if kind in formats]


def tell_verdict(loaded: Study, *written: Path) -> None:
    """Print the verdict and where the report lies."""
    for verdict in loaded.findings().verdicts:
        print(verdict.base)
        for sentence in verdict.sentences:
            print(f"  {sentence.text}")
        if verdict.note:
            print(f"  {verdict.note}")
    print()
    for path in written:
        print(f"report: {path}")
