"""Models to samples and scores: answers, style, benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epigone.schema import Progress
from epigone.study.specs import (
    BenchmarkSpec,
    ContinuationsSpec,
    GenerateSpec,
    ItemsSpec,
    JudgeSpec,
    SecondSpec,
    StyleSpec,
    ToxicitySpec,
)

__all__ = [
    "run_benchmark",
    "run_continuations",
    "run_generate",
    "run_items",
    "run_judge",
    "run_second",
    "run_style",
    "run_toxicity",
]

# The stages import what they need only when they run: a plan must not pay for torch.


def run_items(
    spec: ItemsSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """Write the items of one benchmark, for what must not be in a corpus."""
    from epigone.evaluation.items import run

    return run(spec, inputs, out, progress)


def run_generate(
    spec: GenerateSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """Answer the held-out prompts of `inputs["corpus"]` with one model."""
    from epigone.evaluation.answers import run

    return run(spec, inputs, out, progress)


def run_second(
    spec: SecondSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """Have the teacher answer the held-out prompts of `inputs["corpus"]` a second time."""
    from epigone.evaluation.second import run

    return run(spec, inputs, out, progress)


def run_style(
    spec: StyleSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """Score the samples of `inputs["model"]` against those of `inputs["teacher"]`."""
    from epigone.evaluation.style import run

    return run(spec, inputs, out, progress)


def run_benchmark(
    spec: BenchmarkSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """Measure one model on one benchmark."""
    from epigone.evaluation.benchmarks import run

    return run(spec, inputs, out, progress)


def run_continuations(
    spec: ContinuationsSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """Go on from prompts, several times each, with one model."""
    from epigone.evaluation.continuations import run

    return run(spec, inputs, out, progress)


def run_toxicity(
    spec: ToxicitySpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """Score the continuations of `inputs["continuations"]`."""
    from epigone.evaluation.toxicity import run

    return run(spec, inputs, out, progress)


def run_judge(
    spec: JudgeSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """Ask a judge of the samples of `inputs["model"]`, beside those of `inputs["against"]`."""
    from epigone.evaluation.judge.stage import run

    return run(spec, inputs, out, progress)
