"""epigone plan: what a study would do and cost, before anything is done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from operator import itemgetter
from typing import Annotated, Any

import typer

from epigone.api import Study
from epigone.cli import cost
from epigone.cli.common import TALL, Json, Place, StudyArgument, Use, say_json, seconds, table
from epigone.models import references
from epigone.runs.checks import check_use, terms_of_data
from epigone.runs.estimate import estimate
from epigone.runs.local import machines_here
from epigone.runs.machine import here
from epigone.runs.plan import Planned, memory
from epigone.runs.plan import plan as what_to_do
from epigone.runs.remaining import expected
from epigone.runs.teacher_cost import Asking, asking, told
from epigone.schema import Cell
from epigone.study.rounds import lonely
from epigone.study.specs import TrainSpec
from epigone.study.steps import Expansion
from epigone.study.values import amount_label


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("plan")(plan)


def plan(
    study: StudyArgument,
    why: Annotated[bool, typer.Option("--why", help="Say why each step has to run.")] = False,
    gpu_hour: Annotated[
        float | None,
        typer.Option("--gpu-hour", metavar="USD", min=0, help="Price of a GPU for an hour."),
    ] = None,
    use: Use = "research",
    runs: Place = "runs",
    json: Json = False,
) -> None:
    """Show cells, steps done and to do, time, GPU-hours and money; nothing is downloaded or run.

    Example: epigone plan studies/pocket.yaml --why
    """
    loaded = Study.load(study, runs=runs)
    loaded.fetch()
    expansion = loaded.expansion()
    loaded.published(expansion)
    planned = what_to_do(expansion, loaded.store)
    terms = terms_of_data(expansion, loaded.store)
    check_use(terms, loaded.declaration.corpora, use)
    todo = [p.step for p in planned if p.state != "done"]
    estimated = estimate(expansion, loaded.store, todo, gpu_hour)
    asks = asking(todo)
    if json:
        say_json(
            {
                "study": loaded.declaration.name,
                "root": str(loaded.root),
                "cells": [asdict(c) for c in expansion.cells()],
                "terms": {name: [asdict(t) for t in found] for name, found in terms.items()},
                "steps": [_row(p) for p in planned],
                **_totals(planned, asks),
                **cost.to_json(estimated),
                "asking": [asdict(a) for a in asks],
            }
        )
        return
    tall = len(expansion.cells()) > TALL
    _tell_cells(expansion, planned, tall)
    print()
    _tell_steps(planned, why, tall)
    limits: dict[str, list[str]] = defaultdict(list)
    for name, found in terms.items():
        for t in found:
            if t.commercial != "yes":
                limits[f"{t.title}: {t.says}"].append(name)
    for says, names in limits.items():
        print(f"\nterms of {', '.join(names)}: {says}")
    if todo:
        cost.tell(estimated)
    declared = loaded.declaration
    for name in lonely(declared.corpora, declared.amounts):
        print(
            f"warning: nothing will tell whether the choice of {name} was better than chance: "
            "add a corpus that is the same, but with select: random, and has one of its amounts"
        )
    _tell_totals(expansion, planned, asks, recorded=declared.teacher.endpoint is None)


def _tell_totals(
    expansion: Expansion, planned: Sequence[Planned], asks: Sequence[Asking], *, recorded: bool
) -> None:
    total = _totals(planned, asks)
    print(
        f"\n{len(expansion.cells())} cells; "
        f"{len(planned)} steps: {total['done']} done, {total['to_do']} to do; "
        f"{total['teacher_tokens_to_train']:,} teacher tokens to train on; "
        f"about {seconds(total['seconds'])} of work on this machine as it is, without downloads"
        + ("; $0.00 for the teacher, which is recorded" if recorded else "")
    )
    for line in told(asks) if asks else ():
        print(line)
    if not asks and not recorded:
        print("the teacher is asked for nothing more")
    if total["to_do"]:
        _tell_machine(planned)


def _tell_machine(planned: Sequence[Planned]) -> None:
    machine, count = here(), cache(references.parameters)
    todo = [p.step for p in planned if p.state != "done"]
    need, most = max(((memory(s, count), s) for s in todo), key=itemgetter(0))
    room = machine.room
    gpus = ", ".join(f"{name} with {size / 1e9:.0f} GB" for name, size in machine.gpus)
    print(
        f"this machine: {machine.ram / 1e9:.0f} GB of memory, {gpus or 'no GPU'}; "
        f"the largest step, {most.name}, takes about {need / 1e9:.1f} GB"
        + (f": it does not fit into {room / 1e9:.0f} GB" if need > room else "")
    )


def _tell_cells(expansion: Expansion, planned: Sequence[Planned], tall: bool) -> None:
    done = {p.step.name for p in planned if p.state == "done"}
    rows: list[list[str]] = []
    groups: dict[tuple[str, ...], list[tuple[Cell, bool]]] = defaultdict(list)
    for subject in expansion.subjects:
        if (cell := subject.cell) is None:
            continue
        trained = all(s.name in done for s in subject.makers)
        groups[(cell.base, _corpus(cell), str(cell.seed))].append((cell, trained))
        if tall:
            continue
        steps = expansion.steps_of(subject)
        rows.append(
            [
                *(cell.base, _corpus(cell), amount_label(cell.amount), str(cell.seed)),
                "done" if trained else "to do",
                f"{sum(s.name in done for s in steps)} of {len(steps)}",
            ]
        )
    if not tall:
        table("", ("base", "corpus", "amount", "seed", "student", "steps done"), rows)
        return
    rows = []
    for (base, corpus, seed), cells in groups.items():
        amounts = " ".join(amount_label(c.amount) for c, _ in cells)
        rows.append([base, corpus, seed, amounts, f"{sum(t for _, t in cells)} of {len(cells)}"])
    table("", ("base", "corpus", "seed", "amounts", "students done"), rows)


def _corpus(cell: Cell) -> str:
    variant = str(getattr(cell, "variant", ""))
    return ", ".join(part for part in (cell.corpus, variant) if part) or "-"


def _tell_steps(planned: Sequence[Planned], why: bool, tall: bool) -> None:
    if why:
        rows = [[p.state, p.step.name, p.why] for p in planned if p.state != "done"]
        table("", ("state", "step", "why"), rows)
    elif not tall:
        rows = [
            [p.state, p.step.name, "" if p.state == "done" else seconds(p.seconds)] for p in planned
        ]
        table("", ("state", "step", "expected"), rows)
    else:
        stages: dict[str, list[Planned]] = defaultdict(list)
        for p in planned:
            stages[p.step.stage].append(p)
        rows = []
        for stage, own in stages.items():
            states = [sum(p.state == state for p in own) for state in ("done", "failed", "damaged")]
            rows.append(
                [stage, *map(str, (len(own), *states)), seconds(sum(p.seconds for p in own))]
            )
        table("", ("stage", "steps", "done", "failed", "damaged", "expected"), rows)


def _row(p: Planned) -> dict[str, Any]:
    return {
        "step": p.step.name,
        "stage": p.step.stage,
        "hash": p.step.hash,
        "model": p.step.model,
        "state": p.state,
        "why": p.why,
        "expected_seconds": round(p.seconds, 1),
        "inputs": {role: s.name for role, s in p.step.inputs.items()},
    }


def _totals(planned: Sequence[Planned], asks: Sequence[Asking]) -> dict[str, Any]:
    todo = [p for p in planned if p.state != "done"]
    trunks = [p.step.spec for p in todo if isinstance(p.step.spec, TrainSpec)]
    return {
        "done": len(planned) - len(todo),
        "to_do": len(todo),
        "teacher_tokens_to_train": sum(t.amounts[-1] for t in trunks),
        "seconds": round(expected(planned, machines_here()), 1),
        # None where the price is not known.
        "usd": None if any(a.usd is None for a in asks) else sum(a.usd or 0.0 for a in asks),
    }
