"""A study into one archive: what is finished of it, and what its answers cost."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from epigone.errors import MissingExtra, StepFailed, UserError
from epigone.files import fsync_dir, sha256_file, write_json
from epigone.formats import LOCK
from epigone.models import references
from epigone.runs.archive import ENDS, MANIFEST, ROOT, Entry, Manifest
from epigone.runs.lock import NAME, STUDY, Kept, Lock, kept_name, read_lock
from epigone.runs.resolve import World
from epigone.runs.store import LOG, RECORD, WEIGHTS, missing, read_record
from epigone.runs.verify import LEDGERS, RATINGS, below, folder_hash, ratings_of, snapshot
from epigone.schema import Progress, Record, silent
from epigone.teachers.ledger import ledger_file, sound
from epigone.teachers.means import endpoint_of

_BLOCK = 1 << 20


@dataclass(slots=True)
class _Contents:
    """What goes in: files of the disk by their names in the archive."""

    files: dict[str, tuple[Path, str]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    done: int = 0

    def add(self, name: str, path: Path, sha256: str = "") -> None:
        self.files[name] = (path, sha256 or sha256_file(path))


def pack(
    root: Path,
    out: Path,
    world: World,
    *,
    data: bool = False,
    weights: bool = True,
    progress: Progress = silent,
) -> Manifest:
    """Write the finished steps of a study, its lock, ratings and ledgers into the file `out`.

    What is finished when it begins goes in, though the study is being run. `world` is as the study
    sees it; with `data`, the local files that it names go along. Without `weights`, those of
    students stay behind. Equal studies give equal archives. Raises UserError for an archive that
    is there already, an unknown kind of file, or a study of which nothing is there.
    """
    kind = _kind(out)
    lock = read_lock(root)
    if lock.trouble:
        fix = "run the study again from its own file, which writes it anew"
        raise UserError("the study's lock is damaged", value=str(root / NAME), fix=fix)
    if not lock.steps:
        raise UserError("nothing is done yet", value=str(root), fix="epigone run")
    if out.exists():
        raise UserError("the file is there already", value=str(out), fix="name a new one")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as scratch:
        contents = _Contents()
        _steps(root, lock, contents, weights=weights)
        kept, needs = _named(root, lock, world, contents, data=data)
        _copied(root, lock, kept, Path(scratch), contents)
        sizes = {name: path.stat().st_size for name, (path, _) in contents.files.items()}
        manifest = Manifest(
            study=lock.study or root.name,
            done=contents.done,
            steps=len(lock.steps),
            files={n: Entry(sha, sizes[n]) for n, (_, sha) in sorted(contents.files.items())},
            needs=needs,
            left_out=tuple(sorted(contents.left_out)),
        )
        aside = Path(scratch) / "archive"
        with open(aside, "wb") as file, _packed(file, kind) as stream:
            _write(stream, manifest, contents, progress)
            stream.flush()
        with open(aside, "rb+") as whole:
            os.fsync(whole.fileno())
        # Ratings are for their owner alone, and so is what holds them.
        if f"{ROOT}/{RATINGS}" in manifest.files:
            aside.chmod(0o600)
        os.replace(aside, out)
    fsync_dir(out.parent)
    return manifest


def _kind(out: Path) -> str:
    end = next((end for end in sorted(ENDS, key=len, reverse=True) if out.name.endswith(end)), None)
    if end is None:
        raise UserError("not a name of an archive", value=out.name, fix=f"*{', *'.join(ENDS)}")
    if ENDS[end] == "zst":
        _zstandard(out.name)
    return ENDS[end]


def _zstandard(name: str) -> Any:
    try:
        import zstandard
    except ImportError:
        raise MissingExtra(f"{name}: an archive with Zstandard", "zstd") from None
    return zstandard


def _steps(root: Path, lock: Lock, contents: _Contents, *, weights: bool) -> None:
    for name in lock.steps:
        folder = root / "steps" / name
        record = read_record(folder)
        if record is None:
            continue
        gone = missing(folder, record)
        contents.done += 1
        for output, sha in record.outputs.items():
            inside = f"{ROOT}/steps/{name}/{output}"
            if _is_weight(record, output) and (not weights or output in gone):
                contents.left_out.append(inside.removeprefix(f"{ROOT}/"))
            elif output in gone:
                raise UserError(f"{name} is not whole", value=output, fix="epigone verify tells")
            else:
                contents.add(inside, folder / output, sha)
        for about in (RECORD, LOG):
            if (folder / about).is_file():
                contents.add(f"{ROOT}/steps/{name}/{about}", folder / about)


def _is_weight(record: Record, output: str) -> bool:
    return record.stage in ("train", "feedback") and output.endswith(WEIGHTS)


def _named(
    root: Path, lock: Lock, world: World, contents: _Contents, *, data: bool
) -> tuple[dict[str, Kept], dict[str, str]]:
    """Copies that go along of what the study file names, and the data that does not."""
    kept = {name: k for name, k in lock.files.items() if (root / k.path).exists()}
    places = {name: root / k.path for name, k in kept.items()}
    needs: dict[str, str] = {}
    for name, path in world.texts.items():
        if name not in kept:
            kept[name], places[name] = _kept(name, path), path
    for ref, fingerprint in world.seen.items():
        local = references.local(ref, world.folder)
        if local is None or ref in kept:
            continue
        if data and local.exists():
            kept[ref], places[ref] = _kept(ref, local), local
        else:
            needs[ref] = fingerprint
    for name, k in kept.items():
        path = places[name]
        if path.is_file():
            contents.add(f"{ROOT}/{k.path}", path, k.sha256)
        else:
            for inside in below(path):
                contents.add(f"{ROOT}/{k.path}/{inside}", path / inside)
    return kept, needs


def _kept(name: str, path: Path) -> Kept:
    sha256 = folder_hash(path) if path.is_dir() else sha256_file(path)
    return Kept(kept_name(name, sha256), sha256)


def _copied(
    root: Path, lock: Lock, kept: dict[str, Kept], scratch: Path, contents: _Contents
) -> None:
    """What others may write to meanwhile is copied first."""
    files = {name: asdict(k) for name, k in kept.items()}
    # Where the study lay on this machine is nobody's business on another.
    told = {**lock.document, "format": LOCK.newest, "folder": "", "files": files}
    write_json(scratch / NAME, told)
    (scratch / STUDY).write_bytes((root / STUDY).read_bytes())
    for name in (NAME, STUDY):
        contents.add(f"{ROOT}/{name}", scratch / name)
    ratings = ratings_of(root)
    if ratings is not None:
        (scratch / "ratings").mkdir()
        copy = snapshot(ratings, scratch / "ratings")
        contents.add(f"{ROOT}/{RATINGS}", copy.rename(scratch / RATINGS))
    for ledger in _ledgers(root, lock):
        copy = scratch / ledger.name
        with open(copy, "wb") as file:
            file.writelines(line for line in sound(ledger) if line is not None)
        contents.add(f"{LEDGERS}/{ledger.name}", copy)


def _ledgers(root: Path, lock: Lock) -> Iterator[Path]:
    """The ledgers of the endpoints that the study names, and those that were asked for it."""
    folder = root.parent / LEDGERS
    named = {
        ledger_file(folder, endpoint_of(ref))
        for ref in lock.references
        if ref.startswith("endpoint:")
    }
    asked = f'"for":{json.dumps(lock.study or root.name)}'.encode()
    for file in sorted(folder.glob("*.jsonl")):
        if file in named or any(asked in line for line in sound(file) if line is not None):
            yield file


@contextmanager
def _packed(file: IO[bytes], kind: str) -> Iterator[Any]:
    if kind == "gz":
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0, compresslevel=6) as stream:
            yield stream
    elif kind == "zst":
        with _zstandard("").ZstdCompressor(level=3).stream_writer(file, closefd=False) as stream:
            yield stream
    else:
        yield file


def _write(stream: IO[bytes], manifest: Manifest, contents: _Contents, progress: Progress) -> None:
    with contextlib.closing(
        tarfile.TarFile(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT)
    ) as tar:
        head = json.dumps(manifest.to_json(), ensure_ascii=False).encode()
        tar.addfile(_about(MANIFEST, len(head)), io.BytesIO(head))
        total, done = sum(e.size for e in manifest.files.values()), 0
        for name, entry in manifest.files.items():
            path, _ = contents.files[name]
            with open(path, "rb") as source:
                hashing = _Hashing(source)
                try:
                    tar.addfile(_about(name, entry.size), hashing)
                except OSError as error:
                    if error.errno is not None:
                        raise
                    hashing.sha = hashlib.sha256()  # tarfile's own: the file is too short
            if hashing.sha.hexdigest() != entry.sha256:
                raise StepFailed(f"{path} is not what was made; 'epigone verify' tells more")
            done += entry.size
            progress(done, total, name)


def _about(name: str, size: int) -> tarfile.TarInfo:
    about = tarfile.TarInfo(name)
    about.size, about.mode = size, 0o644
    return about


class _Hashing:
    """A file that is hashed while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha = hashlib.sha256()

    def read(self, size: int = _BLOCK) -> bytes:
        data = self._file.read(size)
        self.sha.update(data)
        return data
