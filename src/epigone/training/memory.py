"""Memory of a process, its device and its machine, in bytes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import torch

from epigone import processes


def held(device: torch.device) -> float:
    """What this process holds: on the GPU, or of the machine's memory."""
    if device.type == "cuda":
        return float(torch.cuda.memory_allocated(device))
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return float(pages * os.sysconf("SC_PAGE_SIZE"))
    return 0.0


def free(device: torch.device) -> float:
    """What this process may still take: on its GPU, or its share of the machine's memory."""
    if device.type == "cuda":
        # What PyTorch keeps for later looks taken to the driver.
        torch.cuda.empty_cache()
        return float(torch.cuda.mem_get_info(device)[0])
    return host() / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def host() -> float:
    """What all processes of this machine, or of this container, may still take together."""
    there = float("inf")
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        there = 1024.0 * next(int(x.split()[1]) for x in lines if x.startswith("MemAvailable"))
    return min(there, processes.memory().free)
