"""What lies in the cache: every entry can be made again, and is cleared while nobody uses it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from epigone.errors import UnknownName
from epigone.files import cache_root
from epigone.formats import read_cache
from epigone.models import catalogue
from epigone.models.in_use import alone, lock_of

# Files at the top that remember what was measured or counted once.
_MEMORIES = {
    "asked-tokens.json": "tokens that teachers' prompts have",
    "fingerprints.json": "hashes of large files",
    "stage-speeds.json": "how fast stages were here",
}
_ASIDE = "fetching"


@dataclass(frozen=True, slots=True)
class Entry:
    """One folder or file of the cache: what it holds, bytes, and seconds since 1970.

    `locks` are held by those who make it or use it.
    """

    kind: str
    name: str
    what: str
    path: Path
    bytes: int
    used: float
    locks: tuple[Path, ...]

    def __str__(self) -> str:
        """The name that is not another one's."""
        return f"{self.kind}/{self.name}"

    @property
    def in_use(self) -> bool:
        """Whether a process makes or uses it now."""
        # In a cache of somebody else's nothing can be cleared anyway.
        with (
            suppress(PermissionError),
            alone(*(lock for lock in self.locks if lock.exists())) as free,
        ):
            return not free
        return False


def entries() -> list[Entry]:
    """All of the cache, by kind and name; what is not Epigone's is left out."""
    root = cache_root()
    found = [
        *_downloads(root),
        *_models(root),
        *_folders(root, "items", "items of a benchmark"),
        *_whole(root / "datasets", "datasets", "what benchmarks made of their data"),
        *_whole(root / "lm-eval", "index", "names of lm-eval's tasks"),
        *_unfinished(root),
    ]
    for name, what in _MEMORIES.items():
        found += _whole(root / name, "memory", what)
    return sorted(found, key=str)


def chosen(all_entries: Sequence[Entry], names: Iterable[str]) -> list[Entry]:
    """The entries of these names: kind/name, a name, or a kind. Raises UnknownName."""
    wanted = set()
    for name in names:
        of_name = {str(e) for e in all_entries if name in (str(e), e.name, e.kind)}
        if not of_name:
            known = {e.name for e in all_entries} | {e.kind for e in all_entries}
            raise UnknownName("entry of the cache", name, known | {str(e) for e in all_entries})
        wanted |= of_name
    return [e for e in all_entries if str(e) in wanted]


def clear(entry: Entry) -> bool:
    """Remove an entry, at once and whole; False where a process makes or uses it.

    Raises OSError where the disk refuses.
    """
    with alone(*entry.locks) as free:
        if not free:
            return False
        if not entry.path.exists():
            return True
        # First away from where it would be taken for whole, however this is killed.
        away = cache_root() / _ASIDE / f"cleared-{os.getpid()}-{entry.path.name}"
        away.parent.mkdir(parents=True, exist_ok=True)
        os.replace(entry.path, away)
    if away.is_dir():
        shutil.rmtree(away)
    else:
        away.unlink()
    return True


def _downloads(root: Path) -> Iterator[Entry]:
    by_hash = {entry.sha256: entry for entry in catalogue.load().values()}
    for folder in _in(root / "files"):
        known = by_hash.get(folder.name)
        name, what = (known.name, known.title) if known else (folder.name[:12], "a download")
        lock = root / "locks" / f"{folder.name}.lock"
        yield _entry("download", name, what, folder, lock, lock_of(folder))


def _models(root: Path) -> Iterator[Entry]:
    by_hash = {entry.sha256: entry for entry in catalogue.load().values()}
    for folder in _in(root / "models"):
        sha256, _, conversion = folder.name.partition("-")
        known = by_hash.get(sha256)
        name = known.name if known else _file_of(root, sha256) or sha256[:12]
        what = f"converted to safetensors, way {conversion}"
        lock = root / "locks" / f"{folder.name}.lock"
        yield _entry("model", name, what, folder, lock, lock_of(folder))


def _file_of(root: Path, sha256: str) -> str:
    """The name of a user's own file, where its hash is remembered."""
    try:
        rows = read_cache(root / "fingerprints.json").items()
        found = next((Path(path).name for path, (_, known) in rows if known == sha256), "")
        return found and f"{found}-{sha256[:8]}"
    except (OSError, ValueError, TypeError, AttributeError):
        return ""


def _folders(root: Path, kind: str, what: str) -> Iterator[Entry]:
    for folder in _in(root / kind):
        if not folder.name.endswith(".partial"):
            yield _entry(kind, folder.name, what, folder, lock_of(folder))


def _whole(path: Path, kind: str, what: str) -> Iterator[Entry]:
    if path.exists():
        yield _entry(kind, path.stem, what, path, lock_of(path))


def _unfinished(root: Path) -> Iterator[Entry]:
    what = "left by a process that was killed, or is at work"
    for path in _in(root / _ASIDE):
        yield _entry("unfinished", path.name, what, path, root / "locks" / f"{path.name}.lock")
    for path in _hidden(root / "models"):
        own = path.name[1:].removesuffix(".tmp")
        yield _entry("unfinished", own, what, path, root / "locks" / f"{own}.lock")
    for path in _in(root / "items"):
        if path.name.endswith(".partial"):
            yield _entry("unfinished", path.name, what, path, lock_of(path.with_suffix("")))


def _entry(kind: str, name: str, what: str, path: Path, *locks: Path) -> Entry:
    return Entry(kind, name, what, path, _bytes(path), path.lstat().st_mtime, locks)


def _in(folder: Path) -> list[Path]:
    return _listed(folder, hidden=False)


def _hidden(folder: Path) -> list[Path]:
    return _listed(folder, hidden=True)


def _listed(folder: Path, *, hidden: bool) -> list[Path]:
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [folder / name for name in names if name.startswith(".") is hidden]


def _bytes(path: Path) -> int:
    """Bytes on the disk below a path; links are not followed."""
    total = 0
    for base, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(base, name)).st_size
            except FileNotFoundError:
                continue
    return total if path.is_dir() else path.lstat().st_size
