"""Opening files of teacher text, compressed or not."""

from __future__ import annotations

import importlib
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from epigone.errors import CorpusError, MissingExtra

SUFFIXES = (".gz", ".xz", ".zst")
RATIO = 200
FREE = 64 << 20
_MAGIC = {b"\x1f\x8b": "gz", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}
# Packed bytes that are read at once; 512 of Zstandard may become 16 MiB.
_PACKED = {"gz": 1 << 14, "xz": 1 << 14, "zst": 512}
# Unpacked bytes that are made at once where the library lets them be bounded.
_MADE = 1 << 14


def kind(path: Path) -> str:
    """How a file is packed, by its first bytes: gz, xz, zst, or nothing."""
    with open(path, "rb") as file:
        head = file.read(6)
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")


def require(path: Path) -> None:
    """Raise MissingExtra where reading the file needs a package that is not installed."""
    if path.suffix == ".zst" or (path.is_file() and kind(path) == "zst"):
        try:
            importlib.import_module("zstandard")
        except ImportError:
            raise MissingExtra(f"reading {path.name}", "zstd") from None


class Reader:
    """Bytes of a file, unpacked if its content is that of gzip, xz or Zstandard.

    A packed file that is cut off or damaged ends where it can no longer be unpacked, and `fault`
    says so; offsets are those of the unpacked bytes. Text packs to a tenth or so: a file that
    unpacks to more than `RATIO` times its size (and `FREE` bytes) raises CorpusError.
    """

    def __init__(self, path: Path) -> None:
        """Open the file."""
        require(path)
        self.fault = ""
        self._path = path
        self._kind = kind(path)
        self._file = open(path, "rb")  # noqa: SIM115 - closed by `close`
        self._size = path.stat().st_size
        self._left = FREE + RATIO * self._size
        self._made = _unpacked(self._file, self._kind) if self._kind else None
        self._ready = bytearray()

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        if self._made is None:
            return self._file.read(size)
        while len(self._ready) < size and not self.fault:
            try:
                made = next(self._made, None)
            except EOFError:
                self.fault = f"the packed file is cut off at its byte {self._size:,}"
                break
            except _errors(self._kind) as error:
                why = " ".join(str(error).split())[:80]
                where = f"before byte {self._file.tell():,} of its {self._size:,}"
                self.fault = f"the packed file is damaged {where}: {why}"
                break
            if made is None:
                break
            self._ready += made
            self._left -= len(made)
            if self._left < 0:
                raise CorpusError(
                    f"unpacks to more than {RATIO} times its size and {FREE >> 20} MiB",
                    value=self._path.name,
                    fix="unpack it yourself if it is what it should be",
                )
        data = bytes(self._ready[:size])
        del self._ready[:size]
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _unpacked(file: IO[bytes], kind: str) -> Iterator[bytes]:
    """Pieces of what a file unpacks to, whose streams may follow one another."""
    data = file.read(_PACKED[kind])
    while data:
        stream = _stream(kind)
        while not stream.eof:
            data = data or file.read(_PACKED[kind])
            if not data:
                raise EOFError
            if kind == "gz":
                yield from _gunzip(stream, data)
                data = stream.unconsumed_tail
            elif kind == "xz":
                yield stream.decompress(data, _MADE)
                while not stream.needs_input and not stream.eof:
                    yield stream.decompress(b"", _MADE)
                data = b""
            else:
                yield stream.decompress(data)
                data = b""
        data = stream.unused_data
        # Between streams, and behind the last, there may be zeros.
        while not (data := data.lstrip(b"\0")):
            data = file.read(_PACKED[kind])
            if not data:
                return


def _errors(kind: str) -> tuple[type[Exception], ...]:
    if kind == "zst":
        import zstandard

        return (zstandard.ZstdError,)
    return (zlib.error, lzma.LZMAError)


def _stream(kind: str) -> Any:
    if kind == "gz":
        return zlib.decompressobj(wbits=31)
    if kind == "xz":
        return lzma.LZMADecompressor()
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()


def _gunzip(stream: Any, data: bytes) -> Iterator[bytes]:
    before = stream.copy()
    try:
        made = stream.decompress(data, _MADE)
    except zlib.error:
        # Byte by byte, so that damage, or a bad checksum at the end, takes no good text along.
        for i in range(len(data)):
            yield before.decompress(data[i : i + 1])
        raise
    yield made
