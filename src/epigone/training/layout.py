"""How a run is done, as the environment says; read without importing torch."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from epigone.errors import UserError

# replicas hold whole models and split the data, shards split both, slices split every matrix.
AXES = ("replicate", "shard", "tensor")
PARALLEL = "EPIGONE_PARALLEL"
PROCESSES = "EPIGONE_PROCESSES"
COMPILE = "EPIGONE_COMPILE"


@dataclass(frozen=True, slots=True)
class Layout:
    """How many processes stand on each axis of the mesh; their product is the world's size."""

    replicate: int = 1
    shard: int = 1
    tensor: int = 1

    @property
    def processes(self) -> int:
        """Number of processes."""
        return self.replicate * self.shard * self.tensor

    @property
    def data(self) -> int:
        """Number of different micro-batches that are worked on at once."""
        return self.replicate * self.shard

    def __str__(self) -> str:
        return ",".join(f"{axis}={getattr(self, axis)}" for axis in AXES)


def parse_layout(text: str, processes: int) -> Layout:
    """The layout that "shard=2,tensor=2" means for a number of processes.

    The axis that is not named (shard first) takes what is left. Raises UserError for other axes
    and for sizes that do not multiply to the number of processes.
    """
    given: dict[str, int] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        axis, _, size = part.partition("=")
        if axis not in AXES or not size.isdecimal() or int(size) < 1 or axis in given:
            raise UserError(
                "no such layout", value=text, fix="as shard=4,tensor=2, of " + ", ".join(AXES)
            )
        given[axis] = int(size)
    left, over = divmod(processes, math.prod(given.values()))
    free = next((axis for axis in ("shard", "replicate", "tensor") if axis not in given), None)
    if over or (free is None and left != 1):
        raise UserError(
            f"the layout does not multiply to {processes} processes",
            value=text,
            fix="change --processes or --parallel",
        )
    return Layout(**given) if free is None else Layout(**{**given, free: left})


def launched() -> tuple[int, int]:
    """Rank and number of the processes that torchrun or `accelerate launch` has started: or 0, 1.

    Raises UserError where the environment's numbers are none.
    """
    rank, size = _whole("RANK", 0), _whole("WORLD_SIZE", 1)
    return (rank, size) if size > 1 else (0, 1)


def processes_asked() -> int | None:
    """How many processes a launcher has started, or $EPIGONE_PROCESSES asks for; None: neither."""
    _, size = launched()
    return size if size > 1 else _whole(PROCESSES, 0) or None


def _whole(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "").strip() or str(otherwise)
    if not text.isdecimal():
        raise UserError(f"${name} is no whole number", value=text)
    return int(text)
