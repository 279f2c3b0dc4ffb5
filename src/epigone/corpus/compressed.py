"""Opening files of teacher text, compressed or not."""

from __future__ import annotations

import gzip
import importlib.util
import lzma
import zlib
from pathlib import Path
from typing import IO, cast

from epigone.errors import MissingExtra


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
    are those of the unpacked bytes.
    """

    def __init__(self, path: Path) -> None:
        require(path)
        self._file = _open(path)
        self._broken = _errors(path)

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        try:
            return self._file.read(size)
        except self._broken:
            return b""

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
