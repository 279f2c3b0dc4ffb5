"""epigone gc: what no study refers to any more."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from epigone.cli.common import Json, say_json, table
from epigone.errors import UserError
from epigone.runs.garbage import Swept, sweep


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("gc")(gc)


def gc(
    runs: Annotated[
        Path, typer.Argument(metavar="[RUNS]", help="Folder of studies, or one study's folder.")
    ] = Path("runs"),
    remove: Annotated[bool, typer.Option("--remove", help="Delete it, not only list it.")] = False,
    ledger: Annotated[
        int,
        typer.Option(
            "--ledger",
            count=True,
            help="Also ledgers of which no study here asked anything. They hold answers that were "
            "paid for: to remove them, say it twice.",
        ),
    ] = 0,
    json: Json = False,
) -> None:
    """List what no study refers to: steps of changed studies, abandoned work, left-over files.

    Nothing is deleted without --remove. A study that is being run is left alone; what it will go
    on with, and people's ratings, stay.

    Example: epigone gc runs --remove
    """
    if remove and ledger == 1:
        _refuse(sweep(runs, ledgers=True))
    swept = sweep(runs, remove=remove, ledgers=ledger > 0)
    if json:
        found = [asdict(g) for g in swept.found]
        say_json({"removed": remove, "bytes": swept.bytes, "studies": swept.studies, "found": found,
                  "left": swept.left})  # fmt: skip
        return
    if swept.found:
        rows = [[g.what, _size(g.bytes), g.path, g.why] for g in swept.found]
        table("", ("", "size", "path", "why"), rows)
        print()
    for name, why in swept.left.items():
        print(f"left alone: {name}: {why}")
    if not swept.studies:
        print(f"no study lies in {runs}")
    elif not swept.found:
        print("nothing to remove")
    if swept.found and remove:
        print(f"removed {_size(swept.bytes)}")
    elif swept.found:
        print(f"{_size(swept.bytes)} may go; --remove deletes it")


def _refuse(swept: Swept) -> None:
    lost = [g for g in swept.found if g.what == "ledger"]
    if lost:
        raise UserError(
            "ledgers hold answers that were paid for",
            value=f"{lost[0].path}: {lost[0].why}",
            fix="say --ledger twice to remove them",
        )


def _size(value: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:.1f} {unit}"
    return f"{value} B"
