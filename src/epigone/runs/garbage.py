"""What no study of a folder refers to any more: found, and removed where that is asked."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Literal

from epigone.errors import HeldElsewhere, NewerFormat, UserError
from epigone.formats import LEDGER
from epigone.runs.lease import Runner, Watch
from epigone.runs.lock import FILES, NAME, STUDY, Lock, is_run, read_lock
from epigone.runs.store import RECORD
from epigone.runs.verify import LEDGERS
from epigone.study.file import read
from epigone.teachers.ledger import sound

PARTIAL, GONE, IMPORTING = ".partial", ".gone-", ".import-"
_ASIDE = re.compile(r"\..+\.\d+(-[0-9a-f]{8})?\.tmp")
# Whoever writes a file aside has it in its place long before.
_ABANDONED_SECONDS = 3600

What = Literal["step", "unfinished", "copy", "left-over", "ledger"]


@dataclass(frozen=True, slots=True)
class Garbage:
    """A file or folder that may go, by its path from the folder of studies."""

    what: What
    path: str
    bytes: int
    why: str


@dataclass(slots=True)
class Swept:
    """What may go in a folder of `studies`, and what was left alone, with the reason."""

    studies: int = 0
    found: list[Garbage] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """All of it together."""
        return sum(g.bytes for g in self.found)


def sweep(runs: Path, *, remove: bool = False, ledgers: bool = False) -> Swept:
    """Find what no study in `runs` refers to, and with `remove` delete it; or of one run's folder.

    A study that somebody works on is left alone, and so is one whose lock cannot be read. With
    `ledgers`, ledgers count too of which no study here asked anything. Ratings never do.
    """
    if not runs.is_dir():
        raise UserError("no such folder", value=str(runs), fix="name the folder of the studies")
    swept = Swept()
    one = is_run(runs)
    top = runs.resolve().parent if one else runs
    for root in [runs.resolve()] if one else studies(runs):
        swept.studies += 1
        _study(root, top, swept, remove=remove)
    if not one:
        _take(top, list(_loose(top, swept)), swept, remove=remove)
        if ledgers:
            _take(top, list(_ledgers(top, swept)), swept, remove=remove)
    return swept


def studies(runs: Path) -> list[Path]:
    """The folders of studies in a folder."""
    found = sorted(p for p in runs.iterdir() if p.is_dir() and not p.name.startswith("."))
    return [p for p in found if (p / NAME).exists() or (p / "steps").is_dir()]


def _study(root: Path, top: Path, swept: Swept, *, remove: bool) -> None:
    try:
        # Held, so that no run begins to use what is about to go.
        watch = Watch(root)
        if runners := [r for r in watch.runners() if not watch.silent(r.id)]:
            raise HeldElsewhere(f"somebody works on it: {runners[0]}")
        with Runner(root, "gc") if remove else nullcontext():
            lock = read_lock(root)
            if not lock.steps:
                absent = "no lock file tells which steps are its own (epigone run)"
                damaged = f"{NAME} is damaged (epigone verify)"
                swept.left[root.name] = damaged if lock.trouble else absent
                return
            _take(top, list(_unreferred(root, top, lock, swept)), swept, remove=remove)
    except (HeldElsewhere, NewerFormat) as error:
        swept.left[root.name] = str(error)


def _unreferred(root: Path, top: Path, lock: Lock, swept: Swept) -> Iterator[Garbage]:
    for stage in sorted(p for p in (root / "steps").glob("*") if p.is_dir()):
        for folder in sorted(stage.iterdir()):
            name = f"{stage.name}/{folder.name.removesuffix(PARTIAL)}"
            partial = folder.name.endswith(PARTIAL)
            if folder.name.startswith(GONE):
                yield _garbage("left-over", folder, top, "its removal was cut off")
            elif name not in lock.steps:
                what: What = "unfinished" if partial else "step"
                yield from _unless_held(
                    _garbage(what, folder, top, "no study refers to it"), top, swept
                )
            elif partial and (stage / folder.name.removesuffix(PARTIAL) / RECORD).is_file():
                found = _garbage("unfinished", folder, top, "the step is finished")
                yield from _unless_held(found, top, swept)
    known = {kept.path for kept in lock.files.values()}
    for folder in sorted((root / FILES).glob("*")):
        if not any(path.startswith(f"{FILES}/{folder.name}/") for path in known):
            yield _garbage("copy", folder, top, "no study refers to it")
    for place in (root, root / "report"):
        yield from _asides(place, top)


def _loose(top: Path, swept: Swept) -> Iterator[Garbage]:
    """What lies in the folder of studies itself."""
    for folder in sorted(top.glob(f"{IMPORTING}*")):
        found = _garbage("left-over", folder, top, "an import was cut off")
        yield from _unless_held(found, top, swept)
    for place in (top, top / LEDGERS):
        yield from _asides(place, top)


def _asides(place: Path, top: Path) -> Iterator[Garbage]:
    for file in sorted(place.glob(".*.tmp")):
        old = time.time() - file.lstat().st_mtime > _ABANDONED_SECONDS
        if old and _ASIDE.fullmatch(file.name):
            yield _garbage("left-over", file, top, "it was being written when its process ended")


def _ledgers(top: Path, swept: Swept) -> Iterator[Garbage]:
    names, nameless = _names(top)
    for file in sorted((top / LEDGERS).glob("*.jsonl")):
        place = file.relative_to(top).as_posix()
        if nameless:
            swept.left[place] = f"{nameless} does not tell which study it is (epigone verify)"
            continue
        try:
            asked, why = _asked(file)
        except (UserError, OSError) as error:
            swept.left[place] = str(error)
            continue
        if not asked & names:
            yield from _unless_held(_garbage("ledger", file, top, why), top, swept)


def _names(top: Path) -> tuple[set[str], str]:
    """What the studies of a folder may be called in ledgers, and a study that does not tell."""
    names: set[str] = set()
    for root in studies(top):
        # A folder may have been renamed since it was asked for what the ledgers hold.
        own: set[str] = set()
        with suppress(UserError, OSError):
            own.add(read_lock(root).study)
        with suppress(UserError, OSError):
            own.add(read(root / STUDY).name)
        if not own - {""}:
            return names, root.name
        names |= {root.name, *own}
    return names, ""


def _asked(file: Path) -> tuple[set[str], str]:
    """For what a ledger's requests were made, and what it holds.

    Raises UserError for one that cannot be read to its end, and so may hold answers to anybody.
    """
    asked: set[str] = set()
    answers, cost, damaged = 0, Decimal(0), 0
    for line in sound(file):
        try:
            row = json.loads(line or "")["row"]
            if row["kind"] == "format":
                LEDGER.of(row, file)
            elif row["kind"] == "sent":
                asked.add(str(row["for"]))
            elif row["kind"] == "came":
                answers, cost = answers + 1, cost + Decimal(row["cost"])
        except NewerFormat as error:
            raise UserError(error.what) from None
        except (ValueError, KeyError, TypeError, InvalidOperation):
            damaged += 1
    if damaged:
        lines = "1 line is damaged" if damaged == 1 else f"{damaged} lines are damaged"
        raise UserError(f"{lines} (epigone verify)")
    whom = ", ".join(sorted(asked)) or "nothing"
    return asked, f"{answers:,} answers for ${cost:.2f}, asked for {whom}"


def _unless_held(found: Garbage, top: Path, swept: Swept) -> Iterator[Garbage]:
    with _alone(top / found.path) as why:
        if not why:
            yield found
            return
    swept.left[found.path] = why


@contextmanager
def _alone(path: Path) -> Iterator[str]:
    """Have a file or folder locked, as who works in it has; why that cannot be, "" where it is."""
    if path.is_symlink():
        yield ""
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield "a process works in it"
        except OSError:
            yield "its file system has no locks, so a process may work in it"
        else:
            yield ""
    finally:
        os.close(descriptor)


def _garbage(what: What, path: Path, top: Path, why: str) -> Garbage:
    return Garbage(what, path.relative_to(top).as_posix(), size_of(path), why)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links are not followed."""
    total = path.lstat().st_size if not path.is_dir() or path.is_symlink() else 0
    for base, _, names in os.walk(path) if not path.is_symlink() else ():
        total += sum(os.lstat(os.path.join(base, name)).st_size for name in names)
    return total


def _take(top: Path, found: list[Garbage], swept: Swept, *, remove: bool) -> None:
    for garbage in found:
        if remove:
            _remove(top / garbage.path)
        swept.found.append(garbage)


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    # A folder of which a part is gone must not pass for a step.
    gone = path if path.name.startswith(GONE) else path.with_name(f"{GONE}{path.name}")
    if gone != path:
        path.rename(gone)
    shutil.rmtree(gone)
