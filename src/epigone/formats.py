"""The layouts of files that Epigone writes and reads again: a number for each kind of file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epigone.errors import NewerFormat
from epigone.files import read_json, write_json

_KEY = "format"


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file, and the newest layout of it that this Epigone knows.

    A file that names no layout has the first.
    """

    what: str
    newest: int

    def of(self, document: Mapping[str, Any], file: Path | str) -> int:
        """The layout of a file's document; raises NewerFormat for one that is not known here."""
        found = document.get(_KEY, 1)
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            raise ValueError(f"its format is no number: {str(found)[:40]}")
        if found > self.newest:
            raise NewerFormat(self.what, found, self.newest, str(file))
        return found

    def mark(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """A document with its layout before all."""
        return {_KEY: self.newest, **document}


# 2: sizes of the outputs. What a step's other files hold is told by its stage's version, which is
# part of the step's identity.
RECORD = Format("a step's record", 2)
# 2: the folder where the study file lay, and copies of the texts that it names.
LOCK = Format("a study's lock file", 2)
LEDGER = Format("a ledger", 1)
LEASE = Format("a study's lease", 1)
ARCHIVE = Format("an archive", 1)
LEFT_OUT = Format("a list of files left out", 1)
# 2: the rows below a key of their own.
_CACHE = Format("a cache", 2)


def read_cache(file: Path) -> dict[str, Any]:
    """The rows of a cache's file; none where it is absent, damaged, or of a newer Epigone."""
    try:
        found = read_json(file)
        rows = found["rows"] if _CACHE.of(found, file) > 1 else found
    except (OSError, ValueError, TypeError, KeyError, AttributeError, NewerFormat):
        return {}
    return rows if isinstance(rows, dict) else {}


def write_cache(file: Path, rows: Mapping[str, Any]) -> None:
    """Write a cache's file whole; raises OSError."""
    write_json(file, cache_document(rows))


def cache_document(rows: Mapping[str, Any]) -> dict[str, Any]:
    """What a cache's file holds."""
    return _CACHE.mark({"rows": rows})
