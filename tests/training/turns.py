"""Three processes that take turns, and that share the work of preparing conversations.

Each process exits with 0 where everything was as it should be.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from epigone.errors import ModelError, UserError
from epigone.training import checkpoint, data, memory
from epigone.training.blocks import BlockStats, Piece
from epigone.training.layout import Layout
from epigone.training.parallel import World, join

PROCESSES = 3


def inside_with(world: World, folder: Path, free: float, expected: int) -> int:
    """How many processes were inside while this one was, itself among them."""
    memory.host = lambda: free
    entered, left = folder / f"{free}-in", folder / f"{free}-out"
    for marks in (entered, left):
        marks.mkdir(exist_ok=True)
    own = str(world.place[0])
    seen: set[str] = set()
    with world.in_turn(10.0):
        before = set(os.listdir(left))
        (entered / own).touch()
        latest = time.monotonic() + 60
        while len(seen) < expected and time.monotonic() < latest:
            seen = set(os.listdir(entered)) - before
        # For one that should not be here.
        time.sleep(0.2)
        seen = set(os.listdir(entered)) - before
        (left / own).touch()
    return len(seen)


def shared(world: World, refused: int) -> list[list[Piece]]:
    """Ten pieces, each made in one process; the one of a number is refused."""

    def make(number: Any, own: BlockStats) -> list[Piece]:
        if number == refused:
            raise ModelError("refused", value=number)
        own.conversations += 1
        return [Piece([number], [1])]

    stats = BlockStats()
    numbers: Any = range(10)
    found = data._spread(numbers, make, world, stats, lambda _: None)
    assert stats.conversations == 10
    return found


def own_folder(world: World, folder: Path) -> None:
    """An output folder that is another one in one of the processes."""
    place, _ = world.place
    shared, own = folder / "shared", folder / ("last" if place == 2 else "shared")
    for out in (shared, folder / "last"):
        out.mkdir(exist_ok=True)
    checkpoint.refuse_unshared(shared, world)
    checkpoint.SEEN_WITHIN = 0.0
    with pytest.raises(UserError, match="not every process sees the output folder"):
        checkpoint.refuse_unshared(own, world)
    world.barrier()
    assert list(folder.glob("*/.seen")) == []


def work(folder: Path) -> None:
    world = join(Layout(replicate=PROCESSES))
    own_folder(world, folder)
    for free, expected in ((15.0, (1, 1, 1)), (35.0, (2, 2, 1)), (1000.0, (3, 3, 3))):
        own = expected[world.place[0]]
        assert inside_with(world, folder, free, own) == own
    assert shared(world, -1) == [[Piece([n], [1])] for n in range(10)]
    with pytest.raises(ModelError, match="refused: 4"):
        shared(world, 4)


def take(folder: Path) -> None:
    """Start them, with an empty folder; call it in a process that ends thereafter."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sizes = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(PROCESSES))
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **sizes}
    children = []
    for rank in range(PROCESSES):
        if not (child := os.fork()):
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            work(folder)
            os._exit(0)
        children.append(child)
    ends = [os.waitpid(child, 0)[1] for child in children]
    if any(ends):
        sys.exit("a process failed")
