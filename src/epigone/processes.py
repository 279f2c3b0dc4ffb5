"""What processes that work for another one have in common."""

from __future__ import annotations

import ctypes
import os
import signal
import sys


def cores() -> int:
    """How many cores this process may use; all of the machine's where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def die_with_parent() -> None:
    """End this process when its parent ends, however that ends.

    One that outlives its parent keeps the parent's locks, and a new attempt waits for ever.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() == 1:
        os._exit(1)
