"""epigone plan: what a study would do, before anything is done."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from epigone.api import Study
from epigone.cli.common import Json, Runs, StudyArgument, Use, say_json, seconds, table
from epigone.runs.execute import expected
from epigone.runs.plan import Planned
from epigone.study.specs import TrainSpec
from epigone.study.values import amount_label


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("plan")(plan)


def plan(
    study: StudyArgument,
    why: Annotated[bool, typer.Option("--why", help="Say why each step has to run.")] = False,
    use: Use = "research",
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Show cells, steps done and to do, tokens and expected time; nothing is downloaded or run.

    Example: epigone plan studies/pocket.yaml --why
    """
    loaded = Study.load(study, runs=runs)
    planned = loaded.plan()
    cells = loaded.expansion().cells()
    terms = loaded.terms()
    loaded.check_terms(use)
    if json:
        say_json(
            {
                "study": loaded.declaration.name,
                "root": str(loaded.root),
                "cells": [
                    {"base": c.base, "corpus": c.corpus, "amount": c.amount, "seed": c.seed}
                    for c in cells
                ],
                "terms": {name: [asdict(t) for t in found] for name, found in terms.items()},
                "steps": [_row(p) for p in planned],
                **_totals(planned),
            }
        )
        return
    done = {p.step.name for p in planned if p.state == "done"}
    table("", ("base", "corpus", "amount", "seed", "student", "steps done"), _cells(loaded, done))
    print()
    if why:
        rows = [[p.state, p.step.name, p.why] for p in planned if p.state != "done"]
        table("", ("state", "step", "why"), rows)
    else:
        rows = [
            [p.state, p.step.name, "" if p.state == "done" else seconds(p.seconds)] for p in planned
        ]
        table("", ("state", "step", "expected"), rows)
    for name, found in terms.items():
        for t in found:
            if t.commercial != "yes":
                print(f"\nterms of {name}: {t.title}: {t.says}")
    total = _totals(planned)
    print(
        f"\n{len(cells)} cells; "
        f"{len(planned)} steps: {total['done']} done, {total['to_do']} to do; "
        f"{total['teacher_tokens_to_train']:,} teacher tokens to train on; "
        f"about {seconds(total['seconds'])} of work, without downloads; "
        f"${total['usd']:.2f} (the teacher is recorded)"
    )


def _cells(study: Study, done: Collection[str]) -> list[list[str]]:
    expansion = study.expansion()
    rows: list[list[str]] = []
    for subject in expansion.subjects:
        if (cell := subject.cell) is None:
            continue
        steps = expansion.steps_of(subject)
        trained = all(s.name in done for s in steps if s.stage == "train")
        rows.append(
            [
                *(cell.base, cell.corpus, amount_label(cell.amount), str(cell.seed)),
                "done" if trained else "to do",
                f"{sum(s.name in done for s in steps)} of {len(steps)}",
            ]
        )
    return rows


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


def _totals(planned: Sequence[Planned]) -> dict[str, Any]:
    todo = [p for p in planned if p.state != "done"]
    trunks = [p.step.spec for p in todo if isinstance(p.step.spec, TrainSpec)]
    return {
        "done": len(planned) - len(todo),
        "to_do": len(todo),
        "teacher_tokens_to_train": sum(t.amounts[-1] for t in trunks),
        "seconds": round(expected(planned), 1),
        "usd": 0.0,
    }
