"""epigone cache: what was fetched and made on the way, and clearing it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epigone.cli.common import Json, Runs, StudyArgument, Teller, say_json, seconds, table
from epigone.errors import UserError
from epigone.files import cache_root

if TYPE_CHECKING:
    from epigone.models.cache import Entry

_DAY = 86_400.0


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(
        help="Show, clear and fill what can be made again: downloads, converted models, items.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("ls")(ls)
    group.command("clear")(clear)
    group.command("fetch")(fetch)
    app.add_typer(group, name="cache")


def ls(json: Json = False) -> None:
    """Show what lies in $EPIGONE_HOME: its size, and when it was last used.

    Example: epigone cache ls
    """
    from epigone.models.cache import entries

    found = entries()
    total = sum(entry.bytes for entry in found)
    if json:
        say_json(
            {
                "folder": str(cache_root()),
                "bytes": total,
                "entries": [_row(entry) for entry in found],
            }
        )
        return
    table("", ("name", "size", "last used", "what"), [_line(entry) for entry in found])
    print(f"\n{size(total)} in {cache_root()}")
    print("Models and data of the hub lie in a cache of its own: hf cache ls")


def fetch(study: StudyArgument, runs: Runs = Path("runs"), json: Json = False) -> None:
    """Download what a study's steps to do need, for machines that reach no network.

    Example: epigone cache fetch studies/pocket.yaml
    """
    from epigone.api import Study
    from epigone.runs.perform import fetch as have

    loaded = Study.load(study, runs=runs)
    done = {p.step.name for p in loaded.plan() if p.state == "done"}
    steps = [s for s in loaded.expansion(online=True).steps if s.name not in done]
    with Teller() as teller:
        took = sum(have(step.spec, teller) for step in steps)
    if json:
        say_json({"folder": str(cache_root()), "steps": len(steps), "seconds": took})
    else:
        print(f"what {len(steps)} steps need is here; it took {seconds(took)}")


def clear(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]…", help="Names or kinds, as epigone cache ls shows them."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Clear all that is not in use.")
    ] = False,
    older_than: Annotated[
        float | None,
        typer.Option(
            "--older-than", metavar="DAYS", min=0, help="Only what was not used for so long."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Remove what can be made again, after showing it and asking; never what a process uses.

    Example: epigone cache clear --older-than 30
    """
    from epigone.models import cache

    found = cache.entries()
    if names and everything:
        raise UserError("names, and --all", value=names[0], fix="one of the two")
    if not names and not everything and older_than is None:
        raise UserError("what is to be cleared?", fix="NAME…, --older-than DAYS or --all")
    picked = cache.chosen(found, names) if names else found
    if older_than is not None:
        last = time.time() - older_than * _DAY
        picked = [entry for entry in picked if entry.used < last]
    busy = [entry for entry in picked if entry.in_use]
    free = [entry for entry in picked if entry not in busy]
    if not json:
        _tell(free, busy)
    sure = yes or (not json and bool(free) and sys.stdin.isatty() and typer.confirm("Remove it?"))
    removed: list[Entry] = []
    for entry in free if sure else []:
        (removed if cache.clear(entry) else busy).append(entry)
    if json:
        say_json(
            {
                "bytes": sum(entry.bytes for entry in removed),
                "removed": [_row(entry) for entry in removed],
                "left": [_row(entry) for entry in picked if entry not in removed],
            }
        )
    elif removed:
        print(f"removed {size(sum(entry.bytes for entry in removed))}")
    if free and not sure:
        raise UserError("nothing was removed", fix="--yes removes it without asking")


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _tell(free: Sequence[Entry], busy: Sequence[Entry]) -> None:
    if free:
        table("", ("name", "size", "last used", "what"), [_line(entry) for entry in free])
        print(f"\n{size(sum(entry.bytes for entry in free))} in {cache_root()}")
    else:
        print("nothing to remove")
    for entry in busy:
        print(f"left alone, a process uses it: {entry}")


def _line(entry: Entry) -> list[str]:
    return [str(entry), size(entry.bytes), _date(entry), entry.what]


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "name": str(entry),
        "what": entry.what,
        "path": str(entry.path),
        "bytes": entry.bytes,
        "used": _date(entry),
        "in_use": entry.in_use,
    }


def _date(entry: Entry) -> str:
    return datetime.fromtimestamp(entry.used, UTC).isoformat(" ", "minutes")[:16]
