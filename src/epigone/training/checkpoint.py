"""Checkpoints in a folder of their own: numbered, checked, the newest whole one counts."""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
import zlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver

from epigone.errors import UserError
from epigone.files import fsync_dir
from epigone.training.parallel import World

# As many are kept, so that a damaged one has another before it.
KEPT = 2
_POSITION = "position.json"
# A network's folder may show others an older state for so many seconds.
SEEN_WITHIN = 60.0

warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")


@dataclass(frozen=True, slots=True)
class Position:
    """How far a run has come: updates of its programme done, and the log of every one of them.

    `settings` are choices that were made when it began and that have to stay.
    """

    update: int
    log: tuple[dict[str, Any], ...]
    settings: Mapping[str, Any]


def save(
    folder: Path, tensors: Mapping[str, Tensor], position: Position, world: World | None = None
) -> None:
    """Add a checkpoint; a kill at any moment leaves those before it, and this one whole or not.

    In a run of several processes, all call it, and each writes what it holds.
    """
    world = world or World()
    # As the first process sees it: a network's folder may show others an older state.
    number = world.told(max((int(p.name) for p in _all(folder)), default=0)) + 1
    aside = folder / f".{number}.new"
    if world.leads:
        folder.mkdir(parents=True, exist_ok=True)
        for torn in folder.glob(".*"):
            shutil.rmtree(torn)
        aside.mkdir()
    world.barrier()
    state_dict_saver.save(
        {k: t.detach() for k, t in tensors.items()}, checkpoint_id=aside, no_dist=world.alone
    )
    world.barrier()
    if world.leads:
        sums = {p.name: _checksum(p) for p in sorted(aside.iterdir())}
        (aside / _POSITION).write_text(json.dumps({"sums": sums, **asdict(position)}))
        for file in aside.iterdir():
            fd = os.open(file, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
        # The rename is what makes it count; only then may an older one go, and it goes by a rename
        # first, so that a half deleted one is never taken for whole.
        aside.rename(folder / str(number))
        fsync_dir(folder)
        for older in _all(folder)[:-KEPT]:
            dead = older.rename(folder / f".{older.name}.old")
            shutil.rmtree(dead)
    world.barrier()


def restore(
    folder: Path, tensors: Mapping[str, Tensor], world: World | None = None
) -> Position | None:
    """Copy the newest whole checkpoint into `tensors` in place; None where there is none.

    It may have been written by another number of processes. Damaged ones are put out of the way.
    """
    world = world or World()
    for newest in reversed(world.told(_all(folder))):
        # One process reads all of it for the checksums, and all believe it.
        if world.most(float(world.leads and _is_whole(newest))):
            state = {k: t.detach() for k, t in tensors.items()}
            state_dict_loader.load(state, checkpoint_id=newest, no_dist=world.alone)
            row = json.loads((newest / _POSITION).read_text())
            return Position(row["update"], tuple(row["log"]), row["settings"])
        if world.leads:
            newest.rename(folder / f".{newest.name}.damaged")
        world.barrier()
    return None


def refuse_unshared(folder: Path, world: World) -> None:
    """Raise UserError, in all processes, where not every one of them sees an output folder."""
    if world.alone:
        return
    marker = folder / ".seen"
    if world.leads:
        marker.touch()
    world.barrier()
    latest = time.monotonic() + SEEN_WITHIN
    while not (seen := marker.exists()) and time.monotonic() < latest:
        time.sleep(1)
    everywhere = all(world.gather(seen))
    if world.leads:
        marker.unlink()
    if not everywhere:
        raise UserError(
            "not every process sees the output folder",
            value=str(folder),
            fix="put it on a file system that all machines share",
        )


def drop(folder: Path, world: World) -> None:
    """Delete a folder of checkpoints."""
    world.barrier()
    if world.leads:
        shutil.rmtree(folder, ignore_errors=True)
    world.barrier()


class Saver:
    """Writes checkpoints of `tensors` in a thread, beside work that only reads them.

    `wait()` must stand before every change of the tensors; what went wrong in writing is raised
    there. Several processes write at once and wait for each other instead.
    """

    def __init__(
        self, folder: Path, tensors: Mapping[str, Tensor], world: World | None = None
    ) -> None:
        """Save into `folder`, as `save` does."""
        self._folder, self._tensors = folder, tensors
        self._world = world or World()
        self._pool = ThreadPoolExecutor(1)
        self._saving: Future[None] | None = None

    def begin(self, position: Position) -> None:
        """Start to write the tensors as they are now; ends the one before first."""
        self.wait()
        arguments = (self._folder, self._tensors, position, self._world)
        if self._world.alone:
            self._saving = self._pool.submit(save, *arguments)
        else:
            save(*arguments)

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


def _is_whole(checkpoint: Path) -> bool:
    try:
        sums = json.loads((checkpoint / _POSITION).read_text())["sums"]
        files = (p for p in checkpoint.iterdir() if p.name != _POSITION)
        return bool({p.name: _checksum(p) for p in files} == sums)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _checksum(file: Path) -> int:
    found = 0
    with open(file, "rb") as f:
        while block := f.read(1 << 24):
            found = zlib.crc32(block, found)
    return found


def _all(folder: Path) -> list[Path]:
    found = [p for p in folder.glob("*") if p.name.isdigit()]
    return sorted(found, key=lambda p: int(p.name))
