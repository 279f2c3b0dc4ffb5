"""A study out of an archive: whole or not at all, and nothing that is no part of a study."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from epigone.corpus.compressed import FREE, RATIO, kind, require
from epigone.errors import EpigoneError, UserError
from epigone.files import fsync_dir, read_json, sha256_file, write_json
from epigone.formats import LEFT_OUT
from epigone.runs.archive import LARGEST_MANIFEST, MANIFEST, ROOT, Hostile, Manifest
from epigone.runs.garbage import IMPORTING
from epigone.runs.lease import Runner
from epigone.runs.lock import FILES, NAME, STUDY, read_lock
from epigone.runs.verify import (
    LEDGERS,
    LEFT,
    PLACE,
    RATINGS,
    Checked,
    check_ratings,
    contents,
    left_out,
    ratings_of,
    side_by_side,
    step_folders,
)
from epigone.schema import Progress, silent
from epigone.study.file import read
from epigone.teachers.ledger import Ledger, sound

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: the study's folder, steps and answers that were not there before.

    With `ratings_stay`, other ratings than those in the archive were there, and still are.
    """

    manifest: Manifest
    root: Path
    steps: int
    answers: int
    new: bool
    ratings_stay: bool = False


def unpack(archive: Path, runs: Path, progress: Progress = silent) -> Imported:
    """Put the study of an archive into the folder of studies `runs`, its ledgers beside it.

    Every file is hashed, every record looked at, before anything of it is seen there. Where the
    same study is there already, steps that it lacks are added. Raises UserError for another study
    of that name, and Hostile for what is no archive, or a damaged one.
    """
    if not archive.is_file():
        raise UserError("no such archive", value=str(archive), fix="epigone export makes one")
    require(archive)
    runs.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=IMPORTING, dir=runs))
    # Held, so that nobody takes it for what a kill has left.
    held = os.open(staging, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks: gc leaves alone what it cannot lock
            fcntl.flock(held, fcntl.LOCK_EX)
        manifest = _extract(archive, staging, progress)
        _check(staging, manifest)
        for _ in side_by_side(_to_disk, [staging / name for name in manifest.files]):
            pass
        root = runs.resolve() / manifest.study
        fresh = not root.exists()
        if not fresh:
            _refuse_other(root, staging / ROOT)
        answers = _merge_ledgers(staging, runs)
        if fresh:
            (staging / ROOT).rename(root)
            fsync_dir(runs)
            return Imported(manifest, root, manifest.done, answers, fresh)
        steps, stay = _top_up(staging / ROOT, root)
        return Imported(manifest, root, steps, answers, fresh, stay)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(held)


def _to_disk(file: Path) -> None:
    with open(file, "rb+") as made:
        os.fsync(made.fileno())


class _Forward:
    """A stream that is read forwards, in blocks, to a bound; what tarfile needs of a file."""

    def __init__(self, stream: Any, most: int) -> None:
        self._stream, self._most, self._at = stream, most, 0

    def read(self, size: int) -> bytes:
        # A header that says it is a gigabyte long would be read into memory at once.
        if not 0 <= size <= _BLOCK:
            raise Hostile("a header that is too long")
        parts = []
        while size and (part := self._stream.read(size)):
            parts.append(part)
            size -= len(part)
            self._at += len(part)
        if self._at > self._most:
            raise Hostile(f"it unpacks to more than {RATIO} times its size")
        return b"".join(parts)

    def tell(self) -> int:
        return self._at

    def seek(self, at: int) -> None:
        if at < self._at:
            raise Hostile("it is not in order")
        while self._at < at and self.read(min(_BLOCK, at - self._at)):
            pass


def _extract(archive: Path, staging: Path, progress: Progress) -> Manifest:
    try:
        with _unpacked(archive) as stream:
            tar = tarfile.TarFile(fileobj=stream, mode="r")  # type: ignore[arg-type]
            manifest = _manifest(tar, archive)
            _room(manifest, staging)
            left = dict(manifest.files)
            total, done = sum(e.size for e in left.values()), 0
            while (member := tar.next()) is not None:
                entry = left.pop(member.name, None)
                plain = member.isreg() and not member.issparse()
                if entry is None or not plain or member.size != entry.size:
                    raise Hostile("a file that is not in its list of contents", member.name)
                sha = _copy(tar, member, staging)
                if sha != entry.sha256:
                    raise Hostile("a file is damaged", member.name)
                done += entry.size
                progress(done, total, member.name)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, RecursionError) as error:
        raise Hostile("damaged or cut off", str(error) or type(error).__name__) from None
    if left:
        raise Hostile("cut off, a file is missing", min(left))
    return manifest


@contextmanager
def _unpacked(archive: Path) -> Iterator[_Forward]:
    packed = kind(archive)
    most = FREE + RATIO * archive.stat().st_size if packed else archive.stat().st_size
    with open(archive, "rb") as file:
        if packed == "gz":
            with gzip.GzipFile(fileobj=file) as stream:
                yield _Forward(stream, most)
        elif packed == "zst":
            import zstandard

            made = zstandard.ZstdDecompressor(max_window_size=1 << 27)
            try:
                with made.stream_reader(file, read_across_frames=True) as stream:
                    yield _Forward(stream, most)
            except zstandard.ZstdError as error:
                raise Hostile("damaged or cut off", str(error)) from None
        else:
            yield _Forward(file, most)


def _manifest(tar: tarfile.TarFile, archive: Path) -> Manifest:
    member = tar.next()
    if member is None or member.name != MANIFEST or not member.isreg():
        raise Hostile("it has no list of its contents", archive.name)
    if member.size > LARGEST_MANIFEST:
        raise Hostile("its list of contents is too long")
    text = b"".join(_blocks(tar, member))
    try:
        told = json.loads(text)
    except ValueError:
        raise Hostile("its list of contents is damaged") from None
    return Manifest.from_json(told, str(archive))


