"""Files of samples: the names of their models, and what their rows hold."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from epigone.errors import CorpusError
from epigone.files import read_jsonl
from epigone.models.received import sound


def names_of(paths: Sequence[Path]) -> list[str]:
    """Names of files: the stem, else the folder, else the path, of those that share a shorter one.

    Raises CorpusError for a file that is given twice.
    """
    for i, path in enumerate(paths):
        if path.resolve() in {p.resolve() for p in paths[:i]}:
            raise CorpusError("a file is given twice", value=str(path), fix="name each once")
    # A file of the working directory has no folder to be named by.
    told = [(p.stem, p.parent.name.strip(".") or p.stem, str(p)) for p in paths]
    longer = [0] * len(paths)
    while True:
        names = [sound(forms[k]) for forms, k in zip(told, longer, strict=True)]
        alike = [i for i, n in enumerate(names) if names.count(n) > 1 and longer[i] < 2]
        if not alike:
            return names
        for i in alike:
            longer[i] += 1


def rows_of(path: Path, what: str = "samples") -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Rows of a JSONL file with their item, and where each stands; `what` they hold, for mistakes.

    An item is the row's `item`, or its `id` where that is none. Raises CorpusError for a file that
    cannot be read, a row without an item, an item given twice, and no row at all.
    """
    seen: set[str] = set()
    try:
        for number, row in enumerate(read_jsonl(path), 1):
            where = f"{path}:{number}"
            told = None
            if isinstance(row, dict):
                told = row["id"] if row.get("item") is None and "id" in row else row.get("item")
            if not isinstance(told, str | int | float):
                raise CorpusError(f"{where}: no item in this row")
            item = sound(str(told))
            if item in seen:
                raise CorpusError(f"{where}: item given twice", value=item)
            seen.add(item)
            yield item, row, where
    except (OSError, ValueError) as error:
        why = str(error)
        if isinstance(error, OSError):
            why = (error.strerror or why).lower()
            there = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            if near := difflib.get_close_matches(path.name, there, n=1):
                why += f"; did you mean {near[0]!r}?"
        raise CorpusError(f"{what} cannot be read", value=str(path), fix=why) from None
    if not seen:
        raise CorpusError(f"no {what} in the file", value=str(path))


def output_of(row: Mapping[str, Any], where: str) -> str:
    """What a model said; raises CorpusError where a row has no output."""
    if not isinstance(row.get("output"), str):
        raise CorpusError(f"{where}: no output in this row")
    return sound(row["output"])
