"""Files of feedback to the values in them; a value that is broken costs itself alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from epigone.errors import CorpusError

FILES = (".json", ".jsonl", ".ndjson", ".parquet")

_NESTING = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)
_BETWEEN = re.compile(r"[\s,]*")
_SPLIT = re.compile(r"(train|test|validation|valid|val|dev|eval)(?=[-_.])", re.IGNORECASE)


class Unusable(Exception):
    """Why a value of a file cannot be used."""


def data_files(path: Path) -> list[Path]:
    """The file itself, or the data files of a folder in the order of their names.

    Raises CorpusError for a folder without any.
    """
    if not path.is_dir():
        return [path]
    seen = [
        f
        for f in sorted(path.rglob("*"))
        if f.suffix.lower() in FILES
        and f.is_file()
        and not any(part.startswith(".") for part in f.relative_to(path).parts)
    ]
    splits = {f: m[1].lower() for f in seen if (m := _SPLIT.match(f.name))}
    # As data sets lie on the hub; what they test with is not to be trained on.
    if "train" in splits.values():
        seen = [f for f in seen if splits.get(f, "train") == "train"]
    if not seen:
        raise CorpusError(
            "no data files in this folder", value=str(path), fix=f"known: {', '.join(FILES)}"
        )
    return seen


def beginning(file: Path) -> str:
    """How a file begins, for a message."""
    with open(file, "rb") as f:
        return f.read(400).decode("utf-8", "replace")


def values_of(file: Path) -> Iterator[Any]:
    """The values of a file; in place of one that cannot be read stands an `Unusable`.

    Raises CorpusError for a file that is broken beyond a value.
    """
    with open(file, "rb") as f:
        magic = f.read(4)
        f.seek(0)
        if magic == b"PAR1":
            yield from _parquet(file)
            return
        begin = f.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
        f.seek(0)
        if begin == b"[":
            yield from _array(file.name, f.read())
            return
        for line in f:
            if line.strip(b"\xef\xbb\xbf \t\r\n"):
                yield _line(line)


def _line(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except RecursionError:
        return Unusable("nested too deeply")
    except ValueError as error:
        broken = isinstance(error, UnicodeDecodeError)
        return Unusable("not UTF-8" if broken else "broken JSON")


def _array(name: str, data: bytes) -> Iterator[Any]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{name} is not UTF-8", value=str(error)) from None
    decode = json.JSONDecoder().raw_decode
    at = text.index("[") + 1
    while True:
        at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]
        if text[at : at + 1] == "]":
            return
        try:
            value, at = decode(text, at)
        except RecursionError:
            value, at = Unusable("nested too deeply"), _behind(text, at)
        except json.JSONDecodeError as error:
            raise CorpusError(
                f"{name}: {error.msg} at character {error.pos}",
                value=text[at : at + 100],
                fix="download it again, or write one row a line",
            ) from None
        except ValueError:  # an integer of thousands of digits
            value, at = Unusable("broken JSON"), _behind(text, at)
        yield value


def _behind(text: str, at: int) -> int:
    """The place behind the array or object that begins at `at`."""
    depth = 0
    for found in _NESTING.finditer(text, at):
        mark = found[0]
        depth += (mark in "[{") - (mark in "]}")
        if depth == 0:
            return found.end()
    return len(text)


def _parquet(file: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=256):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        raise CorpusError(
            f"{file.name} cannot be read as a Parquet file",
            value=" ".join(str(error).split())[:100],
            fix="download it again",
        ) from None
