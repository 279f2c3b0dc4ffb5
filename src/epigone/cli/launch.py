"""Options on how training is done: they set what the environment would, and refuse early."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from epigone.errors import UserError
from epigone.training.layout import (
    COMPILE,
    PARALLEL,
    PROCESSES,
    launched,
    parse_layout,
    processes_asked,
)
from epigone.training.track import TRACK, trackers_asked

Processes = Annotated[
    int | None,
    typer.Option(
        "--processes",
        envvar=PROCESSES,
        min=1,
        help="Processes of one training run; one for each GPU unless given.",
    ),
]
Parallel = Annotated[
    str | None,
    typer.Option(
        "--parallel",
        envvar=PARALLEL,
        help="What they split, as shard=2,tensor=2: replicate, shard, tensor.",
    ),
]
Track = Annotated[
    str | None,
    typer.Option(
        "--track",
        envvar=TRACK,
        help="Send each step's metrics to tensorboard, wandb or mlflow; several with commas.",
    ),
]
Compile = Annotated[
    bool,
    typer.Option("--compile", envvar=COMPILE, help="Compile the layers with torch."),
]


def choose(processes: int | None, parallel: str | None, track: str | None, compiled: bool) -> None:
    """Set the environment of all training from here on.

    Raises UserError for a layout that cannot be and for trackers that are not there.
    """
    size = launched()[1]
    if size > 1 and processes not in (None, size):
        raise UserError(
            f"a launcher has started {size} processes, asked for are",
            value=processes,
            fix="leave --processes to the launcher",
        )
    given = {
        PROCESSES: str(processes or ""),
        PARALLEL: parallel or "",
        TRACK: track or "",
        COMPILE: "1" if compiled else "",
    }
    for name, value in given.items():
        os.environ.pop(name, None)
        if value:
            os.environ[name] = value
    trackers_asked()
    if parallel:
        parse_layout(parallel, processes_asked() or _gpus() or 1)


def follow(*options: Any) -> bool:
    """Do the part of a launcher's process that is not the first; False in one that is.

    It says nothing of options that cannot be: the first process does.
    """
    rank, _ = launched()
    if rank == 0:
        return False
    try:
        choose(*options)
    except UserError:
        raise typer.Exit(2) from None
    from epigone.training.launch import follow as learn

    learn()
    return True


def dismiss() -> None:
    """Let a launcher's other processes end where there was nothing to train."""
    if launched()[1] > 1:
        from epigone.training.launch import dismiss as end

        end()


def refuse_launcher() -> None:
    """Raise UserError where a launcher has started several of a verb that is one process."""
    size = launched()[1]
    if size > 1:
        raise UserError(
            "a study is run by one process, a launcher has started",
            value=size,
            fix="epigone run --processes N starts what training needs",
        )


def _gpus() -> int:
    # Only where there may be one is torch worth its seconds.
    if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd")):
        return 0
    import torch

    return torch.cuda.device_count()
