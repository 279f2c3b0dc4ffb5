"""Files that appear whole or not at all, and the one way in which Epigone writes JSON."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

# Folder inside a step's directory for what a killed step continues from; no part of its result.
SCRATCH = ".scratch"
_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal bytes.

    Raises TypeError or ValueError for what JSON cannot hold (sets, objects, NaN).
    """
    return _CANONICAL.encode(value)


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in blocks."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def aside_of(path: Path) -> Path:
    """A name beside `path` that no other process has, for what is to take its place."""
    # In two containers that share a folder, processes often have one number.
    return path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")


@contextmanager
def write_aside(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes `path`'s place only once it is written and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = aside_of(path)
    try:
        with open(aside, "wb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    fsync_dir(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    with write_aside(path) as f:
        f.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON whole; NaN is refused, keys keep their order."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read one JSON document; raises ValueError for what is none, or too deep."""
    try:
        return json.loads(path.read_bytes().decode())
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None


def write_jsonl(path: Path, rows: Iterable[Any]) -> int:
    """Write one JSON value a line, whole; the number of rows is returned."""
    n = 0
    with write_aside(path) as f:
        for row in rows:
            f.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            n += 1
    return n


def read_jsonl(path: Path) -> Iterator[Any]:
    """Read one JSON value a line, as a stream; raises ValueError for what is none, or too deep."""
    with open(path, encoding="utf-8") as f:
        for line in f:
            if line.strip():
                try:
                    value = json.loads(line)
                except RecursionError:
                    raise ValueError("JSON that is nested too deeply") from None
                yield value


def read_jsonl_sound(path: Path) -> Iterator[Any]:
    """The whole lines of a file that is only added to; what a kill cut off is taken away."""
    if not path.exists():
        return
    with open(path, "r+b") as f:
        while line := f.readline():
            if not line.endswith(b"\n"):
                f.truncate(f.tell() - len(line))
                return
            yield json.loads(line)


def fsync_dir(path: Path) -> None:
    """Make renames inside a folder durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def cache_root() -> Path:
    """Folder for what can be made again: $EPIGONE_HOME, else the user's cache folder."""
    named = os.environ.get("EPIGONE_HOME")
    if named:
        return Path(named).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "epigone"
