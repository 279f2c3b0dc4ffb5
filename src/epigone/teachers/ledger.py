"""Every answer that was ever paid for: appended, checksummed, on the disk before it counts."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from epigone.errors import EndpointError, HeldElsewhere
from epigone.files import canonical
from epigone.models.endpoint import Endpoint

# {"sum":"<16 hex digits>","row":<JSON>}: what is hashed is found without reading the JSON.
_HEAD, _TAIL = b'{"sum":"', b'","row":'
_START = len(_HEAD) + 16 + len(_TAIL)

# sent: a request is about to leave, which may cost `most`. came: its answer, which cost `cost`.
# void: it failed in a way that no one is billed for. lost: what came was no answer.
Kind = Literal["sent", "came", "void", "lost"]


@dataclass(frozen=True, slots=True)
class Row:
    """One line: what happened to the request of this key."""

    kind: Kind
    key: str
    told: Mapping[str, Any]

    def line(self) -> bytes:
        """The line with its checksum."""
        row = canonical({"kind": self.kind, "key": self.key, **self.told}).encode()
        return _HEAD + hashlib.sha256(row).hexdigest()[:16].encode() + _TAIL + row + b"}\n"


def key_of(path: str, body: Mapping[str, Any], sample: int, again: int = 0) -> str:
    """Names a request: sha256 of its path and body, which of its samples, and how often re-asked.

    Where it is sent is not in it: a ledger belongs to one endpoint.
    """
    told = canonical({"path": path, "body": body, "sample": sample, "again": again})
    return hashlib.sha256(told.encode()).hexdigest()


def ledger_file(folder: Path, endpoint: Endpoint) -> Path:
    """The ledger of one model at one endpoint, in a folder of ledgers."""
    url = endpoint.url.rstrip("/")
    name = f"{url.partition('//')[2]}#{endpoint.model}"
    slug = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")[:60]
    return (
        folder
        / f"{slug}-{hashlib.sha256(f'{url}#{endpoint.model}'.encode()).hexdigest()[:8]}.jsonl"
    )


class Ledger:
    """Answers by what was asked; one process at a time adds to it.

    `spent` is the sum of what answers cost. `open` is what requests may have cost whose answers
    never came: those in flight at a kill or a lost connection. Both are in US dollars.
    """

    def __init__(self, path: Path) -> None:
        """Open and read it; a last line that is cut off goes, a damaged one is not counted.

        Raises HeldElsewhere while another process adds to it, EndpointError where it cannot be
        written.
        """
        self.path = path
        self.damaged = 0
        self.spent = Decimal(0)
        self.answers = 0
        self._places: dict[str, tuple[int, int]] = {}
        self._sent: dict[str, list[Decimal]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+b")  # noqa: SIM115
        except OSError as error:
            raise EndpointError(
                "the ledger cannot be written", value=str(path), fix=error.strerror or ""
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise HeldElsewhere(
                "another process is asking this endpoint", value=str(path), fix="wait for its end"
            ) from None
        self._read()

    @property
    def open(self) -> Decimal:
        """US dollars that requests without an answer may have cost."""
        return sum((most for mosts in self._sent.values() for most in mosts), Decimal(0))

    def close(self) -> None:
        """Close it, so that another process may add to it."""
        self._file.close()

    def _read(self) -> None:
        self._file.seek(0)
        at = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                # What a kill cut off was never counted.
                self._file.truncate(at)
                break
            row = _checked(line)
            if row is None:
                self.damaged += 1
            else:
                self._count(row, at, len(line))
            at += len(line)
        self._end = at

    def _count(self, row: Mapping[str, Any], at: int, length: int) -> None:
        key = row["key"]
        if row["kind"] == "sent":
            self._sent.setdefault(key, []).append(Decimal(row["most"]))
            return
        if row["kind"] != "lost" and key in self._sent:
            # Of several attempts the last one is answered.
            self._sent[key].pop()
            if not self._sent[key]:
                del self._sent[key]
        if row["kind"] == "came":
            self.spent += Decimal(row["cost"])
            if key not in self._places:
                self.answers += 1
                self._places[key] = at, length

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows together; answers among them count once they are on the disk.

        Raises OSError, as for a full disk; nothing of it counts then.
        """
        lines = [row.line() for row in rows]
        try:
            self._file.write(b"".join(lines))
            self._file.flush()
            if any(row.kind in ("came", "lost") for row in rows):
                os.fdatasync(self._file.fileno())
        except OSError:
            os.ftruncate(self._file.fileno(), self._end)
            raise
        for row, line in zip(rows, lines, strict=True):
            self._count({"kind": row.kind, "key": row.key, **row.told}, self._end, len(line))
            self._end += len(line)

    def __contains__(self, key: str) -> bool:
        """Whether the answer came."""
        return key in self._places

    def get(self, key: str) -> dict[str, Any] | None:
        """The row of an answer, if it came."""
        place = self._places.get(key)
        if place is None:
            return None
        line = os.pread(self._file.fileno(), place[1], place[0])
        row = _checked(line)
        if row is None:
            raise EndpointError("the ledger changed under us", value=str(self.path))
        return row


def _checked(line: bytes) -> dict[str, Any] | None:
    """The row of a line, None for a damaged one."""
    row = line[_START:-2]
    told = line[len(_HEAD) : len(_HEAD) + 16]
    if hashlib.sha256(row).hexdigest()[:16].encode() != told:
        return None
    found: dict[str, Any] = json.loads(row)
    return found
