"""epigone status: how far a study is."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import typer

from epigone.api import Study
from epigone.cli.common import Json, Runs, StudyArgument, say_json, seconds, table
from epigone.runs import lease
from epigone.runs.plan import Planned
from epigone.runs.store import LIVE, Store


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("status")(status)


def status(study: StudyArgument, runs: Runs = Path("runs"), json: Json = False) -> None:
    """Tell from the files, from any terminal, what is done, running, failed and to do.

    Example: epigone status studies/pocket.yaml
    """
    loaded = Study.load(study, runs=runs)
    planned = loaded.plan()
    holder = lease.holder(loaded.root)
    live = {p.step.name: loaded.store.live(p.step) for p in planned if p.state == "to do"}
    todo = [p for p in planned if live.get(p.step.name)]
    running = {p.step.name for p in todo if holder and _fresh(loaded.store, p, holder["since"])}
    if json:
        rows: list[dict[str, Any]] = [
            {
                "step": p.step.name,
                "state": "running" if p.step.name in running else p.state,
                "seconds": p.record.seconds if p.record else None,
                "progress": live.get(p.step.name),
                "error": p.why if p.state == "failed" else None,
            }
            for p in planned
        ]
        say_json({"study": loaded.declaration.name, "holder": holder, "steps": rows})
        return
    table(
        "",
        ("state", "step", ""),
        [
            ["running" if p.step.name in running else p.state, p.step.name, _detail(p, live)]
            for p in planned
        ],
    )
    if holder:
        print(f"\nheld by pid {holder['pid']} on {holder['host']} since {holder['since']}")
    else:
        print("\nnobody works on it now")


def _fresh(store: Store, p: Planned, since: str) -> bool:
    # Killed runs leave their progress behind; only what this holder wrote tells of work.
    try:
        begun = datetime.fromisoformat(since).timestamp()
        return (store.partial(p.step) / LIVE).stat().st_mtime >= begun
    except ValueError:
        return True  # a holder that has not yet written since when
    except OSError:
        return False


def _detail(p: Planned, live: dict[str, Any]) -> str:
    if p.record is not None:
        return seconds(p.record.seconds)
    if p.state in ("failed", "damaged"):
        return p.why
    seen = live.get(p.step.name)
    if not seen:
        return ""
    share = f"{100 * seen['done'] / seen['total']:.0f}%" if seen.get("total") else ""
    return f"{share} {seen.get('note', '')}".strip()
