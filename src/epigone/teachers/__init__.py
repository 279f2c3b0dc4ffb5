"""Ask a teacher: client, limits, ledger, budget, synthesis, a local teacher."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epigone.schema import Progress
from epigone.study.specs import AskSpec

__all__ = ["run"]


def run(spec: AskSpec, inputs: Mapping[str, Path], out: Path, progress: Progress) -> dict[str, Any]:
    """Ask a teacher's endpoint for a corpus; `inputs` hold what must not be in it."""
    from epigone.teachers.stage import run

    return run(spec, inputs, out, progress)
