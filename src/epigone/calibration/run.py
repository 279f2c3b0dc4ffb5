"""A calibration from its seed to its controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from epigone.api.study import Study
from epigone.calibration.controls import Control, controls, measured
from epigone.calibration.folder import BASES, STUDY, WORLD, write_world
from epigone.calibration.scale import FULL, Scale
from epigone.errors import StepFailed
from epigone.runs.roles import Watcher
from epigone.schema import Progress


class Told(Watcher, Progress, Protocol):
    """Who is told how the bases' training goes, and then the study."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a calibration has shown, and where its report lies."""

    controls: Sequence[Control]
    report: Path

    @property
    def passed(self) -> bool:
        """Whether every control was shown."""
        return all(c.passed for c in self.controls)


def calibrate(folder: Path, seed: int, watcher: Told, scale: Scale = FULL) -> Calibration:
    """Make a seed's world and bases in a folder, run its study, and look at the controls.

    The same call again continues. Raises UserError for a folder that holds something else, and
    StepFailed where steps of the study failed: nothing is concluded from a part of it.
    """
    write_world(folder, seed, scale)
    _train_bases(folder, seed, watcher, scale)
    study = Study.load(folder / STUDY, runs=folder / "runs")
    result = study.run(watcher)
    if result.failed:
        raise StepFailed(f"{len(result.failed)} steps of the calibration failed or were blocked")
    return _look(study, scale)


def _train_bases(folder: Path, seed: int, progress: Progress, scale: Scale) -> None:
    left = [b for b in scale.bases if not (folder / BASES / b.name).exists()]
    if not left:
        return
    from epigone.calibration.bases import texts_of, tokenizer_of, train_base

    kinds, others = texts_of(folder / WORLD)
    tokenizer = tokenizer_of([*(text for texts in kinds for text in texts), *others])
    for build in left:
        train_base(build, kinds, tokenizer, folder / BASES / build.name, seed, progress)


def _look(study: Study, scale: Scale) -> Calibration:
    from epigone.report import build

    view = study.view()
    broad, local = study.declaration.corpora
    knowledge, rule = (b.label for b in study.declaration.evaluate.benchmarks)
    found = measured(
        view.findings,
        view.scores,
        [b.name for b in scale.bases],
        broad=broad,
        local=local,
        knowledge=knowledge,
        rule=rule,
    )
    return Calibration(controls(found), build(view, study.root / "report"))
