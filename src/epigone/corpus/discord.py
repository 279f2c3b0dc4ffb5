"""DiscordChatExporter's JSON: replies of bots, paired with the messages that they answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from epigone.corpus.rows import Invalid, Row, invalid, label, row
from epigone.corpus.values import Lost, Whole
from epigone.schema import Message

# How many messages back an answered one is remembered, so that memory does not grow.
WINDOW = 10_000
# How many messages back one may be that a bot answers without naming it.
_RECENT = 6
# What people write; other types say who joined, what was pinned, and the like.
_WRITTEN = ("", "Default", "Reply", "0", "19")
_PLACEHOLDER = re.compile(
    r"\W*(?:thinking|typing|generating|processing|loading|working on it|please wait|one moment)\W*",
    re.IGNORECASE,
)
_MENTIONS = re.compile(r"(?:\s*@[^\s@]{1,40})*\s*")
_COMMANDS = ("ApplicationCommand", "ChatInputCommand", "ContextMenuCommand", "20", "23")


@dataclass(slots=True)
class _Said:
    """A person's message, and the bot's reply as far as it has come."""

    value: dict[str, Any]
    end: int
    text: str
    reply: list[str] = field(default_factory=list)
    bot: str = ""
    name: str = ""
    date: str = ""
    taken: int = 1


def is_discord(value: Any) -> bool:
    """Whether a value is a message of an export."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("author"), dict)
        and isinstance(value.get("content"), str)
        and "timestamp" in value
    )


def discord(values: Iterable[Whole | Lost]) -> Iterator[Row | Invalid | Lost]:
    """Pairs of a person's message and a bot's reply to it.

    A reply names its message in `reference`. One without answers the last few messages' latest
    that it mentions the author of, or that mentions the bot, or else the message directly before
    it. Several messages of the bot to one message are one reply. A bot's text may stand in its
    embeds. What is left unpaired is `Invalid`.
    """
    waiting: dict[str, _Said] = {}
    last: _Said | None = None
    for item in values:
        if isinstance(item, Lost):
            yield item
            continue
        value = item.value
        if item.fault or not is_discord(value):
            yield invalid(item.fault or "not a message", value, item.end)
            continue
        author = value["author"]
        if author.get("isBot") is not True and label(value.get("type")) not in _WRITTEN:
            yield invalid("message of the service", value, item.end)
            continue
        if author.get("isBot") is not True:
            last = _Said(value, item.end, value["content"])
            key = label(value.get("id")) or f"#{item.end}"
            if key in waiting:
                # Two messages of one id: an answer can only be to the later one.
                yield _finished(waiting.pop(key))
            waiting[key] = last
            if len(waiting) > WINDOW:
                yield _finished(waiting.pop(next(iter(waiting))))
            continue
        asked = _answered(value, waiting, _meant(value, waiting) or last)
        text = _bot_text(value)
        name = label(author.get("id")) or label(author.get("name"))
        if isinstance(asked, str):
            yield invalid(asked, value, item.end)
            last = None
        elif not text.strip():
            yield invalid("bot message without a text", value, item.end)
        elif _PLACEHOLDER.fullmatch(text):
            yield invalid("bot message that only asks to wait", value, item.end)
        elif asked.bot not in ("", name):
            yield invalid("second bot that answers the same message", value, item.end)
        else:
            asked.bot, asked.name = name, label(author.get("name"))
            asked.reply.append(text)
            asked.taken += 1
            asked.end = item.end
            # A long reply comes in several messages, of which only the first has a reference.
            last = asked
    for said in waiting.values():
        yield _finished(said)


def _answered(value: dict[str, Any], waiting: dict[str, _Said], last: _Said | None) -> _Said | str:
    reference = value.get("reference")
    named = label(reference.get("messageId")) if isinstance(reference, dict) else ""
    if named:
        found = waiting.get(named)
        return found if found is not None else "answers a message that is not there"
    if value.get("interaction") or label(value.get("type")) in _COMMANDS:
        return "answers a command, whose text an export does not hold"
    return last if last is not None else "bot message that answers nobody"


def _meant(value: dict[str, Any], waiting: dict[str, _Said]) -> _Said | None:
    """The latest of recent messages that the mentions tie to a bot's message."""
    bot = label(value["author"].get("id"))
    named = _mentioned(value)
    recent = islice(reversed(waiting.values()), _RECENT)
    open_ones = [said for said in recent if said.bot in ("", bot)]
    for said in open_ones:
        if label(said.value["author"].get("id")) in named:
            return said
    return next((s for s in open_ones if not s.bot and bot in _mentioned(s.value)), None)


def _mentioned(value: dict[str, Any]) -> set[str]:
    mentions = value.get("mentions")
    found = mentions if isinstance(mentions, list) else ()
    return {label(who.get("id")) for who in found if isinstance(who, dict)} - {""}


def _bot_text(value: dict[str, Any]) -> str:
    if not _MENTIONS.fullmatch(value["content"]):
        return str(value["content"])
    parts: list[str] = []
    embeds = value.get("embeds")
    for embed in embeds if isinstance(embeds, list) else ():
        if not isinstance(embed, dict):
            continue
        parts += [embed.get("title") or "", embed.get("description") or ""]
        fields = embed.get("fields")
        for entry in fields if isinstance(fields, list) else ():
            if isinstance(entry, dict):
                parts += [entry.get("name") or "", entry.get("value") or ""]
    return "\n".join(part for part in parts if isinstance(part, str) and part.strip())


def _finished(said: _Said) -> Row | Invalid:
    if not said.reply:
        return invalid("message that no bot answered", said.value, said.end)
    prompt = _without_mention(said.value, said.text)
    turns = (Message("user", prompt), Message("assistant", "\n".join(said.reply)))
    made = row(turns, said.value, said.end, teacher=said.name, taken=said.taken)
    return made if isinstance(made, Row) else invalid(made, said.value, said.end, said.taken)


def _without_mention(value: dict[str, Any], text: str) -> str:
    """A prompt without the bot's name in front of it."""
    mentions = value.get("mentions")
    for who in mentions if isinstance(mentions, list) else ():
        if not isinstance(who, dict) or who.get("isBot") is not True:
            continue
        for key in ("nickname", "name"):
            if (name := label(who.get(key))) and text.lstrip().startswith(f"@{name}"):
                return text.lstrip().removeprefix(f"@{name}").lstrip(" ,:")
    return text