def _blocks(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    source = tar.extractfile(member)
    assert source is not None
    left = member.size
    while left:
        data = source.read(min(_BLOCK, left))
        if not data:
            raise EOFError("cut off")
        left -= len(data)
        yield data


def _room(manifest: Manifest, staging: Path) -> None:
    need, free = sum(e.size for e in manifest.files.values()), shutil.disk_usage(staging).free
    if need > free:
        raise UserError(
            "the disk has no room for the study", fix="name a folder on another one with --runs",
            value=f"{need / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free",
        )  # fmt: skip


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, staging: Path) -> str:
    """Write a file that is named in the list of contents; its sha256 is returned."""
    if (checked := getattr(tarfile, "data_filter", None)) is not None:
        checked(member, str(staging))
    path = staging / member.name
    path.parent.mkdir(parents=True, exist_ok=True)
    sha = hashlib.sha256()
    with open(path, "xb") as out:
        if member.name == f"{ROOT}/{RATINGS}":
            path.chmod(0o600)  # as where they were made: names of people are in it
        for data in _blocks(tar, member):
            sha.update(data)
            out.write(data)
    return sha.hexdigest()


def _check(staging: Path, manifest: Manifest) -> None:
    """Raise Hostile where what was unpacked is no whole study, whoever made it."""
    root = staging / ROOT
    if manifest.left_out:
        write_json(root / LEFT, LEFT_OUT.mark({"files": list(manifest.left_out)}))
    if read(root / STUDY).name != manifest.study:
        raise Hostile("the study has another name", manifest.study)
    found, lock = Checked(), read_lock(root)
    for path, sha, _ in contents(root, found):
        entry = manifest.files.get(f"{ROOT}/{path}")
        if entry is None or entry.sha256 != sha:
            found.add("damaged", path, "its content is not what was made")
    check_ratings(root / RATINGS, found)
    if found.troubles:
        first = found.troubles[0]
        raise Hostile(f"{first.what}, {first.why}", first.path)
    steps = {f.relative_to(root / "steps").as_posix() for f in step_folders(root)}
    if lock.study != manifest.study or not steps <= lock.steps.keys():
        raise Hostile("its lock is that of another study", lock.study)
    for ledger in (staging / LEDGERS).glob("*.jsonl"):
        _check_ledger(ledger)


def _check_ledger(file: Path) -> None:
    try:
        if None in sound(file):
            raise ValueError("a checksum is wrong")
        Ledger(file, look=True).close()
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, EpigoneError):
        raise Hostile("a ledger is damaged", file.name) from None


def _refuse_other(root: Path, came: Path) -> None:
    here, new = read_lock(root), read_lock(came)
    if here.steps != new.steps:
        raise UserError(
            "another study of this name is there, or another state of its file", value=str(root),
            fix="name another folder with --runs",
        )  # fmt: skip


def _merge_ledgers(staging: Path, runs: Path) -> int:
    came = 0
    for file in sorted((staging / LEDGERS).glob("*.jsonl")):
        ledger = Ledger(runs / LEDGERS / file.name)
        try:
            before = len(ledger)
            ledger.merge(file)
        finally:
            ledger.close()
        after = Ledger(runs / LEDGERS / file.name, look=True)
        came += len(after) - before
        after.close()
    return came


def _top_up(came: Path, root: Path) -> tuple[int, bool]:
    """Add what the study in `root` lacks of the same study: how many steps; as `_ratings`."""
    added = 0
    with Runner(root, "import"):
        for folder in step_folders(came):
            place = root / folder.relative_to(came)
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                folder.rename(place)
                added += 1
        lacking = {name for name in left_out(root) if not (root / name).exists()}
        for name in sorted(lacking):
            if (came / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (came / name).rename(root / name)
        _note_left_out(root, {*left_out(root), *left_out(came)})
        stay = _ratings(came, root)
        _add_copies(came, root)
    return added, stay


def _ratings(came: Path, root: Path) -> bool:
    """Take the ratings where there are none; whether there are others, which stay."""
    if not (came / RATINGS).is_file():
        return False
    if (root / RATINGS).exists() or (root / PLACE).exists():
        # Two databases cannot be put together, and nobody's ratings may go.
        own = ratings_of(root)
        return own is None or sha256_file(own) != sha256_file(came / RATINGS)
    (came / RATINGS).rename(root / RATINGS)
    return False


def _note_left_out(root: Path, names: set[str]) -> None:
    files = sorted(name for name in names if not (root / name).exists())
    if files:
        write_json(root / LEFT, LEFT_OUT.mark({"files": files}))
    else:
        (root / LEFT).unlink(missing_ok=True)


def _add_copies(came: Path, root: Path) -> None:
    here, new = read_lock(root).files, read_lock(came).files
    lacking = {n: k for n, k in new.items() if n not in here or not (root / here[n].path).exists()}
    for kept in lacking.values():
        if not (root / kept.path).exists():
            (root / kept.path).parent.mkdir(parents=True, exist_ok=True)
            (came / kept.path).rename(root / kept.path)
    if lacking:
        document: Mapping[str, Any] = read_json(root / NAME)
        files = {name: asdict(kept) for name, kept in {**here, **lacking}.items()}
        write_json(root / NAME, {**document, "files": files})


def code_in(root: Path) -> list[str]:
    """Files of code among the data that goes with a study: running the study may run them."""
    return sorted(p.relative_to(root).as_posix() for p in (root / FILES).rglob("*.py"))
