"""epigone verify: whether a study's files are what they were when they were made."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import typer

from epigone.api import Study
from epigone.cli.common import Json, Runs, StudyArgument, Teller, say_json, seconds, table
from epigone.errors import StepFailed, UserError
from epigone.runs.verify import LEDGERS, RATINGS, Checked, Trouble
from epigone.runs.verify import verify as look_through


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("verify")(verify)


def verify(study: StudyArgument, runs: Runs = Path("runs"), json: Json = False) -> None:
    """Hash all files of a study again: finished steps, lock, ledgers, ratings.

    Exit code 1 where a file is damaged or missing. Nothing is changed.

    Example: epigone verify studies/pocket.yaml
    """
    root = Study.load(study, runs=runs).root
    if not root.is_dir():
        raise UserError("nothing is done yet", value=str(root), fix="epigone run")
    started = time.monotonic()
    with Teller() as teller:
        found = look_through(root, teller)
    if json:
        say_json({"study": str(root), "whole": found.whole, **asdict(found)})
        if not found.whole:
            raise typer.Exit(1)
        return
    _tell(found, time.monotonic() - started)
    bad = [t for t in found.troubles if t.what != "surplus"]
    if bad:
        count = "1 file is" if len(bad) == 1 else f"{len(bad)} files are"
        raise StepFailed(f"{count} damaged or missing: {todo(bad)}")


def _tell(found: Checked, elapsed: float) -> None:
    if found.troubles:
        table("", ("", "file", "why"), [[t.what, t.path, t.why] for t in found.troubles])
        print()
    print(
        f"{found.files:,} files of {found.steps:,} steps, {found.bytes / 1e9:.2f} GB, and "
        f"{found.answers:,} answers in ledgers read in {seconds(elapsed)}"
        + (f"; {found.left_out:,} files were left out of the archive" if found.left_out else "")
    )
    if found.whole:
        print("all of it is as it was made")


def todo(bad: list[Trouble]) -> str:
    """What a person has to do about files that are damaged or missing, in one line."""
    told = []
    if any(t.path.startswith("steps/") for t in bad):
        told.append("delete the folders of these steps and run the study again, which makes them")
    if any(t.path.startswith(("study.lock", "files/")) for t in bad):
        told.append("run the study again from its own file, which writes lock and copies")
    if any(t.path.startswith(f"../{LEDGERS}/") for t in bad):
        told.append("what a damaged line of a ledger held is asked again where it is needed")
    for t in bad:
        if t.path == RATINGS or Path(t.path).is_absolute():
            told.append(f"bring {t.path} back from a copy")
    return "; ".join(told)
