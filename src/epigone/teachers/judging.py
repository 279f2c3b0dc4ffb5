"""What a judge said: verdicts, faults, answers written anew."""

from __future__ import annotations

import re
from collections.abc import Sequence

from epigone.models.marks import ESCAPED, MARK

_WRAPPED = re.compile(r"\s*<answer>(.*)</answer>\s*", re.IGNORECASE | re.DOTALL)
# Bold type, quotes (typographic ones, too) and brackets.
_AROUND = r"[\s*_#`\"'\u2018\u2019\u201c\u201d()\[\]]*+"
_VERDICT = re.compile(
    rf"\s*+-?{_AROUND}better{_AROUND}[:\uff1a]{_AROUND}(?:answer{_AROUND})?"
    rf"([012])[.!]?{_AROUND}[.!]?\s*",
    re.IGNORECASE,
)
_NO_FAULT = re.compile(rf"\s*+-?{_AROUND}no faults?[.!]?{_AROUND}[.!]?\s*", re.IGNORECASE)


def verdict(text: str) -> int | None:
    """Which place the last line that is a verdict prefers, 0 for neither; None without such a line.

    Bold type, quotes and stops do not matter; any other word beside it does.
    """
    for line in reversed(text.split("\n")):
        if found := _VERDICT.fullmatch(line):
            return int(found[1])
    return None


def check_verdict(text: str) -> str:
    """What is wrong with a judge's reply."""
    return "no verdict" if verdict(text) is None else ""


def no_fault(text: str) -> bool:
    """Whether a critique says that there is nothing to criticise."""
    return bool(_NO_FAULT.fullmatch(text.strip()))


def check_critique(text: str) -> str:
    """What is wrong with a critique."""
    if not no_fault(text) and any(map(no_fault, text.split("\n"))):
        return "both a critique and no fault"
    return "characters that no text has" if "\x00" in text else ""


def revision(text: str, before: Sequence[str]) -> str:
    """The new answer in a reply; `before` are the texts that the marks might stem from.

    What was escaped in them is itself again, and marks around all of it are none of it.
    """
    if any(map(MARK.search, before)):
        return ESCAPED.sub("<", text).strip()
    wrapped = _WRAPPED.fullmatch(text)
    return (wrapped[1] if wrapped else text).strip()


def check_revision(text: str, before: Sequence[str]) -> str:
    """What is wrong with a reply that should be a new answer."""
    new = revision(text, before)
    if not new:
        return "empty"
    if MARK.search(new) and not any(map(MARK.search, before)):
        return "marks in the new answer"
    return "characters that no text has" if "\x00" in new else ""
