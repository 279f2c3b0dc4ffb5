"""Every answer that was ever paid for: appended, checksummed, on the disk before it counts."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from epigone.errors import EndpointError, HeldElsewhere
from epigone.files import canonical, fsync_dir
from epigone.formats import LEDGER

if TYPE_CHECKING:
    # Its HTTP client would be loaded by every command, and most ask nobody.
    from epigone.models.endpoint import Endpoint

# {"sum":"<16 hex digits>","row":<JSON>}: what is hashed is found without reading the JSON.
_HEAD, _TAIL = b'{"sum":"', b'","row":'
# What left in the last minute still counts against its limits.
_RECENT = 65.0
_START = len(_HEAD) + 16 + len(_TAIL)

# sent: a request is about to leave, which may cost `most`. came: its answer, which cost `cost`.
# void: it failed in a way that no one is billed for. lost: what came was no answer; where it was
# `whole` JSON, it would be the same again.
# batch: what became of a batch, whose own id is the key and stands in the `sent` of its requests:
# its file is "uploaded" and it may be made at any moment, it is "made", it is "done".
# format: the layout of the rows from here on; it has no key.
Kind = Literal["sent", "came", "void", "lost", "batch", "format"]


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


class Sent(NamedTuple):
    """A request whose answer is not there: for what it was asked, what it may cost, its batch."""

    purpose: str
    most: Decimal
    batch: str


@dataclass(slots=True)
class Batch:
    """A batch that is not done: where its requests without an answer stand in the ledger, by key.

    `told` is what its own lines say: the `file` of its requests, its `name` at the endpoint, its
    `price`, when it went (`at`).
    """

    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the endpoint calls it, empty where that is not known."""
        return str(self.told.get("name", ""))


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

    `spent` is what the answers cost that were asked for one `purpose`, a study's or a folder's;
    `open` what its requests may have cost whose answers never came: those in flight at a kill or a
    lost connection. Both are in US dollars, as is `elsewhere`, what other endpoints cost of the
    same budget. `batches` are those that are not done, by their own id.
    """

    def __init__(
        self,
        path: Path,
        purpose: str = "",
        waits: Callable[[], None] | None = None,
        *,
        look: bool = False,
    ) -> None:
        """Open and read it; a last line that is cut off goes, a damaged one is not counted.

        While another process adds to it, `waits` is called and its end waited for; without it,
        HeldElsewhere is raised. To `look` is to read what is there and add nothing, whoever holds
        it. Raises EndpointError where the ledger cannot be written, NewerFormat where a newer
        Epigone wrote it.
        """
        self.path = path
        self.purpose = purpose
        self.damaged = 0
        self.spent = self.elsewhere = Decimal(0)
        self._look = look
        self._recent: list[tuple[float, int]] = []
        self._refused: dict[str, str] = {}
        self._places: dict[str, tuple[int, int]] = {}
        self._sent: dict[str, list[Sent]] = {}
        self.batches: dict[str, Batch] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDONLY if look else os.O_RDWR | os.O_CREAT | os.O_APPEND
            self._fd = os.open(path, flags, 0o644)
        except OSError as error:
            raise _unusable(path, error) from None
        try:
            if not look:
                fsync_dir(path.parent)
                self._lock(waits)
            self._end = self._read()
            if not (look or self._end):
                self.write([Row("format", "", LEDGER.mark({}))], sync=True)
        except BaseException as error:
            os.close(self._fd)
            if isinstance(error, OSError):
                raise _unusable(path, error) from None
            raise

    def _lock(self, waits: Callable[[], None] | None) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waits is None:
                raise HeldElsewhere(
                    "another process is asking this endpoint", value=str(self.path),
                    fix="wait for its end",
                ) from None  # fmt: skip
            waits()
            fcntl.flock(self._fd, fcntl.LOCK_EX)

    @property
    def open(self) -> Decimal:
        """US dollars that requests without an answer may have cost."""
        mosts = (s.most for sent in self._sent.values() for s in sent if s.purpose == self.purpose)
        return sum(mosts, Decimal(0))

    @property
    def told(self) -> tuple[Decimal, Decimal]:
        """What counts against a budget: what answers cost anywhere, and requests without one."""
        return self.spent + self.elsewhere, self.open

    @property
    def in_batches(self) -> Decimal:
        """How much of `open` is in batches that are not done."""
        mosts = (
            attempt.most
            for own, batch in self.batches.items()
            for key in batch.places
            for attempt in self._sent[key]
            if attempt.batch == own and attempt.purpose == self.purpose
        )
        return sum(mosts, Decimal(0))

    @property
    def recent(self) -> list[tuple[float, float]]:
        """Of requests that left in the minute before it was opened: seconds since then, tokens."""
        now = time.time()
        return [(max(0.0, now - at), tokens) for at, tokens in self._recent]

    def __len__(self) -> int:
        """How many answers it holds."""
        return len(self._places)

    def close(self) -> None:
        """Close it, so that another process may add to it."""
        os.close(self._fd)

    def _read(self) -> int:
        at = 0
        with open(self.path, "rb") as file:
            # The size as it is now: what is appended below is no line of its own.
            left = os.fstat(self._fd).st_size
            while left > at:
                line = file.readline()
                row = _checked(line)
                if self._look and not line.endswith(b"\n"):
                    break
                if not line.endswith(b"\n"):
                    row = _checked(line + b"\n")
                    if row is None:
                        # What a kill cut off was never counted.
                        os.ftruncate(self._fd, at)
                        break
                    os.write(self._fd, b"\n")
                    line += b"\n"
                if row is None:
                    self.damaged += 1
                else:
                    self._count(row, at, len(line))
                at += len(line)
        self._forget_unsent()
        return at

    def _forget_unsent(self) -> None:
        """A batch without a line of its own was never uploaded, and nobody is billed for it."""
        for own in [own for own, batch in self.batches.items() if not batch.told]:
            for key in self.batches.pop(own).places:
                left = [sent for sent in self._sent[key] if sent.batch != own]
                if left:
                    self._sent[key] = left
                else:
                    del self._sent[key]

    def _count(self, row: Mapping[str, Any], at: int, length: int) -> None:
        key = row["key"]
        if row["kind"] == "format":
            LEDGER.of(row, self.path)
            return
        if row["kind"] == "batch":
            self._count_batch(row)
            return
        if row["kind"] == "sent":
            sent = Sent(row["for"], Decimal(row["most"]), row.get("batch", ""))
            self._sent.setdefault(key, []).append(sent)
            if sent.batch:
                self.batches.setdefault(sent.batch, Batch()).places[key] = (at, length)
            elif row["at"] > time.time() - _RECENT:
                self._recent.append((row["at"], row["tokens"]))
            return
        attempts = self._sent.get(key, [])
        ended = _ended(attempts, row.get("batch", ""))
        last = attempts[ended] if attempts else Sent(self.purpose, Decimal(0), "")
        if row["kind"] == "came":
            if last.purpose == self.purpose:
                self.spent += Decimal(row["cost"])
            self._places.setdefault(key, (at, length))
        if row["kind"] == "lost" and row.get("whole"):
            self._refused[key] = row["why"]
        if attempts and row["kind"] != "lost":
            attempts.pop(ended)
            if not attempts:
                del self._sent[key]
        # Last: whoever reads meanwhile finds the answer once it is in no batch any more.
        if last.batch in self.batches:
            self.batches[last.batch].places.pop(key, None)

    def _count_batch(self, row: Mapping[str, Any]) -> None:
        if row["state"] == "done":
            self.batches.pop(row["key"], None)
        else:
            told = {n: v for n, v in row.items() if n not in ("kind", "key")}
            self.batches.setdefault(row["key"], Batch()).told.update(told)

    def write(self, rows: Sequence[Row], *, sync: bool = False) -> None:
        """Append rows together; answers among them count once they are on the disk.

        `sync` puts the others on the disk as well. Raises OSError, as for a full disk; nothing of
        it counts then.
        """
        lines = [row.line() for row in rows]
        left = memoryview(b"".join(lines))
        try:
            while left:
                left = left[os.write(self._fd, left) :]
            if sync or any(row.kind in ("came", "lost") for row in rows):
                os.fdatasync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._end)
            raise
        for row, line in zip(rows, lines, strict=True):
            self._count({"kind": row.kind, "key": row.key, **row.told}, self._end, len(line))
            self._end += len(line)

    def merge(self, other: Path) -> int:
        """Append the rows of another ledger that this one lacks; how many these were.

        Equal rows count as often as they stand there. They count here once it is opened again.
        """
        here = Counter(line[:_START] for line in sound(self.path) if line)
        came = 0
        with open(self._fd, "ab", closefd=False) as end:
            for line in filter(None, sound(other)):
                known = here[line[:_START]] > 0
                here[line[:_START]] -= 1
                came += 0 if known else end.write(line) > 0
        os.fdatasync(self._fd)
        return came

    def __contains__(self, key: str) -> bool:
        """Whether the answer came."""
        return key in self._places

    def batch_of(self, key: str) -> str:
        """The own id of the batch that a request is in, empty where it is in none."""
        owns = (attempt.batch for attempt in self._sent.get(key, []))
        return next((o for o in owns if o in self.batches and key in self.batches[o].places), "")

    def check_single(self, key: str) -> None:
        """Raise EndpointError for a request in an open batch: it would be paid for twice."""
        if own := self.batch_of(key):
            raise EndpointError(
                "what is asked is in a batch that is open",
                value=self.batches[own].name or own,
                fix="wait for it with --batch, or end it with epigone teacher cancel",
            )

    def refused(self, key: str) -> str:
        """What JSON that is no answer said to a request, empty where none did."""
        return "" if key in self._places else self._refused.get(key, "")

    def get(self, key: str) -> dict[str, Any] | None:
        """The row of an answer, if it came."""
        place = self._places.get(key)
        return None if place is None else self._row(key, place)

    def asked(self, own: str, key: str) -> dict[str, Any]:
        """The row of a request that is in a batch."""
        return self._row(key, self.batches[own].places[key])

    def _row(self, key: str, place: tuple[int, int]) -> dict[str, Any]:
        row = _checked(os.pread(self._fd, place[1], place[0]))
        if row is None or row["key"] != key:
            raise EndpointError("the ledger was changed by another hand", value=str(self.path))
        return row


def sent(key: str, most: Decimal, tokens: int, purpose: str, **batch: Any) -> Row:
    """The row of a request that is about to leave: what it may cost, and for what it is asked.

    For one in a `batch` it also says what is asked, so that whoever collects it needs not know.
    """
    told = {"most": str(most), "tokens": tokens, "for": purpose, "at": round(time.time(), 3)}
    return Row("sent", key, {**told, **batch})


def _ended(attempts: Sequence[Sent], batch: str) -> int:
    """Which attempt ended: the last one of that batch, or of none."""
    found = [i for i, attempt in enumerate(attempts) if attempt.batch == batch]
    return found[-1] if found else len(attempts) - 1


def _unusable(path: Path, error: OSError) -> EndpointError:
    return EndpointError(
        "the ledger cannot be written", value=str(path), fix=error.strerror or str(error)
    )


def lost(key: str, why: str, came: str = "", *, whole: bool = False, **batch: str) -> Row:
    """The row of a request that may have been paid for, though no answer came; see `Row`."""
    told = {"why": why, "came": came, **batch}
    return Row("lost", key, {**told, "whole": True} if whole else told)


def sound(path: Path) -> Iterator[bytes | None]:
    """The whole lines of a ledger as they stand, None for each that is damaged.

    What a kill cut off at the end, or what is being written, is no line. Raises OSError.
    """
    with open(path, "rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line if _checked(line) is not None else None


def _checked(line: bytes) -> dict[str, Any] | None:
    """The row of a line, None for a damaged one."""
    row = line[_START:-2]
    told = line[len(_HEAD) : len(_HEAD) + 16]
    if hashlib.sha256(row).hexdigest()[:16].encode() != told:
        return None
    found: dict[str, Any] = json.loads(row)
    return found
