"""What processes that work for another one have in common."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import sys


def cores() -> int:
    """How many cores this process may use; all of the machine's where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), _quota())
    return os.cpu_count() or 1


def _quota() -> int:
    """Cores' worth of time that a container may use, by cgroup v2; a large number without a limit.

    More threads than that would be stopped again and again in the middle of their work.
    """
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as f:
            most, period = f.read().split()
        return max(1, math.ceil(int(most) / int(period)))
    except (OSError, ValueError):
        return 1 << 20


def die_with_parent() -> None:
    """End this process when its parent ends, however that ends.

    One that outlives its parent keeps the parent's locks, and a new attempt waits for ever.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() == 1:
        os._exit(1)
