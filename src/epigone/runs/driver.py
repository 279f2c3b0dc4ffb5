"""Who runs a study whose steps lie at a URL: one process at a time, of all machines.

A lease is an object that is created under the next number; who lives writes a new number of beats
into it. As for leases in a folder, no clock is compared with another.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from epigone.errors import HeldElsewhere
from epigone.files import write_text
from epigone.formats import LEASE
from epigone.runs.lease import BEAT_SECONDS, DEAD_SECONDS, Holder
from epigone.runs.objects import Objects, StoreError

FOLDER = "driver"
_LEASE = re.compile(rf"{FOLDER}/([0-9]{{6}})\.json")
_LOOK_SECONDS, _ALSO_SECONDS = 2.0, 60.0
# In a mirror: the runner that works elsewhere.
_THEIRS = "at-url"


class Driver:
    """This process as the one that runs the study at a URL."""

    def __init__(
        self,
        objects: Objects,
        lock: Path,
        also: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take nothing yet; `lock` is a file of this machine, `also` is done every minute."""
        self._objects, self._lock_file, self._also = objects, lock, also
        self._clock, self._pause = clock, pause
        self._holder = Holder(
            id=uuid.uuid4().hex[:12],
            host=socket.gethostname(),
            pid=str(os.getpid()),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self.number = 0
        # Names of the steps that are worked on, for others to see.
        self.steps: set[str] = set()
        self._lock = -1
        self._beats = 0
        self._lost = ""
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        """Have the study, once nobody else has it; raises HeldElsewhere while somebody has."""
        self._lock_file.parent.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self._lock_file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._take()
        except BaseException:
            os.close(self._lock)
            raise
        for seconds, do in ((BEAT_SECONDS, self.beat), (_ALSO_SECONDS, self._also)):
            threading.Thread(target=self._go_on, args=(seconds, do), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        """Let the study go."""
        self._ended.set()
        try:
            with suppress(StoreError):
                if not self._lost and newest(self._objects)[0] == self.number:
                    self._objects.write(_name(self.number), b"{}")
        finally:
            os.close(self._lock)

    def check(self) -> None:
        """Raise HeldElsewhere where another one has taken the study over, as far as is known."""
        if self._lost:
            raise _held(self._lost)

    def check_now(self) -> None:
        """Look whether another one has taken the study over; raises HeldElsewhere."""
        number, told = newest(self._objects)
        if number > self.number or (number == self.number and told.get("id") != self._holder.id):
            self._lost = _shown(told)
        self.check()

    def beat(self) -> None:
        """Show that this process lives; raises HeldElsewhere where another one took over."""
        self.check_now()
        self._beats += 1
        self._objects.write(_name(self.number), self._told())

    def _go_on(self, seconds: float, do: Callable[[], None]) -> None:
        while not self._ended.wait(seconds):
            with suppress(StoreError, HeldElsewhere):  # what is away for a while may come back
                do()

    def _take(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _held(_shown(newest(self._objects)[1])) from None
        except OSError:  # a file system without locks: who had this file may live
            dead = ""
        else:
            # Who had it and has it no longer is dead, which nobody else can know so soon.
            dead = os.pread(self._lock, 64, 0).decode(errors="replace")
        first: tuple[int, dict[str, Any]] | None = None
        since = self._clock()
        while True:
            found = newest(self._objects)
            holder = found[1].get("id")
            late = self._clock() - since >= DEAD_SECONDS
            if not holder or holder == dead or (late and found == first):
                if self._create(found[0] + 1):
                    return
                continue
            if first is not None and found != first:
                raise _held(_shown(found[1]))
            first = found
            self._pause(_LOOK_SECONDS)

    def _create(self, number: int) -> bool:
        if not self._objects.create(_name(number), self._told()):
            return False
        self.number = number
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, self._holder.id.encode(), 0)
        self.check_now()
        old = [name for name in self._objects.find(FOLDER) if name < _name(number)]
        self._objects.remove(old)
        return True

    def _told(self) -> bytes:
        names = ("id", "host", "pid", "since")
        told = {n: getattr(self._holder, n) for n in names}
        told |= {"steps": sorted(self.steps), "beat": self._beats}
        return json.dumps(LEASE.mark(told)).encode()


def newest(objects: Objects) -> tuple[int, dict[str, Any]]:
    """The number of the newest lease, 0 where there is none, and what it says.

    Raises NewerFormat for one of a newer Epigone.
    """
    numbers = [int(m[1]) for name in objects.find(FOLDER) if (m := _LEASE.fullmatch(name))]
    if not numbers:
        return 0, {}
    name = _name(max(numbers))
    told = objects.read(name, lambda data: _object(data, f"{objects}/{name}"))
    return max(numbers), told or {}


def tell(objects: Objects, root: Path, lock: Path) -> None:
    """Have who runs a study at its URL known to `epigone status` here, as runners in folders are.

    Where that is a process of this machine, which has `lock`, its own files tell.
    """
    leases = root / "leases"
    for file in leases.glob("*/*/000001"):
        if file.read_text(encoding="utf-8") == _THEIRS:
            shutil.rmtree(file.parent, ignore_errors=True)
    (leases / "runners" / f"{_THEIRS}.json").unlink(missing_ok=True)
    _, told = newest(objects)
    if not told.get("id") or _locked(lock):
        return
    row = {n: str(told.get(n, ""))[:80] for n in ("host", "pid", "since")}
    row |= {"id": _THEIRS, "boot": "", "study": ""}
    write_text(leases / "runners" / f"{_THEIRS}.json", json.dumps(LEASE.mark(row)))
    for step in told.get("steps") or ():
        if re.fullmatch(r"[a-z_]+/[^/]+-[0-9a-f]{8}", str(step)):
            write_text(leases / step / "000001", _THEIRS)


def _locked(lock: Path) -> bool:
    with suppress(FileNotFoundError), open(lock, "rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # held, or a file system without locks: it may be this very process
            return True
    return False


def _name(number: int) -> str:
    return f"{FOLDER}/{number:06d}.json"


def _object(data: bytes, file: str) -> dict[str, Any]:
    told = json.loads(data)
    if not isinstance(told, dict):
        raise ValueError("no JSON object")
    LEASE.of(told, file)
    return told


def _held(who: str) -> HeldElsewhere:
    return HeldElsewhere(
        "another process runs the study at this URL", value=who,
        fix="wait for its end; one that died is taken over from two and a half minutes later",
    )  # fmt: skip


def _shown(told: dict[str, Any]) -> str:
    names = {n: str(told.get(n, "unknown"))[:80] for n in ("host", "pid", "since")}
    return str(Holder(id="", **names))
