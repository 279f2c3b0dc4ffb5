"""epigone status: how far a study is."""

from __future__ import annotations

from typing import Any

import typer

from epigone.api import Study
from epigone.cli.common import Json, Place, StudyArgument, say_json, seconds, table
from epigone.runs.lease import Watch
from epigone.runs.plan import Planned


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("status")(status)


def status(study: StudyArgument, runs: Place = "runs", json: Json = False) -> None:
    """Tell from the files, from any terminal, what is done, running, failed and to do.

    Example: epigone status studies/pocket.yaml
    """
    loaded = Study.load(study, runs=runs)
    planned = loaded.plan()
    watch = Watch(loaded.root)
    runners = {r.id: r for r in watch.runners()}
    held = watch.holders() if runners else {}
    running = {
        p.step.name: runners[held[p.step.name]]
        for p in planned
        if p.state != "done" and held.get(p.step.name) in runners
    }
    left = [p for p in planned if p.state == "to do" or p.step.name in running]
    live = {p.step.name: loaded.store.live(p.step) for p in left}
    if json:
        rows: list[dict[str, Any]] = [
            {
                "step": p.step.name,
                "state": "running" if p.step.name in running else p.state,
                "seconds": p.record.seconds if p.record else None,
                "progress": live.get(p.step.name),
                "error": p.why if p.state == "failed" else None,
                "runner": running[p.step.name].id if p.step.name in running else None,
            }
            for p in planned
        ]
        who = [
            {"id": r.id, "host": r.host, "pid": r.pid, "since": r.since} for r in runners.values()
        ]
        say_json({"study": loaded.declaration.name, "runners": who, "steps": rows})
        return
    table(
        "",
        ("state", "step", ""),
        [
            ["running" if p.step.name in running else p.state, p.step.name, _detail(p, live)]
            for p in planned
        ],
    )
    print()
    for runner in runners.values():
        steps = [name for name, by in running.items() if by.id == runner.id]
        told = ", ".join(steps) or "nothing at the moment"
        print(f"pid {runner.pid} on {runner.host} since {runner.since} works on {told}")
    if not runners:
        print("nobody works on it now")


def _detail(p: Planned, live: dict[str, Any]) -> str:
    if p.record is not None:
        return seconds(p.record.seconds)
    seen = live.get(p.step.name)
    if p.state in ("failed", "damaged") and not seen:
        return p.why
    if not seen:
        return ""
    share = f"{100 * seen['done'] / seen['total']:.0f}%" if seen.get("total") else ""
    return f"{share} {seen.get('note', '')}".strip()
