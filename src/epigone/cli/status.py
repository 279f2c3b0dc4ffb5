"""epigone status: how far a study is."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import typer

from epigone.api import Study
from epigone.cli.common import TALL, Json, Place, StudyArgument, say_json, seconds, table
from epigone.runs.lease import Watch
from epigone.runs.lock import NAME as LOCK
from epigone.runs.lock import read_lock
from epigone.runs.plan import Planned
from epigone.runs.plan import plan as what_to_do

_STATES = ("done", "running", "failed", "damaged", "to do")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("status")(status)


def status(study: StudyArgument, runs: Place = "runs", json: Json = False) -> None:
    """Tell from the files, from any terminal, what is done, running, failed and to do.

    Example: epigone status studies/pocket.yaml
    """
    loaded = Study.load(study, runs=runs)
    expansion = loaded.expansion()
    planned = what_to_do(expansion, loaded.store)
    watch = Watch(loaded.root)
    runners = {r.id: r for r in watch.runners() if not watch.silent(r.id)}
    held = watch.holders() if runners else {}
    running = {
        p.step.name: runners[held[p.step.name]]
        for p in planned
        if p.state != "done" and held.get(p.step.name) in runners
    }
    left = [p for p in planned if p.state == "to do" or p.step.name in running]
    live = {p.step.name: loaded.store.live(p.step) for p in left}
    steps = [("running" if p.step.name in running else p.state, p) for p in planned]
    if json:
        rows: list[dict[str, Any]] = [
            {
                "step": p.step.name,
                "state": state,
                "seconds": p.record.seconds if p.record else None,
                "progress": live.get(p.step.name),
                "error": p.why if p.state == "failed" else None,
                "runner": running[p.step.name].id if p.step.name in running else None,
            }
            for state, p in steps
        ]
        who = [
            {"id": r.id, "host": r.host, "pid": r.pid, "since": r.since} for r in runners.values()
        ]
        say_json({"study": loaded.declaration.name, "runners": who, "steps": rows})
        return
    counts: Counter[str] = Counter(state for state, _ in steps)
    if len(expansion.cells()) > TALL:
        _tell_stages(steps)
        steps = [(state, p) for state, p in steps if state not in ("done", "to do")]
        print(end="\n" if steps else "")
    if steps:
        shown = [[state, p.step.name, _detail(p, live)] for state, p in steps]
        table("", ("state", "step", ""), shown)
    told = ", ".join(f"{counts[state]} {state}" for state in _STATES if counts[state])
    print(f"\n{len(planned)} steps: {told}")
    for runner in runners.values():
        names = [name for name, by in running.items() if by.id == runner.id]
        told = ", ".join(names) or "nothing at the moment"
        print(f"pid {runner.pid} on {runner.host} since {runner.since} works on {told}")
    if not runners:
        print("nobody works on it now")
    if read_lock(loaded.root).trouble:
        print(f"{LOCK} is damaged (epigone verify)")
    if not loaded.root.parent.is_dir():
        print(f"(no folder {runs} yet)")


def _tell_stages(steps: Sequence[tuple[str, Planned]]) -> None:
    """A line for each stage; steps in the states that a person looks for follow one by one."""
    stages: dict[str, Counter[str]] = defaultdict(Counter)
    took: dict[str, float] = defaultdict(float)
    for state, p in steps:
        stages[p.step.stage][state] += 1
        took[p.step.stage] += p.record.seconds if p.record else 0.0
    rows = [
        [stage, *(str(found[state]) for state in _STATES), seconds(took[stage])]
        for stage, found in stages.items()
    ]
    table("", ("stage", *_STATES, "worked"), rows)


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
