"""What an endpoint sent: hostile JSON and odd texts made fit to be kept; the answer in it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LARGEST = 16 << 20
# What is raised for JSON that is none, or no answer.
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)
_YEAR_9999 = 253_402_300_800
# How deep answers may be.
_DEEPEST = 50
_SHORTEST_KEY = 8
_LONG_NUMBER = re.compile(rb"[0-9]{19}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a teacher said, as its endpoint told it.

    `stop` is why it ended: "stop", "length", "content_filter", …; `refusal` what it said instead of
    an answer; `model` the snapshot that answered; `created` seconds since 1970.
    """

    text: str
    stop: str
    refusal: str
    prompt_tokens: int
    tokens: int
    model: str
    created: int


def decoded(content: bytes, key: str) -> dict[str, Any]:
    """The JSON object of an answer as it can be written down: sound texts, none of them with the
    key, no deeper than anyone needs, numbers that JSON has.

    Raises ValueError, TypeError or RecursionError for anything else.
    """
    found = json.loads(
        content.decode("utf-8", "replace"), parse_constant=no_number, parse_float=_finite
    )
    if not isinstance(found, dict):
        raise TypeError("no object")
    if _plain(content, key):
        return found
    cleaned: dict[str, Any] = _cleaned(found, key, 0)
    return cleaned


def _plain(content: bytes, key: str) -> bool:
    """Whether nothing in it can need to be cleaned, seen without looking at every value."""
    # Halves of characters and hidden letters of a key come by escapes alone.
    escaped = b"\\u" in content or b"\\/" in content
    shallow = content.count(b"{") + content.count(b"[") <= _DEEPEST
    with_key = bool(key) and (key.encode() in content or '"' in key or "\\" in key)
    return shallow and not escaped and not with_key and not _LONG_NUMBER.search(content)


def _cleaned(value: Any, key: str, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError("too deep")
    if isinstance(value, str):
        return without_key(value, key)
    if isinstance(value, dict):
        return {without_key(n, key): _cleaned(each, key, depth + 1) for n, each in value.items()}
    if isinstance(value, list):
        return [_cleaned(each, key, depth + 1) for each in value]
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("a number that nobody counts to")
    return value


def no_number(name: str) -> None:
    """Refuse NaN and the like, which Python would read."""
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        raise ValueError(f"{text} is no number")
    return found


def without_key(text: str, key: str) -> str:
    """A sound text without a key that a server may have repeated."""
    # What is shorter is no key, and stands in texts.
    return sound(text.replace(key, "***") if len(key) >= _SHORTEST_KEY else text)


def sound(text: str) -> str:
    """A text that can be written to a file."""
    # JSON may hold halves of characters, which no file takes.
    return text.encode("utf-8", "replace").decode()


def read(row: Mapping[str, Any]) -> Answer:
    """The answer in an endpoint's JSON, of chat or of completions.

    Raises one of UNREADABLE where there is none.
    """
    choice = row["choices"][0]
    message = choice["message"] if "message" in choice else {"content": choice["text"]}
    text = message.get("content")
    refusal = message.get("refusal")
    if not isinstance(text, str | None) or not isinstance(refusal, str | None):
        raise TypeError("no text")
    if choice.get("finish_reason") == "error":
        raise ValueError("an error behind the endpoint")
    usage = row.get("usage") or {}
    created = count(row.get("created"))
    prompt_tokens, tokens = (
        count(usage.get("prompt_tokens")),
        count(usage.get("completion_tokens")),
    )
    return Answer(
        text=text or "",
        stop=str(choice.get("finish_reason") or "").lower()[:40],
        refusal=refusal or "",
        prompt_tokens=prompt_tokens,
        # Some count thoughts in the total only.
        tokens=max(tokens, count(usage.get("total_tokens")) - prompt_tokens),
        model=str(row.get("model") or "")[:200],
        # Some tell milliseconds.
        created=next((t for t in (created, created // 1000) if t < _YEAR_9999), 0),
    )


def count(value: Any) -> int:
    """A number of tokens or the like, 0 for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
