"""epigone report: the verdict and the page."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from epigone.api import Study
from epigone.cli.common import Json, Runs, StudyArgument, say_json


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("report")(report)


def report(study: StudyArgument, runs: Runs = Path("runs"), json: Json = False) -> None:
    """Build report/index.html and its tables from what is done, and print the verdict.

    Example: epigone report studies/pocket.yaml
    """
    loaded = Study.load(study, runs=runs)
    page = loaded.report()
    if json:
        say_json({"report": str(page), **asdict(loaded.findings())})
    else:
        tell_verdict(loaded, page)


def tell_verdict(loaded: Study, page: Path) -> None:
    """Print the verdict and where the report lies."""
    for verdict in loaded.findings().verdicts:
        print(verdict.base)
        for sentence in verdict.sentences:
            print(f"  {sentence.text}")
        if verdict.note:
            print(f"  {verdict.note}")
    print(f"\nreport: {page}")
