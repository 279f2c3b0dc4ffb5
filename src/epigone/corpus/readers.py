"""Files of recorded dialogues to conversations: ShareGPT and OpenAI chat, array or JSON lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epigone.corpus.selection import content_hash
from epigone.corpus.values import Lost, Values
from epigone.errors import CorpusError
from epigone.schema import Message, Role

ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "system": "system",
    "developer": "system",
    "observation": "tool",
    "tool": "tool",
    "function": "tool",
}
_OTHER_TEACHERS = ("bing", "bard")
_LISTS = ("conversations", "items", "messages")
# How many values may come before the first conversation until the format counts as unknown.
_PATIENCE = 100
_HARMFUL = re.compile("[\x00\ud800-\udfff]")
# ShareGPT's ids have seven characters; a split file counts the parts of one dialogue behind them.
_PART = re.compile(r"[A-Za-z0-9]{7}_[1-9][0-9]*")


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation as the file has it.

    `id` is the file's own id with a hash of the content behind it; `part` is true if the row
    says that it is the continuation of another one; `teacher` is empty where the row names none.
    """

    id: str
    turns: tuple[Message, ...]
    part: bool
    teacher: str
    end: int


@dataclass(frozen=True, slots=True)
class Invalid:
    """A JSON value that is no conversation, and why."""

    reason: str
    text: str
    end: int


def read(path: Path) -> Iterator[Row | Invalid | Lost]:
    """The conversations of a file, in its order, with everything that is none.

    Each row has a list of turns in `conversations`, `items` or `messages`; a turn has
    `from`/`value` or `role`/`content`. `end` is the byte offset behind a row.
    Raises CorpusError for a file in which no such row is found.
    """
    found = False
    with Values(path, _has_turns) as values:
        for seen, item in enumerate(values):
            if isinstance(item, Lost):
                yield item
                continue
            found = found or _has_turns(item.value)
            if not found and seen >= _PATIENCE:
                break
            row = "invalid UTF-8" if not item.utf8 else _row(item.value, item.end)
            yield row if isinstance(row, Row) else Invalid(row, _shown(item.value), item.end)
        if not found:
            raise CorpusError(
                f"{path.name} is of no known format, it begins with",
                value=values.head,
                fix="known: ShareGPT and OpenAI chat, as a JSON array or as JSON lines",
            )


def _has_turns(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(value.get(key), list) for key in _LISTS)


def _shown(value: Any) -> str:
    return ascii(value)[:200]


def _row(value: Any, end: int) -> Row | str:
    """A row, or the reason why it is none."""
    if not isinstance(value, dict):
        return "not an object"
    turns = next((value[key] for key in _LISTS if isinstance(value.get(key), list)), None)
    if turns is None:
        return "no list of turns"
    messages: list[Message] = []
    teacher = _label(value.get("model"))
    for turn in turns:
        if not isinstance(turn, dict):
            return "turn is not an object"
        speaker = turn.get("from", turn.get("role"))
        text = turn.get("value", turn.get("content"))
        if not isinstance(speaker, str) or not isinstance(text, str):
            return "turn without a role or a text"
        role = ROLES.get(speaker.strip().lower())
        if role is None:
            return "unknown role"
        if harm := _HARMFUL.search(text):
            return "NUL character" if harm[0] == "\x00" else "lone surrogate"
        if speaker in _OTHER_TEACHERS:
            teacher = teacher or speaker
        messages.append(Message(role, text))
    own = _label(value.get("id"))
    key = content_hash(messages)
    # The same id may stand on several rows; with the content's hash it cannot mislead.
    row_id = f"{own}-{key[:8]}" if own else key[:16]
    return Row(row_id, tuple(messages), _PART.fullmatch(own) is not None, teacher, end)


def _label(value: Any) -> str:
    """A short printable name, or nothing."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    try:
        text = str(value)[:100]
    except ValueError:  # an integer of thousands of digits
        return ""
    return text if text.isprintable() else ""
