"""The rows of CSV, TSV, Parquet and Arrow files, as a stream of bounded memory."""

from __future__ import annotations

import codecs
import csv
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from epigone.corpus.compressed import Reader
from epigone.corpus.values import SHOWN, Lost, Whole

_CHUNK = 1 << 20
# A field, or a row, of more characters than this is taken for one whose quote was never closed.
_LONGEST = 1 << 26
_ROWS = 64
# What a damaged or odd table raises, by library and layer. ArrowException covers some, not all.
BAD = (OSError, ValueError, ArithmeticError, LookupError, TypeError, SystemError)


class Delimited:
    """The rows of a CSV or TSV file, each as a dict by the names of the header.

    `header` is empty where the first line is no header of several names.
    """

    def __init__(self, path: Path) -> None:
        """Open the file and read the header."""
        csv.field_size_limit(_LONGEST)
        self._lines = _Lines(path)
        first = self._lines.peek()
        self.delimiter = max(",\t;", key=first.count)
        try:
            names = next(csv.reader([first], delimiter=self.delimiter), [])
        except csv.Error:
            names = []
        self.header = [name.strip().lstrip("\ufeff") for name in names] if len(names) > 1 else []

    def __enter__(self) -> Delimited:
        """The rows themselves; the file is closed at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._lines.close()

    @property
    def fault(self) -> str:
        """Why the file could be unpacked only so far."""
        return self._lines.fault

    @property
    def at(self) -> int:
        """The byte offset of what comes next."""
        return self._lines.at

    def __iter__(self) -> Iterator[Whole | Lost]:
        """Whole rows and lost stretches, in the file's order; once."""
        if not self.header:
            return
        self._lines.take()
        self._lines.forget()
        while True:
            begin = self._lines.at
            try:
                fields = next(csv.reader(self._lines, delimiter=self.delimiter, strict=True), None)
            except csv.Error as error:
                # A quote that is never closed takes in all that follows: only its line is lost.
                text = self._lines.back_to_second()
                yield Lost(begin, self._lines.at - begin, f"broken row: {error}", text[:SHOWN])
                continue
            if fields is None:
                return
            cut = self._lines.fault and not self._lines.ends_line
            self._lines.forget()
            if fields and cut:
                yield Lost(begin, self._lines.at - begin, "cut off", str(fields)[:SHOWN])
            elif fields:
                yield Whole(*self._row(fields))

    def _row(self, fields: list[str]) -> tuple[dict[str, str], int, str]:
        fault = ""
        if len(fields) != len(self.header):
            fault = f"{len(fields)} fields under a header of {len(self.header)}"
        elif any("\udc80" <= c <= "\udcff" for field in fields for c in field if c > "\ud7ff"):
            fault = "invalid UTF-8"
        return dict(zip(self.header, fields, strict=False)), self._lines.at, fault


class _Lines:
    """Lines of a file that can be gone back to until they are forgotten."""

    def __init__(self, path: Path) -> None:
        self._file = Reader(path)
        # Invalid bytes become lone surrogates, so that byte offsets stay exact.
        self._utf8 = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._ready: deque[str] = deque()
        self._rest = ""
        self._taken: list[str] = []
        self._size = 0
        self._eof = False
        self.at = 0

    @property
    def fault(self) -> str:
        """Why the file could be unpacked only so far."""
        return self._file.fault

    @property
    def ends_line(self) -> bool:
        """Whether what was taken ends with the end of a line."""
        return bool(self._taken) and self._taken[-1].endswith("\n")

    def peek(self) -> str:
        """The next line, or nothing; it stays."""
        while not self._ready and not self._eof:
            data = self._file.read(_CHUNK)
            self._eof = not data
            text = self._rest + self._utf8.decode(data, final=self._eof)
            lines = text.split("\n")
            self._rest = lines.pop()
            self._ready.extend(f"{line}\n" for line in lines)
            if len(self._rest) > _LONGEST or (self._eof and self._rest):
                self._ready.append(self._rest)
                self._rest = ""
        return self._ready[0] if self._ready else ""

    def take(self) -> str:
        """The next line, or nothing."""
        line = self.peek()
        if line:
            self._ready.popleft()
            self._taken.append(line)
            self._size += len(line)
            self.at += _bytes(line)
        return line

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._size > _LONGEST:
            raise csv.Error("a quote is never closed")
        if line := self.take():
            return line
        raise StopIteration

    def forget(self) -> None:
        """What was taken will not be asked for again."""
        self._taken.clear()
        self._size = 0

    def back_to_second(self) -> str:
        """Put all but the first of the taken lines back; the first is returned."""
        first, *others = self._taken
        self._ready.extendleft(reversed(others))
        self.at -= sum(map(_bytes, others))
        self.forget()
        return first

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _bytes(line: str) -> int:
    return len(line) if line.isascii() else len(line.encode("utf-8", "surrogateescape"))


def parquet(path: Path, columns: frozenset[str]) -> Iterator[Whole | Lost]:
    """The rows of a Parquet file, of which only these columns are read.

    A row group that cannot be read is lost as a whole. Raises pyarrow.ArrowInvalid for a file
    without its footer, which comes last.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, memory_map=True) as file:
        names = [name for name in file.schema_arrow.names if name.lower() in columns]
        at = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            begin = at
            try:
                for batch in file.iter_batches(_ROWS, row_groups=[group], columns=names):
                    yield from _batch(batch, at)
                    at += batch.num_rows
            except (*BAD, pa.ArrowException) as error:
                reason = f"unreadable row group: {_told(error)}"
                yield Lost(at, 0, reason, "", rows=begin + rows - at)
            at = begin + rows


def arrow(path: Path, columns: frozenset[str]) -> Iterator[Whole | Lost]:
    """The rows of an Arrow file or stream, as `Dataset.save_to_disk` writes it.

    Behind a batch that cannot be read, all bytes are lost.
    """
    import pyarrow as pa

    at = 0
    with pa.memory_map(str(path)) as source:
        # A file is a stream between two marks; without its index, which comes last, it is read so.
        source.seek(8 if source.read(6) == b"ARROW1" else 0)
        stream = pa.ipc.open_stream(source)
        begin = source.tell()
        while True:
            try:
                batch = stream.read_next_batch()
                # Offsets that lead out of the file would end the process.
                batch.validate(full=True)
            except StopIteration:
                return
            except (*BAD, pa.ArrowException) as error:
                lost = source.size() - begin
                yield Lost(begin, lost, f"unreadable behind row {at}: {_told(error)}", "")
                return
            begin = source.tell()
            kept = [name for name in batch.schema.names if name.lower() in columns]
            for start in range(0, batch.num_rows, _ROWS):
                yield from _batch(batch.select(kept).slice(start, _ROWS), at + start)
            at += batch.num_rows


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:100]


def _batch(batch: Any, at: int) -> Iterator[Whole | Lost]:
    import pyarrow as pa

    try:
        rows = batch.to_pylist()
    except (*BAD, pa.ArrowException):
        rows = None
    if rows is None:
        # One bad cell must not take the rows beside it along.
        for i in range(batch.num_rows):
            try:
                (value,) = batch.slice(i, 1).to_pylist()
            except (*BAD, pa.ArrowException) as error:
                yield Whole({}, at + i + 1, f"unreadable row: {_told(error)}")
            else:
                yield Whole(value, at + i + 1)
        return
    for i, value in enumerate(rows):
        yield Whole(value, at + i + 1)
