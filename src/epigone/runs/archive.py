"""What an archive of a study is: its manifest, and what may be in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from epigone.errors import UserError
from epigone.formats import ARCHIVE
from epigone.runs.lock import NAME, STUDY, may_lie
from epigone.runs.verify import LEDGERS, RATINGS, may_be_left

MANIFEST = "epigone.json"
ROOT = "study"
# Ends of archives' names, and how they are packed.
ENDS = {".tar": "", ".tar.gz": "gz", ".tar.zst": "zst"}
LARGEST_MANIFEST = 256 << 20

_LEDGER = re.compile(r"[a-z0-9][a-z0-9.-]{0,100}\.jsonl")
_SHA = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")


class Hostile(UserError):
    """An archive that Epigone has not made."""

    def __init__(self, why: str, value: object = None) -> None:
        super().__init__(
            f"not an archive of a study: {why}", value=value, fix="make it with epigone export"
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of an archive."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive holds: files by their names in it.

    `done` of `steps` steps are in it. `needs` are the fingerprints of local data that the study
    names and that is not in it, by reference; `left_out` the steps' files that were left out.
    """

    study: str
    done: int
    steps: int
    files: Mapping[str, Entry]
    needs: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the layout of an archive."""
        return ARCHIVE.mark(
            {
                "study": self.study,
                "done": self.done,
                "steps": self.steps,
                "needs": dict(self.needs),
                "left_out": list(self.left_out),
                "files": {name: [e.sha256, e.size] for name, e in self.files.items()},
            }
        )

    @classmethod
    def from_json(cls, row: Any, file: str) -> Manifest:
        """The inverse of `to_json`, of an archive called `file`.

        Raises Hostile for what no export writes, NewerFormat for an archive of a newer Epigone.
        """
        try:
            ARCHIVE.of(row, file)
            found = cls(
                study=row["study"],
                done=int(row["done"]),
                steps=int(row["steps"]),
                files={name: Entry(sha, size) for name, (sha, size) in row["files"].items()},
                needs={str(k): str(v) for k, v in row["needs"].items()},
                left_out=tuple(map(str, row["left_out"])),
            )
            _check(found)
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
            raise Hostile("its list of contents is damaged") from None
        return found


def _check(manifest: Manifest) -> None:
    if not _NAME.fullmatch(manifest.study):
        raise Hostile("no name of a study", manifest.study)
    seen: set[str] = set()
    for name, entry in manifest.files.items():
        whole = isinstance(entry.size, int) and not isinstance(entry.size, bool)
        if not whole or entry.size < 0 or not _SHA.fullmatch(entry.sha256):
            raise Hostile("a file without size or hash", name)
        if not _may_be(name):
            raise Hostile("a file that is no part of a study", name)
        # Two names that are one on some machines.
        if name.casefold() in seen:
            raise Hostile("one name twice", name)
        seen.add(name.casefold())
    for name in seen:
        if any(name[:at] in seen for at, letter in enumerate(name) if letter == "/"):
            raise Hostile("a file below a file", name)
    for name in manifest.left_out:
        if not may_be_left(name) or f"{ROOT}/{name}" in manifest.files:
            raise Hostile("left out of it is what can be no student's weights", name)
    for needed in (STUDY, NAME):
        if f"{ROOT}/{needed}" not in manifest.files:
            raise Hostile("it lacks a file", needed)


def _may_be(name: str) -> bool:
    """Whether a file of an archive lies where a study has files, and nowhere else."""
    match name.split("/"):
        case [top, file] if top == LEDGERS:
            return _LEDGER.fullmatch(file) is not None
        case [top, file] if top == ROOT:
            return file in (STUDY, NAME, RATINGS)
        case [top, *rest] if top == ROOT:
            return may_lie("/".join(rest))
    return False
