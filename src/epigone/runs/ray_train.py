"""Training in several processes on a Ray cluster: Ray Train starts them, the loop is the same."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epigone.errors import MachineLost
from epigone.files import read_json, write_json
from epigone.runs.needs import Needs
from epigone.runs.on_ray import outcome, teller
from epigone.runs.perform import Task, perform
from epigone.runs.store import LOG, partial_of

# Beside the steps' folders: what Ray Train itself wants to write, and how a training ended.
FOLDER = "ray"


def train(
    task: Task, needs: Needs, environment: Mapping[str, str], board: Any, root: Path
) -> dict[str, Any]:
    """Train in `needs.parts` processes; how it ended, as data from the first of them.

    Raises MachineLost where a process or its machine died.
    """
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    part = needs.part()
    told = root / FOLDER / f"{task.hash}.json"
    told.unlink(missing_ok=True)
    config = {
        "task": task.to_json(),
        "environment": dict(environment),
        "board": board,
        "told": str(told),
    }
    trainer = TorchTrainer(
        _process,
        train_loop_config=config,
        scaling_config=ScalingConfig(
            num_workers=needs.parts,
            use_gpu=part.gpus > 0,
            resources_per_worker={"CPU": part.cpus, "GPU": part.gpus, "memory": part.memory},
        ),
        run_config=RunConfig(name=task.hash, storage_path=str(root / FOLDER)),
    )
    try:
        trainer.fit()
    except Exception as error:
        # Ray Train wraps what a process raised; how the first one ended stands in its own word.
        if not told.exists():
            lines = str(error).strip().splitlines()
            raise MachineLost(lines[-1][:300] if lines else type(error).__name__) from error
    found: dict[str, Any] = read_json(told)
    told.unlink()
    shutil.rmtree(root / FOLDER / task.hash, ignore_errors=True)
    return found


def _process(config: dict[str, Any]) -> None:
    """One process of the training; the first performs the step, the others follow it."""
    from epigone.training.launch import dismiss, follow

    os.environ.update(config["environment"])
    if os.environ["RANK"] != "0":
        follow()
        return
    task = Task.from_json(config["task"])
    partial = partial_of(Path(task.folder))
    partial.mkdir(parents=True, exist_ok=True)
    # The process serves this step only, so that all it prints is the step's.
    log = os.open(partial / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    told = outcome(lambda: perform(task, teller(config["board"], task.folder)))
    write_json(Path(config["told"]), told)
    if "record" in told:
        dismiss()
    else:
        # The others wait for this one; Ray Train ends them when it fails.
        raise RuntimeError(str(told)[:500])
