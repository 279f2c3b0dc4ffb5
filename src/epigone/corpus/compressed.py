"""Opening files of teacher text, compressed or not."""

from __future__ import annotations

import gzip
import importlib.util
import lzma
import zlib
from pathlib import Path
from typing import IO, cast

from epigone.errors import CorpusError, MissingExtra

SUFFIXES = (".gz", ".xz", ".zst")
RATIO = 200
FREE = 64 << 20


def require(path: Path) -> None:
    """Raise MissingExtra where reading the file needs a package that is not installed."""
    if path.suffix != ".zst":
        return
    try:
        found = importlib.util.find_spec("zstandard") is not None
        if found:
            importlib.import_module("zstandard")
    except ImportError:
        found = False
    if not found:
        raise MissingExtra(f"reading {path.name}", "zstd")


class Reader:
    """Bytes of a file, unpacked by its suffix (.gz, .xz, .zst).

    A compressed file that is cut off or damaged ends where it can no longer be unpacked; offsets
    are those of the unpacked bytes. Text packs to a tenth or so: a file that unpacks to more than
    `RATIO` times its size (and `FREE` bytes) raises CorpusError.
    """

    def __init__(self, path: Path) -> None:
        require(path)
        self._path = path
        self._file = _open(path)
        self._broken = _errors(path)
        packed = path.suffix in SUFFIXES
        self._left = FREE + RATIO * path.stat().st_size if packed else None

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        try:
            data = self._file.read(size)
        except self._broken:
            return b""
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise CorpusError(
                    f"unpacks to more than {RATIO} times its size and {FREE >> 20} MiB",
                    value=self._path.name,
                    fix="unpack it yourself if it is what it should be",
                )
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.suffix == ".xz":
        return cast(IO[bytes], lzma.open(path, "rb"))
    if path.suffix == ".zst":
        import zstandard

        return cast(IO[bytes], zstandard.open(path, "rb"))
    return open(path, "rb")


def _errors(path: Path) -> tuple[type[Exception], ...]:
    known: tuple[type[Exception], ...] = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)
    if path.suffix == ".zst":
        import zstandard

        known = (*known, zstandard.ZstdError)
    return known
