"""Who works on which step: runners share a study's folder, from one machine or many.

A lease is a file that only its creator can make, numbered by generation; a runner that lives keeps
touching a file of its own. No clock is compared with another: a runner on another machine counts as
dead when its file has not changed for a while by the watcher's own monotonic clock.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from epigone.errors import HeldElsewhere
from epigone.files import read_json
from epigone.formats import LEASE

_LOG = logging.getLogger(__name__)

FOLDER = "leases"
_RUNNERS = "runners"
_FREE = "free"
# A network file system may show a change a minute late.
BEAT_SECONDS, DEAD_SECONDS = 10.0, 150.0
_SILENT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Holder:
    """A runner, as its file tells of it; `since` is by its own machine's clock."""

    id: str
    host: str = "unknown"
    pid: str = "unknown"
    since: str = "unknown"
    boot: str = ""
    study: str = ""

    def __str__(self) -> str:
        return f"host {self.host}, pid {self.pid}, since {self.since}"


@dataclass(frozen=True, slots=True)
class _Seen:
    """A runner's beat, since when it is the same, and whether it ever changed."""

    beat: int
    since: float
    moved: bool = False


class Watch:
    """Which runners of a folder live, as far as this process can tell by looking repeatedly."""

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Watch the study in `root`; `clock` gives seconds that only grow."""
        self.folder = root / FOLDER
        self._clock = clock
        self._seen: dict[str, _Seen] = {}

    def holder(self, step: str) -> str:
        """The runner of a step's lease as it stands, living or dead; "" where it is free."""
        return self._latest(step)[1]

    def lives(self, runner: str) -> bool:
        """Whether a runner has to be taken for living."""
        file = self._runner(runner)
        held = _held(file)
        if held is not None and (held or told(file).boot == _boot()):
            return held
        # Another machine's, whose locks may not be seen here: does it go on?
        try:
            beat = file.stat().st_mtime_ns
        except OSError:
            beat = -1
        now = self._clock()
        seen = self._seen.setdefault(runner, _Seen(beat, now))
        if beat != seen.beat:
            self._seen[runner] = _Seen(beat, now, moved=True)
            return True
        return now - seen.since < DEAD_SECONDS

    def _beats(self, runner: str) -> bool:
        """Whether a runner's file was seen to change."""
        return runner in self._seen and self._seen[runner].moved

    def _runner(self, id: str) -> Path:
        return self.folder / _RUNNERS / f"{id}.json"

    def silent(self, runner: str) -> bool:
        """Whether nothing was heard of a runner for an hour: to tell people, not to take its steps.

        Two machines' clocks are compared, which may differ by minutes.
        """
        file = self._runner(runner)
        try:
            return not _held(file) and time.time() - file.stat().st_mtime > _SILENT_SECONDS
        except OSError:
            return True

    def runners(self) -> list[Holder]:
        """All runners that seem to live."""
        try:
            files = sorted((self.folder / _RUNNERS).glob("*.json"))
        except OSError:
            return []
        return [told(f) for f in files if self.lives(f.stem)]

    def holders(self) -> dict[str, str]:
        """The runner of each lease that is not free, by step: one look at all folders."""
        found: dict[str, str] = {}
        for stage in _entries(self.folder):
            if stage.name == _RUNNERS:
                continue
            for step in _entries(Path(stage.path)):
                name = f"{stage.name}/{step.name}"
                if runner := self._latest(name)[1]:
                    found[name] = runner
        return found

    def _latest(self, step: str) -> tuple[int, str]:
        entries = _entries(self.folder / step)
        newest = max((int(e.name) for e in entries if e.name.isdecimal()), default=0)
        if not newest:
            return 0, ""
        try:
            runner = (self.folder / step / f"{newest:06d}").read_text(encoding="utf-8").strip()
        except OSError:
            runner = ""
        # A lease without a name is one that is being made, or whose maker died over it.
        return newest, "" if runner == _FREE else runner or f"nobody:{step}:{newest}"


