"""Which entries of the cache are in use: nobody clears those, and all can see when that was."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from epigone.files import cache_root

_held: dict[Path, int] = {}


def use(folder: Path) -> None:
    """Keep a folder of the cache from being cleared until this process ends, and note the time.

    Say so before looking whether it is there: this waits while somebody clears it.
    """
    lock = lock_of(folder)
    # A cache that cannot be written to is cleared by nobody who could be told.
    with suppress(OSError):
        if lock not in _held:
            lock.parent.mkdir(parents=True, exist_ok=True)
            # Open until the process ends, and its forks: a step's model is read when it likes.
            held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(held, fcntl.LOCK_SH)
            _held[lock] = held
        # Of the folder, whose files nobody changes: reading alone leaves no trace on many disks.
        os.utime(folder)


def lock_of(folder: Path) -> Path:
    """The lock that those share who use a folder of the cache."""
    return cache_root() / "locks" / f"{'-'.join(folder.relative_to(cache_root()).parts)}.used"


@contextmanager
def alone(*locks: Path) -> Iterator[bool]:
    """Hold locks that nobody else holds, for the block; False where somebody does."""
    with _closed() as opened:
        for lock in locks:
            lock.parent.mkdir(parents=True, exist_ok=True)
            opened.append(os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
            try:
                fcntl.flock(opened[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
        yield True


@contextmanager
def _closed() -> Iterator[list[int]]:
    opened: list[int] = []
    try:
        yield opened
    finally:
        for descriptor in opened:
            os.close(descriptor)
