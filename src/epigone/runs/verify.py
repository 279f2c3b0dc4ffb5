"""A study looked through: every file of its finished steps, its lock, its ledgers, its ratings."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from epigone.errors import NewerFormat
from epigone.files import SCRATCH, read_json, sha256_file
from epigone.formats import LEFT_OUT
from epigone.processes import cores
from epigone.runs.lock import FILES, Lock, may_lie, read_lock
from epigone.runs.lock import NAME as LOCK
from epigone.runs.store import FAILURE, LIVE, LOG, RECORD, WEIGHTS, Damaged, read_record
from epigone.schema import Progress, Record, silent
from epigone.study.identity import digest
from epigone.teachers.ledger import sound

S = TypeVar("S")
T = TypeVar("T")
RATINGS, PLACE = "ratings.db", "ratings.place"
LEFT = "left-out.json"
LEDGERS = "ledger"
_ABOUT = (RECORD, LOG, FAILURE, LIVE)

What = Literal["damaged", "missing", "surplus"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a file or folder, by its path from the study's folder."""

    what: What
    path: str
    why: str


@dataclass(slots=True)
class Checked:
    """What was looked through, and what is wrong. `bytes` were read."""

    steps: int = 0
    files: int = 0
    bytes: int = 0
    answers: int = 0
    left_out: int = 0
    troubles: list[Trouble] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing is damaged or missing; what lies there besides does no harm."""
        return all(t.what == "surplus" for t in self.troubles)

    def add(self, what: What, path: str, why: str) -> None:
        """Note a trouble."""
        self.troubles.append(Trouble(what, path, why))


def verify(root: Path, progress: Progress = silent) -> Checked:
    """Read all that a study has on the disk and compare it with what was noted when it was made.

    Files are hashed by several threads, each of which holds a block of one. Nothing is changed.
    Raises NewerFormat for what a newer Epigone wrote.
    """
    found = Checked()
    _hash(root, contents(root, found), found, progress)
    for ledger in sorted((root.parent / LEDGERS).glob("*.jsonl")):
        _ledger(ledger, found)
    if (ratings := ratings_of(root)) is not None:
        check_ratings(ratings, found, RATINGS if ratings.parent == root else str(ratings))
    found.troubles.sort(key=lambda t: (t.what, t.path))
    return found


def contents(root: Path, found: Checked) -> list[tuple[str, str, int]]:
    """Path, sha256 and bytes of each file that records and lock of a study name.

    What can be told to be wrong without reading the files is noted in `found`.
    """
    lock, left = read_lock(root), left_out(root)
    if lock.trouble:
        found.add("damaged", LOCK, lock.trouble)
    found.troubles += _of_lock(lock)
    asked: list[tuple[str, str, int]] = []
    for folder in step_folders(root):
        found.steps += 1
        name = folder.relative_to(root / "steps").as_posix()
        record = _record(folder, name, lock, found)
        if record is not None:
            asked += _listed(folder, f"steps/{name}", record, left, found)
    return [*asked, *_copies(root, lock, found)]


def step_folders(root: Path) -> Iterator[Path]:
    """The folders of finished steps, of this study's and of what it was before."""
    for stage in sorted(p for p in (root / "steps").glob("*") if p.is_dir()):
        for folder in sorted(p for p in stage.iterdir() if p.is_dir()):
            if not folder.name.startswith(".") and not folder.name.endswith(".partial"):
                yield folder


def left_out(root: Path) -> frozenset[str]:
    """The files that an archive was made without, by their paths from the study's folder."""
    try:
        told = read_json(root / LEFT)
        LEFT_OUT.of(told, root / LEFT)
        # What is put where such a list says must not get out of the study's folder.
        return frozenset(filter(may_be_left, map(str, told["files"])))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return frozenset()


def may_be_left(name: str) -> bool:
    """Whether an archive may be made without a file, by its path from the study's folder."""
    return name.startswith("steps/") and name.endswith(WEIGHTS) and may_lie(name)


def below(folder: Path) -> Iterator[str]:
    """The relative paths of all files below a folder; links are named and not followed."""
    for base, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(base, name))]
        for name in sorted([*names, *links]):
            yield Path(base, name).relative_to(folder).as_posix()


def _of_lock(lock: Lock) -> Iterator[Trouble]:
    for step in lock.document.get("steps", ()):
        if digest(step["identity"]) != step["hash"]:
            why = f"the lock's hash of {step['step']} is not that of what it stands for"
            yield Trouble("damaged", LOCK, why)


def _record(folder: Path, name: str, lock: Lock, found: Checked) -> Record | None:
    path = f"steps/{name}/{RECORD}"
    try:
        record = read_record(folder)
        assert record is not None
        right = digest(record.identity) == record.hash
    except NewerFormat:
        raise
    except (Damaged, OSError, TypeError, ValueError, AttributeError):
        found.add("damaged", path, "no record that can be read")
        return None
    if not right:
        found.add("damaged", path, "its hash is not that of its identity")
    elif name != f"{record.stage}/{record.slug}-{record.hash[:8]}":
        found.add("damaged", path, f"it is the record of {record.stage}/{record.slug}")
    elif lock.steps.get(name, record.hash) != record.hash:
        found.add("damaged", path, "the study's lock has another hash for the step")
    return record


