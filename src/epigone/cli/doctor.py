"""epigone doctor: what is there, what is missing, and what to do about it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epigone.cli.common import Json, Place, say_json

if TYPE_CHECKING:
    from epigone.cli.checks import Check, Need

_COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("doctor")(doctor)


def doctor(
    study: Annotated[
        Path | None,
        typer.Argument(metavar="[STUDY]", help="Look at what this study needs, too."),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask nothing of the network.")] = False,
    runs: Place = "runs",
    json: Json = False,
) -> None:
    """Look at the machine, the network and a study, and tell what is missing with its fix.

    Nothing is changed, no key is sent or shown, and nothing that is asked costs money. The exit
    code is 1 where something is missing that the study needs, or that any would.

    Example: epigone doctor studies/pocket.yaml
    """
    checks = examine(study, runs, offline)
    problems = [check for check in checks if check.state == "problem"]
    if json:
        rows = [
            {
                "section": check.section,
                "name": check.name,
                "state": check.state,
                "found": check.found,
                "fix": check.fix,
            }
            for check in checks
        ]
        say_json({"ok": not problems, "checks": rows})
    else:
        _tell(checks)
        notes = sum(check.state == "note" for check in checks)
        count = len(problems)
        told = f"{count} problem{'s' * (count != 1)}" if problems else "Nothing is missing"
        print(f"\n{told}, {notes} note{'s' * (notes != 1)}.")
    if problems:
        raise typer.Exit(1)


def examine(study: Path | None, runs: str, offline: bool) -> list[Check]:
    """Every check, all of them side by side and each within its time."""
    from epigone.cli import doctor_machine, doctor_network, doctor_study
    from epigone.cli.checks import Check, Probe, side_by_side
    from epigone.runs.objects import is_url

    needs: set[Need] = set()

    def examined() -> Sequence[Check]:
        found, needed = doctor_study.examine(study or Path(), runs, offline)
        needs.update(needed)
        return found

    probes = doctor_machine.probes(runs)
    if not offline:
        probes += doctor_network.probes()
    if is_url(runs):
        probes.append(doctor_network.store_probe(runs, offline))
    if study is not None:
        seconds = doctor_study.SECONDS
        found = f"could not be looked at in {seconds:.0f} s"
        late = Check(doctor_study.SECTION, "study file", "problem", found, "epigone plan tells why")
        probes.append(Probe(examined, seconds, late))
    checks = side_by_side(probes)
    return [replace(c, state="problem") if c.need in needs else c for c in checks]


def _tell(checks: Sequence[Check]) -> None:
    width = max(len(check.name) for check in checks)
    section = ""
    for check in checks:
        if check.section != section:
            print(f"{section and chr(10)}{check.section}")
            section = check.section
        _line(check.state, check.name.ljust(width), check.found)
        if check.fix and check.state != "ok":
            _line("", " " * width, f"fix: {check.fix}")


def _line(state: str, name: str, text: str) -> None:
    # Servers, files and programs may have had a word in it.
    text = "".join(c if c.isprintable() else " " for c in f"{name}  {text}")[:500]
    if not sys.stdout.isatty():
        print(f"  {state:<7}  {text}")
        return
    from rich.console import Console
    from rich.text import Text

    Console().print(Text.assemble("  ", (f"{state:<7}", _COLOURS.get(state, "")), "  ", text))
