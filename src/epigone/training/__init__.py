"""A corpus and a base to students: blocks, loss, optimisers, the loop, checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epigone.schema import Progress
from epigone.study.specs import FeedbackSpec, TrainSpec

__all__ = ["run", "run_feedback"]


def run(
    spec: TrainSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """Train one trunk: `inputs["corpus"]` is a corpus folder; `out` gets a student per amount."""
    from epigone.training.launch import train

    return train(spec, inputs["corpus"], out, progress)


def run_feedback(
    spec: FeedbackSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """Train a student further on feedback; `out` gets the new student and `metrics.jsonl`.

    `inputs["student"]` is the folder of a finished training; without it the base itself is the
    start. Raises MissingExtra without the extra `feedback`, and CorpusError for data that has
    nothing to learn from.
    """
    from epigone.training.feedback import train_further

    return train_further(spec, inputs, out, progress)
