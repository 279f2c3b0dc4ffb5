"""What a judge is shown, and what it said: marks that no text can close, verdicts, faults."""

from __future__ import annotations

import re
from collections.abc import Sequence

from epigone.schema import Message

# The names of the marks in wordings.yaml, and whatever may stand in a mark before its name.
_MARK = re.compile(
    r"<(?=[^\w<>]*+(?:answer|conversation|turn|critique|principles)(?!\w))", re.IGNORECASE
)
_ESCAPED = re.compile(_MARK.pattern.replace("<", "&lt;", 1), re.IGNORECASE)
_WRAPPED = re.compile(r"\s*<answer>(.*)</answer>\s*", re.IGNORECASE | re.DOTALL)
# Bold type, quotes (typographic ones, too) and brackets.
_AROUND = r"[\s*_#`\"'\u2018\u2019\u201c\u201d()\[\]]*+"
_VERDICT = re.compile(
    rf"\s*+-?{_AROUND}better{_AROUND}[:\uff1a]{_AROUND}(?:answer{_AROUND})?"
    rf"([012])[.!]?{_AROUND}[.!]?\s*",
    re.IGNORECASE,
)
_NO_FAULT = re.compile(rf"\s*+-?{_AROUND}no faults?[.!]?{_AROUND}[.!]?\s*", re.IGNORECASE)


def shown(text: str) -> str:
    """A text as it may stand between marks: of what looks like one of them, "<" is escaped."""
    return _MARK.sub("&lt;", text)


def conversation(messages: Sequence[Message]) -> str:
    """Turns as a judge is shown them."""
    return "\n".join(f'<turn role="{m.role}">\n{shown(m.content)}\n</turn>' for m in messages)


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
    if any(map(_MARK.search, before)):
        return _ESCAPED.sub("<", text).strip()
    wrapped = _WRAPPED.fullmatch(text)
    return (wrapped[1] if wrapped else text).strip()


def check_revision(text: str, before: Sequence[str]) -> str:
    """What is wrong with a reply that should be a new answer."""
    new = revision(text, before)
    if not new:
        return "empty"
    if _MARK.search(new) and not any(map(_MARK.search, before)):
        return "marks in the new answer"
    return "characters that no text has" if "\x00" in new else ""
