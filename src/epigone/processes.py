"""What processes that work for another one have in common."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_ROOT = Path("/")
# Where there is no limit, the first version of control groups tells one of nearly 2^63 bytes.
_NO_LIMIT = 1 << 60


class Memory(NamedTuple):
    """Bytes of memory that this process's limits let it have in all, and that are still free."""

    all: float
    free: float


def cores() -> int:
    """How many cores this process may use; all of the machine's where the system does not say.

    More threads than that would be stopped again and again in the middle of their work.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    most = len(os.sched_getaffinity(0))
    for group in _groups("cpu"):
        told = _words(group / "cpu.max") or [
            *_words(group / "cpu.cfs_quota_us"),
            *_words(group / "cpu.cfs_period_us"),
        ]
        if len(told) == 2 and all(word.isdecimal() for word in told):  # else "max" or -1
            most = min(most, max(1, math.ceil(int(told[0]) / int(told[1]))))
    return most


def memory() -> Memory:
    """What containers, batch systems and services leave to this process; infinite without a limit.

    It is the least that any of its control groups has, which others may share with it.
    """
    found = Memory(math.inf, math.inf)
    for group in _groups("memory"):
        limit = _bytes(group, "memory.max", "memory.limit_in_bytes")
        if limit is None or limit >= _NO_LIMIT:
            continue
        used = _bytes(group, "memory.current", "memory.usage_in_bytes") or 0
        told = _words(group / "memory.stat")
        stat = dict(zip(told[::2], told[1::2], strict=False))
        # Pages of files that can be dropped are counted as used.
        cached = int(stat.get("total_inactive_file", stat.get("inactive_file", "0")))
        free = max(0, limit - used + cached)
        found = Memory(min(found.all, limit), min(found.free, free))
    return found


def _groups(controller: str) -> Iterator[Path]:
    """This process's control groups of a kind, of either version, from its own up to the first."""
    own: dict[str, str] = {}
    for line in _lines("proc/self/cgroup"):
        names, _, path = line.partition(":")[2].partition(":")
        own |= dict.fromkeys(names.split(","), path)
    for line in _lines("proc/self/mountinfo"):
        about, _, told = line.partition(" - ")
        kind, *_, options = told.split(" ")
        name = {"cgroup2": "", "cgroup": controller}.get(kind)
        if name not in own or (name and name not in options.split(",")):
            continue
        first, place = about.split(" ")[3:5]
        # What a container sees of the groups may begin at its own.
        below = os.path.relpath(own[name], first)
        folder = _ROOT / place.lstrip("/")
        group = folder if below.startswith("..") else folder / below
        yield group
        while group != folder:
            group = group.parent
            yield group


def _lines(file: str) -> list[str]:
    try:
        return (_ROOT / file).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return []


def _bytes(group: Path, *names: str) -> int | None:
    told = next((words[0] for name in names if (words := _words(group / name))), "max")
    return int(told) if told.isdecimal() else None


def die_with_parent() -> None:
    """End this process when its parent ends, however that ends.

    One that outlives its parent keeps the parent's locks, and a new attempt waits for ever.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() == 1 and not _first_is_ours():
        os._exit(1)


def _first_is_ours() -> bool:
    # In a container the first process may well be the one that started this one.
    try:
        return os.path.samefile("/proc/1/exe", "/proc/self/exe")
    except OSError:
        return False
