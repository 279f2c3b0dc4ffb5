"""One conversation as a file has it, or a value that is none: what all formats share."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from epigone.corpus.privacy import redacted
from epigone.corpus.selection import content_hash
from epigone.schema import Message

_HARMFUL = re.compile("[\x00\ud800-\udfff]")
# ShareGPT's ids have seven characters; a split file counts the parts of one dialogue behind them.
_PART = re.compile(r"[A-Za-z0-9]{7}_[1-9][0-9]*")
_DAY = re.compile(r"(\d{4})[-/](\d{2})[-/](\d{2})(?!\d)")
_DATES = ("date", "timestamp", "created_at", "create_time", "created", "time")
# Epoch times outside of 2015 to 2100 are something else.
_EPOCH = (1_420_000_000, 4_102_000_000)


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation as the file has it.

    `id` is the file's own id with a hash of the content behind it; `part` is true if the row
    says that it is the continuation of another one; `teacher` and `date` are empty where the row
    names none. `end` is the place behind it in the file, `taken` the number of the file's values
    that it was made of (0 for another conversation of the same value).
    """

    id: str
    turns: tuple[Message, ...]
    part: bool
    teacher: str
    end: int
    date: str = ""
    taken: int = 1


@dataclass(frozen=True, slots=True)
class Invalid:
    """A value of a file that is no conversation, and why."""

    reason: str
    text: str
    end: int
    taken: int = 1


def invalid(reason: str, value: Any, end: int, taken: int = 1) -> Invalid:
    """An `Invalid` that shows how the value begins."""
    return Invalid(reason, repr(value)[:2_000], end, taken)


def row(
    turns: Sequence[Message], value: dict[str, Any], end: int, *, teacher: str = "", taken: int = 1
) -> Row | str:
    """A row with the id, the model and the date that `value` names, or the reason for none."""
    for turn in turns:
        if harm := _HARMFUL.search(turn.content):
            return "NUL character" if harm[0] == "\x00" else "lone surrogate"
    # A name may be an address or a key; no rule is asked for those of rows.
    own = redacted(label(value.get("id")))
    key = content_hash(turns)
    return Row(
        # The same id may stand on several rows; with the content's hash it cannot mislead.
        id=f"{own}-{key[:8]}" if own else key[:16],
        turns=tuple(turns),
        part=_PART.fullmatch(own) is not None,
        teacher=redacted(label(value.get("model"))) or teacher,
        end=end,
        date=next((day for name in _DATES if (day := date(value.get(name)))), ""),
        taken=taken,
    )


def label(value: Any) -> str:
    """A short printable name, or nothing."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    try:
        text = str(value)[:100]
    except ValueError:  # an integer of thousands of digits
        return ""
    return text if text.isprintable() else ""


def date(value: Any) -> str:
    """The day of a date, an ISO time or an epoch time in seconds as YYYY-MM-DD, or nothing."""
    try:
        if isinstance(value, datetime.date):
            return value.isoformat()[:10]
        if isinstance(value, str) and (found := _DAY.match(value.strip())):
            return datetime.date(*map(int, found.groups())).isoformat()
        if isinstance(value, int | float) and _EPOCH[0] < value < _EPOCH[1]:
            return datetime.datetime.fromtimestamp(value, datetime.UTC).date().isoformat()
    except (ValueError, OverflowError):
        pass
    return ""
