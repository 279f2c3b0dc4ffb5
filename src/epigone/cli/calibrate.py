"""epigone calibrate: a study whose truth is known, as a control of the instrument."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from epigone.cli.common import Json, Teller, say_json, seconds


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("calibrate")(calibrate)


def calibrate(
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for the world and its study.")
    ] = Path("calibration"),
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Makes the world.")] = 0,
    json: Json = False,
) -> None:
    """Run a study of an invented world, and tell whether it shows what is true there.

    Base models of three sizes learn the world's plain text on the spot; a teacher that knows it
    all, and has a style, is imitated by broad and by local data. Style has to close, broad data
    must teach no facts, local data must teach its task, and the bigger base must know more. The
    exit code is 1 where one of the four is not shown. Nothing is downloaded; it takes some minutes,
    and the same command again continues.

    Example: epigone calibrate -o calibration --seed 1
    """
    from epigone.calibration.run import calibrate as run

    started = time.monotonic()
    with Teller() as teller:
        found = run(out, seed, teller)
    if json:
        told = [control.to_json() for control in found.controls]
        say_json(
            {"seed": seed, "passed": found.passed, "controls": told, "report": str(found.report)}
        )
    else:
        for control in found.controls:
            print(control.line())
        print(f"\nthis run took {seconds(time.monotonic() - started)}\nreport: {found.report}")
    if not found.passed:
        raise typer.Exit(1)
