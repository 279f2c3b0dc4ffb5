"""Texts of others in a prompt: places that are filled, marks that no text can close."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from epigone.schema import Message

# The names of the marks in prompts, and whatever may stand in a mark before its name.
MARK = re.compile(
    r"<(?=[^\w<>]*+(?:answer|conversation|turn|critique|principles)(?!\w))", re.IGNORECASE
)
ESCAPED = re.compile(MARK.pattern.replace("<", "&lt;", 1), re.IGNORECASE)
PLACE = re.compile(r"\{\{(\w+)\}\}")


def shown(text: str) -> str:
    """A text as it may stand between marks: of what looks like one of them, "<" is escaped."""
    return MARK.sub("&lt;", text)


def conversation(messages: Sequence[Message]) -> str:
    """Turns as a model is shown them that is to judge."""
    return "\n".join(f'<turn role="{m.role}">\n{shown(m.content)}\n</turn>' for m in messages)


def filled(text: str, values: Mapping[str, object]) -> str:
    """A text with values in the places of double braces; braces in values stay what they are.

    Raises KeyError for a place without a value.
    """
    return PLACE.sub(lambda m: str(values[m[1]]), text)
