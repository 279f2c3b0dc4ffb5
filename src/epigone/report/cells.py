"""Which cells of a study's grid are done, failed or missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from epigone.findings import Subject
from epigone.report.view import CellState, StepState
from epigone.runs.plan import Planned
from epigone.study.steps import Expansion


def cells_of(
    subjects: Sequence[Subject], expansion: Expansion, planned: Sequence[Planned]
) -> tuple[CellState, ...]:
    """Every model of the grid with how far the steps are that make it and measure it."""
    states = {p.step.name: p for p in planned}
    found = []
    for subject, its in zip(subjects, expansion.subjects, strict=True):
        own = [states[s.name] for s in expansion.steps_of(its)]
        done = sum(p.state == "done" for p in own)
        failed = [p for p in own if p.state in ("failed", "damaged")]
        state: StepState = "done" if done == len(own) else "failed" if failed else "pending"
        note = "; ".join(f"{p.step.stage} {p.step.slug}: {p.why}" for p in failed)
        found.append(CellState(subject, state, done, len(own), note))
    return tuple(found)


def grid(
    cells: Sequence[CellState],
) -> tuple[list[int], list[tuple[str, str, Mapping[int, list[CellState]]]]]:
    """Amounts, and a row for each base and line of students: its cells by amount."""
    lines: dict[tuple[str, str], dict[int, list[CellState]]] = {}
    for cell in cells:
        s = cell.subject
        name = "untrained" if s.untrained else s.corpus or ""
        lines.setdefault((s.base, name), {}).setdefault(s.amount, []).append(cell)
    amounts = sorted({a for row in lines.values() for a in row})
    return amounts, [(base, line, row) for (base, line), row in lines.items()]
