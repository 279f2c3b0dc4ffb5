"""A corpus and a base to students: blocks, loss, optimisers, the loop, checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epigone.schema import Progress
from epigone.study.specs import TrainSpec

__all__ = ["run"]


def run(
    spec: TrainSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """Train one trunk: `inputs["corpus"]` is a corpus folder; `out` gets a student per amount."""
    from epigone.training.launch import train

    return train(spec, inputs["corpus"], out, progress)
