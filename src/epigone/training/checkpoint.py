"""Checkpoints inside a step's directory: the newest whole one, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from epigone.files import fsync_dir


@dataclass(frozen=True, slots=True)
class Position:
    """How far a trunk has come: optimiser steps done, and the log of every one of them."""

    step: int
    log: tuple[dict[str, Any], ...]


def save(folder: Path, tensors: Mapping[str, Tensor], position: Position) -> None:
    """Put a checkpoint in place of the last one; a kill at any moment leaves one of the two."""
    aside = folder.with_name(folder.name + ".new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    # One file, named only when whole: the rename below is what makes it count.
    save_file({k: t.detach().contiguous() for k, t in tensors.items()}, aside / "state.safetensors")
    (aside / "position.json").write_text(json.dumps(asdict(position)))
    for file in aside.iterdir():
        fd = os.open(file, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    fsync_dir(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def restore(folder: Path, tensors: Mapping[str, Tensor]) -> Position | None:
    """Copy the newest checkpoint into `tensors` in place; None where there is none."""
    old = folder.with_name(folder.name + ".old")
    if not folder.exists() and old.exists():
        # Killed between the two renames of `save`.
        old.rename(folder)
    if not folder.exists():
        return None
    with safe_open(folder / "state.safetensors", framework="pt") as f:
        for name, tensor in tensors.items():
            tensor.data.copy_(f.get_tensor(name))
    row = json.loads((folder / "position.json").read_text())
    return Position(row["step"], tuple(row["log"]))


def remove(folder: Path) -> None:
    """Delete every trace of checkpoints."""
    for name in (folder.name, folder.name + ".new", folder.name + ".old"):
        shutil.rmtree(folder.with_name(name), ignore_errors=True)
