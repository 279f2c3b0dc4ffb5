"""What an endpoint sent, made fit to be kept: hostile JSON, odd texts, a key that came back."""

from __future__ import annotations

import json
import math
import re
from typing import Any

# How deep answers may be.
_DEEPEST = 50
_SHORTEST_KEY = 8
_LONG_NUMBER = re.compile(rb"[0-9]{19}")


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
