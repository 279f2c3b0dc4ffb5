"""Ask a teacher: client, limits, ledger, budget, synthesis, a local teacher."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epigone.schema import Progress
from epigone.study.specs import AskSpec, SelectSpec

__all__ = ["run", "run_select"]


def run(spec: AskSpec, inputs: Mapping[str, Path], out: Path, progress: Progress) -> dict[str, Any]:
    """Ask a teacher's endpoint for a corpus; `inputs` hold what must not be in it."""
    from epigone.teachers.stage import run

    return run(spec, inputs, out, progress)


def run_select(
    spec: SelectSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """Choose what a teacher is asked next, by the students in `inputs` or by words."""
    from epigone.teachers.selection import run

    return run(spec, inputs, out, progress)