class Runner(Watch):
    """This process as one that takes steps; its leases end with it, however it dies."""

    def __init__(
        self,
        root: Path,
        study: str,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take part in the study in `root`, of which `study` tells what it asks for.

        Raises HeldElsewhere where a living runner works in the folder on another study.
        """
        super().__init__(root, clock)
        self._pause = pause
        self._own = Holder(
            id=f"{uuid.uuid4().hex[:12]}",
            host=socket.gethostname(),
            pid=str(os.getpid()),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            boot=_boot(),
            study=study,
        )
        self.id = self._own.id
        self._file = self._runner(self.id)
        self._leases: dict[str, int] = {}
        self._ended = threading.Event()
        self._lock = -1

    def __enter__(self) -> Self:
        """Make this runner known and keep it so."""
        self._clear()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        # Locked before anybody can see it: without a lock it would be a dead runner's.
        aside = self._file.with_suffix(".tmp")
        self._lock = os.open(aside, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            with suppress(OSError):  # a file system without locks: the beats have to do
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            os.write(self._lock, json.dumps(LEASE.mark(asdict(self._own))).encode())
            aside.rename(self._file)
            self._alone_with_its_study()
        except BaseException:
            aside.unlink(missing_ok=True)
            self.__exit__(None, None, None)
            raise
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        """Let everything go."""
        self._ended.set()
        for step in [*self._leases]:
            self.free(step)
        self._clear()
        with suppress(OSError):
            self._file.unlink()
        with suppress(OSError):
            os.close(self._lock)

    def take(self, step: str) -> bool:
        """Take a step's lease; False where a living runner has it."""
        newest, runner = self._latest(step)
        if runner and (runner == self.id or self.lives(runner)):
            return False
        if not self._create(step, newest + 1):
            return False
        self._leases[step] = newest + 1
        return True

    def free(self, step: str) -> None:
        """Let a step go; what was taken over by another runner stays theirs."""
        generation = self._leases.pop(step, None)
        if generation is not None and ours(file := self._lease(step, generation)):
            with suppress(OSError):
                file.write_text(_FREE, encoding="utf-8")

    def done(self, step: str) -> None:
        """Let a finished step go: whoever takes it from now on finds its record."""
        if self._leases.pop(step, None) is not None:
            shutil.rmtree(self.folder / step, ignore_errors=True)

    def lease(self, step: str) -> Path:
        """The file of the lease that this runner has of a step."""
        return self._lease(step, self._leases[step])

    def lost(self) -> list[str]:
        """Steps that another runner took over because this one seemed to be dead."""
        return [s for s, own in self._leases.items() if not ours(self._lease(s, own))]

    def lives(self, runner: str) -> bool:
        """Whether a runner has to be taken for living; this one does."""
        return runner == self.id or super().lives(runner)

    def _alone_with_its_study(self) -> None:
        # Two that begin at once see each other here, whichever was first.
        waits = False
        while others := [
            h for h in self.runners() if h.id != self.id and h.study != self._own.study
        ]:
            # One that another machine left behind shows by its silence that it is dead.
            if any(_held(self._runner(h.id)) or self._beats(h.id) for h in others):
                raise HeldElsewhere(
                    "another process works on this study as another file declares it",
                    value=str(others[0]),
                    fix="wait for it, or name another --runs folder",
                )
            if not waits:
                waits = True
                _LOG.warning("waiting %.0f s to see whether %s lives", DEAD_SECONDS, others[0])
            self._pause(1.0)
        self._clear()

    def _lease(self, step: str, generation: int) -> Path:
        return self.folder / step / f"{generation:06d}"

    def _create(self, step: str, generation: int) -> bool:
        file = self._lease(step, generation)
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except (FileExistsError, FileNotFoundError):
            return False  # another runner was faster, or is done with the step already
        try:
            os.write(descriptor, self.id.encode())
        finally:
            os.close(descriptor)
        return True

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            # A disk that is away for a while: the next beat may come through.
            with suppress(OSError):
                os.utime(self._file)

    def _clear(self) -> None:
        """Delete what runners left that are known to be dead."""
        # By its file one is known to be dead at once, and not after a time of silence.
        needed = {self.id, *self.holders().values()}
        for entry in _entries(self.folder / _RUNNERS):
            file = Path(entry.path)
            if file.suffix == ".json" and file.stem not in needed and not self.lives(file.stem):
                with suppress(OSError):
                    file.unlink()


def ours(lease: Path) -> bool:
    """Whether a lease is still the newest of its step: nobody has taken the step over."""
    try:
        names = os.listdir(lease.parent)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # a disk that is away for a while says nothing of the lease
    found = {int(name) for name in names if name.isdecimal()}
    return bool(found) and max(found) == int(lease.name)


def told(file: Path) -> Holder:
    """What a runner's file says; raises NewerFormat for one of a newer Epigone."""
    try:
        row: Mapping[str, Any] = read_json(file)
        LEASE.of(row, file)
        return Holder(**{n: str(row[n]) for n in Holder.__slots__})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Holder(id=file.stem)


def _held(file: Path) -> bool | None:
    """Whether a process holds a runner's file, as far as locks are seen; None: there is no file."""
    try:
        with open(file, "rb") as f:
            fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return None
    except OSError:
        return None  # no locks here
    return False


def _boot() -> str:
    """A name of this machine since it was started, as far as the system tells one."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
            return f.read().strip()
    except OSError:
        return socket.gethostname()


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            yield from sorted(found, key=lambda e: e.name)
    except OSError:
        return
