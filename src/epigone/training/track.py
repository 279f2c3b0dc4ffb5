"""Metrics of each step to TensorBoard, W&B or MLflow, through Accelerate's trackers."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epigone.errors import UnknownName, UserError
from epigone.study.specs import TrainSpec

if TYPE_CHECKING:
    from epigone.training.parallel import World

TRACK = "EPIGONE_TRACK"
TRACKERS = ("tensorboard", "wandb", "mlflow")
_PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX")}
Track = Callable[[int, Mapping[str, Any], float], None]


def trackers_asked() -> list[str]:
    """Names in $EPIGONE_TRACK; raises UserError for unknown ones and for those not installed."""
    names = [n.strip() for n in os.environ.get(TRACK, "").split(",") if n.strip()]
    for name in names:
        if name not in TRACKERS:
            raise UnknownName("tracker", name, TRACKERS)
        # As Accelerate does, which would take seconds to import here.
        if not any(map(importlib.util.find_spec, _PACKAGES.get(name, (name,)))):
            raise UserError(f"{name} is not installed", fix=f"pip install {name}")
    return names


@contextmanager
def tracker(spec: TrainSpec, out: Path, world: World) -> Iterator[Track]:
    """A function that is given each step's number, row of metrics, and seconds.

    The number is the row's in the log: a decay that branches off repeats optimiser steps, which
    trackers would refuse.
    """
    names = trackers_asked()
    if not names or not world.leads:
        yield lambda number, row, seconds: None
        return
    from accelerate import Accelerator

    # A folder for each run, or a study's would lie on top of each other.
    run = out.name.removesuffix(".partial")
    accelerator = Accelerator(log_with=names, project_dir=str(out.parent / "trackers" / run))
    settings = {
        k: v for k, v in spec.recipe.model_dump().items() if isinstance(v, int | float | str | bool)
    }
    accelerator.init_trackers(
        "epigone",
        {"base": spec.base.name, "seed": spec.seed, **settings},
        {"wandb": {"name": run}, "mlflow": {"run_name": run}},
    )

    def track(number: int, row: Mapping[str, Any], seconds: float) -> None:
        values = {k: v for k, v in row.items() if k != "step"}
        values["supervised_per_second"] = row["supervised"] / seconds
        accelerator.log(values, step=number)

    try:
        yield track
    finally:
        # Not end_training, which would take the other processes' group away.
        for one in accelerator.trackers:
            one.finish()
