"""Checkpoints in a folder of their own: numbered, the newest whole one counts."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

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
    number = max((_number(p) for p in _all(folder)), default=0) + 1
    aside = folder / f".{number}.new"
    folder.mkdir(parents=True, exist_ok=True)
    for torn in folder.glob(".*"):
        shutil.rmtree(torn)
    aside.mkdir()
    save_file({k: t.detach().contiguous() for k, t in tensors.items()}, aside / "state.safetensors")
    (aside / "position.json").write_text(json.dumps(asdict(position)))
    for file in aside.iterdir():
        fd = os.open(file, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    # The rename is what makes it count; only then may the one before go, and it goes by a rename
    # first, so that a half deleted one is never taken for whole.
    aside.rename(folder / str(number))
    fsync_dir(folder)
    for older in _all(folder):
        if _number(older) < number:
            dead = older.rename(folder / f".{older.name}.old")
            shutil.rmtree(dead)


class Saver:
    """Writes checkpoints of `tensors` in a thread, beside work that only reads them.

    `wait()` must stand before every change of the tensors; what went wrong in writing is raised
    there.
    """

    def __init__(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Save into `folder`, as `save` does."""
        self._folder, self._tensors = folder, tensors
        self._pool = ThreadPoolExecutor(1)
        self._saving: Future[None] | None = None

    def begin(self, position: Position) -> None:
        """Start to write the tensors as they are now; ends the one before first."""
        self.wait()
        self._saving = self._pool.submit(save, self._folder, self._tensors, position)

    def wait(self) -> None:
        """Return when the last checkpoint stands on the disk."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        """End the last checkpoint; another error than its own is not hidden by it."""
        self._pool.shutdown(wait=True)
        if kind is None:
            self.wait()


def restore(folder: Path, tensors: Mapping[str, Tensor]) -> Position | None:
    """Copy the newest checkpoint into `tensors` in place; None where there is none."""
    newest = max(_all(folder), key=_number, default=None)
    if newest is None:
        return None
    with safe_open(newest / "state.safetensors", framework="pt") as f:
        for name, tensor in tensors.items():
            tensor.data.copy_(f.get_tensor(name))
    row = json.loads((newest / "position.json").read_text())
    return Position(row["step"], tuple(row["log"]))


def _all(folder: Path) -> list[Path]:
    return [p for p in folder.glob("*") if p.name.isdigit()]


def _number(path: Path) -> int:
    return int(path.name)
