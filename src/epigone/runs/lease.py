"""Who works on a study: one process at a time."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from epigone.errors import HeldElsewhere

_UNKNOWN = {"host": "unknown", "pid": "unknown", "since": "just now"}
_TRIES, _PAUSE = 20, 0.05


@contextmanager
def hold(root: Path) -> Iterator[None]:
    """Hold a study's folder while the block runs.

    The lock is the kernel's and ends with the process however it dies, so a lease left by a dead
    process is taken over at once. Raises HeldElsewhere with host, pid and time of the holder.
    """
    root.mkdir(parents=True, exist_ok=True)
    with open(root / "lease.json", "a+", encoding="utf-8") as f:
        _lock(f, root)
        f.seek(0)
        f.truncate()
        json.dump({"host": socket.gethostname(), "pid": os.getpid(), "since": _now()}, f)
        f.flush()
        try:
            yield
        finally:
            f.seek(0)
            f.truncate()


def holder(root: Path) -> dict[str, str] | None:
    """The living holder of a study's lease, None where nobody holds it."""
    try:
        with open(root / "lease.json", encoding="utf-8") as f:
            try:
                fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = f.read()
            else:
                return None
    except OSError:
        return None
    try:
        row = json.loads(text)
        return {k: str(row[k]) for k in ("host", "pid", "since")}
    except (ValueError, KeyError, TypeError):
        return dict(_UNKNOWN)


def _lock(f: IO[str], root: Path) -> None:
    # `holder` locks the file too, for the moment of its look, and a run that begins has locked it
    # before it has written its name: only a holder with a name is one, or one that stays.
    who = _UNKNOWN
    for left in reversed(range(_TRIES)):
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            who = holder(root) or _UNKNOWN
        if who != _UNKNOWN:
            break
        if left:
            time.sleep(_PAUSE)
    raise HeldElsewhere(
        "another process works on this study",
        value=f"host {who['host']}, pid {who['pid']}, since {who['since']}",
        fix="wait for it, or look with 'epigone status'",
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