def _listed(
    folder: Path, place: str, record: Record, left: frozenset[str], found: Checked
) -> Iterator[tuple[str, str, int]]:
    """What has to be hashed of a step; what is not there or too much is noted."""
    there = set(below(folder))
    for name, sha in record.outputs.items():
        path = f"{place}/{name}"
        if name not in there:
            if path in left:
                found.left_out += 1
            else:
                found.add("missing", path, "the record names it")
            continue
        size = os.lstat(folder / name).st_size
        if size != record.sizes.get(name, size):
            found.add("damaged", path, f"{size:,} bytes instead of {record.sizes[name]:,}")
            continue
        yield path, sha, size
    for name in sorted(there - set(record.outputs)):
        if name not in _ABOUT and not name.startswith(SCRATCH):
            found.add("surplus", f"{place}/{name}", "the record does not name it")


def _copies(root: Path, lock: Lock, found: Checked) -> Iterator[tuple[str, str, int]]:
    for kept in lock.files.values():
        path = root / kept.path
        if path.is_dir():
            if folder_hash(path) != kept.sha256:
                found.add("damaged", kept.path, "its files are not what the lock says")
        elif path.is_file():
            yield kept.path, kept.sha256, path.stat().st_size
        else:
            found.add("missing", kept.path, "the lock names it")
    known = tuple(kept.path for kept in lock.files.values())
    for name in below(root / FILES):
        if not any(f"{FILES}/{name}" == k or f"{FILES}/{name}".startswith(f"{k}/") for k in known):
            found.add("surplus", f"{FILES}/{name}", "the lock does not name it")


def folder_hash(folder: Path) -> str:
    """A hash of the names and contents of all files below a folder."""
    return digest({name: sha256_file(folder / name) for name in sorted(below(folder))})


def _hash(
    root: Path, asked: list[tuple[str, str, int]], found: Checked, progress: Progress
) -> None:
    total = sum(size for _, _, size in asked)

    def look(task: tuple[str, str, int]) -> tuple[str, str, int, str]:
        path, sha, size = task
        try:
            return path, sha, size, sha256_file(root / path)
        except OSError as error:
            return path, sha, size, error.strerror or str(error)

    for path, sha, size, has in side_by_side(look, asked):
        found.files, found.bytes = found.files + 1, found.bytes + size
        if has != sha:
            why = "its content is not what was made" if len(has) == 64 else has
            found.add("damaged", path, why)
        progress(found.bytes, total, path)


def side_by_side(look: Callable[[S], T], asked: Iterable[S]) -> Iterator[T]:
    """The results of a function in the order of what it is asked, by as many threads as cores."""
    threads = max(1, cores())
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for one in asked:
            waiting.append(pool.submit(look, one))
            # No more than that at once: a study may have a million files.
            if len(waiting) > 4 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _ledger(file: Path, found: Checked) -> None:
    path, bad = f"../{LEDGERS}/{file.name}", []
    try:
        for number, line in enumerate(sound(file), 1):
            if line is None:
                bad.append(number)
            found.answers += line is not None and b'"kind":"came"' in line
        found.files, found.bytes = found.files + 1, found.bytes + file.stat().st_size
    except OSError as error:
        found.add("damaged", path, error.strerror or str(error))
    if bad:
        lines = ", ".join(map(str, bad[:5])) + ("…" if len(bad) > 5 else "")
        found.add("damaged", path, f"{len(bad)} lines whose checksum is wrong: {lines}")


def ratings_of(root: Path) -> Path | None:
    """A study's rating database, which may lie elsewhere; None where it has no file."""
    place = root / PLACE
    named = place.read_text(encoding="utf-8").strip() if place.is_file() else ""
    file = Path(named) if named and "://" not in named else root / RATINGS
    return file if file.is_file() else None


def check_ratings(file: Path, found: Checked, path: str = RATINGS) -> None:
    """Note what SQLite finds wrong in a rating database, if there is one; it is told as `path`."""
    if not file.is_file():
        return
    found.files, found.bytes = found.files + 1, found.bytes + file.stat().st_size
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            closing(sqlite3.connect(snapshot(file, Path(folder)))) as connection,
        ):
            told = [row[0] for row in connection.execute("PRAGMA integrity_check(5)")]
            dangling = connection.execute("PRAGMA foreign_key_check").fetchmany(5)
    except (sqlite3.Error, OSError) as error:
        told, dangling = [str(error)], []
    if told != ["ok"]:
        found.add("damaged", path, "; ".join(told).replace("\n", " ")[:300])
    elif dangling:
        found.add("damaged", path, f"rows of {dangling[0][0]} point to nothing")


def snapshot(file: Path, folder: Path) -> Path:
    """A copy of an SQLite database as it stands now, though others may write to it meanwhile.

    It lies in `folder`. Raises sqlite3.Error for what is no database.
    """
    copy = folder / file.name
    if os.access(file.parent, os.W_OK):
        with (
            closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")
        return copy
    # SQLite cannot read a database with a journal where it cannot write, and nobody else writes.
    for part in (file, file.with_name(f"{file.name}-wal")):
        if part.exists():
            shutil.copyfile(part, folder / part.name)
    return copy
