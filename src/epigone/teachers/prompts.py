"""Files of what is to be asked: prompts, or dialogues whose user turns are asked one by one."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epigone.corpus.formats import LISTS, PROMPTS, ROLES
from epigone.corpus.values import Values, Whole
from epigone.errors import CorpusError
from epigone.files import canonical
from epigone.models.received import sound
from epigone.schema import Message


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked for one row.

    `given` are turns that stand as they are; to each of `turns`, the user's, the teacher's answer
    is put before the next one is asked.
    """

    id: str
    given: tuple[Message, ...]
    turns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompts of a file in its order, and how many rows were left out, by reason."""

    prompts: tuple[Prompt, ...]
    skipped: Counter[str]

    @classmethod
    def of(cls, path: Path, prompts: Iterable[Prompt], skipped: Counter[str]) -> Prompts:
        """The prompts of a file; raises CorpusError where there are none."""
        found = tuple(prompts)
        if not found:
            why = ", ".join(f"{n} {reason}" for reason, n in skipped.items()) or "it is empty"
            raise CorpusError("no prompt in the file", value=str(path), fix=why)
        return cls(found, skipped)


def read_prompts(path: Path, system: str = "") -> Prompts:
    """Prompts of a text file (a line each), or of JSON: texts, prompts, or dialogues.

    A dialogue that ends with the user's turn is asked as it is; of one that ends with a reply the
    user's turns are asked anew, one after the other. `system` is put before those that have no
    system turn. Raises CorpusError for a file without a prompt.
    """
    skipped: Counter[str] = Counter()
    found: dict[str, Prompt] = {}
    for value in values_of(path, skipped):
        made = _prompt(value, system)
        if isinstance(made, str):
            skipped[made] += 1
        elif made.id in found:
            skipped["asked already"] += 1
        else:
            found[made.id] = made
    return Prompts.of(path, found.values(), skipped)


def read_texts(path: Path, names: Sequence[str], skipped: Counter[str]) -> Iterator[str]:
    """Texts of a file: its lines, or of JSON the texts, or what stands under one of the names."""
    for value in values_of(path, skipped):
        if isinstance(value, dict):
            value = next((value[n] for n in names if isinstance(value.get(n), str)), None)
        if isinstance(value, str):
            yield value
        else:
            skipped["no text"] += 1


def values_of(path: Path, skipped: Counter[str]) -> Iterator[Any]:
    """The values of a file; what is none is counted. Raises CorpusError where it cannot be read."""
    try:
        yield from _read(path, skipped)
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError("the prompts cannot be read", value=str(path), fix=str(error)) from None


def _read(path: Path, skipped: Counter[str]) -> Iterator[Any]:
    if path.suffix == ".txt":
        yield from (line.strip() for line in _lines(path) if line.strip())
        return
    with Values(path, lambda value: isinstance(value, dict)) as values:
        for item in values:
            if isinstance(item, Whole):
                yield item.value
            else:
                skipped["not JSON"] += max(1, item.rows)
        shape = values.shape
        if values.fault:
            skipped[f"the file breaks off ({values.fault})"] += 1
    if not shape:
        # JSON lines of texts begin with neither bracket.
        for line in filter(str.strip, _lines(path)):
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                skipped["not JSON"] += 1


def _lines(path: Path) -> list[str]:
    # Not str.splitlines, which breaks at characters that stand inside of texts.
    return path.read_text(encoding="utf-8-sig").replace("\r\n", "\n").split("\n")


def _prompt(value: Any, system: str) -> Prompt | str:
    if isinstance(value, str):
        turns = [Message("user", value)]
    elif isinstance(value, dict):
        made = turns_of(value)
        if isinstance(made, str):
            return made
        turns = made
    else:
        return "neither text nor object"
    turns = [m for m in turns if m.content.strip()]
    if system and not any(m.role == "system" for m in turns):
        turns.insert(0, Message("system", system))
    if any("\x00" in m.content or sound(m.content) != m.content for m in turns):
        return "characters that no text has"
    users = [m.content for m in turns if m.role == "user"]
    if not users:
        return "no user's turn"
    own = value.get("id") if isinstance(value, dict) else None
    given, asked = tuple(turns[:-1]), tuple(users[-1:])
    if turns[-1].role != "user":
        given, asked = tuple(m for m in turns if m.role == "system"), tuple(users)
    key = hashlib.sha256(
        canonical([[(m.role, m.content) for m in given], asked]).encode()
    ).hexdigest()
    named = isinstance(own, str | int) and own != ""
    return Prompt(f"{sound(str(own))[:180]}-{key[:8]}" if named else key[:16], given, asked)


def turns_of(value: dict[str, Any]) -> list[Message] | str:
    """The turns of a row under any name that is used for such, or why it has none."""
    rows = next((value[key] for key in LISTS if isinstance(value.get(key), list)), None)
    if rows is None:
        text = next((value[key] for key in PROMPTS if isinstance(value.get(key), str)), None)
        if text is None:
            return "no prompt"
        rest = value.get("input")
        if text != rest and isinstance(rest, str) and rest.strip():
            # Alpaca's instructions have their material beside them.
            text = f"{text}\n\n{rest}"
        before, history = value.get("system"), value.get("history") or []
        first = [Message("system", before)] if isinstance(before, str) else []
        for pair in history if isinstance(history, list) else [None]:
            if not (isinstance(pair, list) and [*map(type, pair)] == [str, str]):
                return "a history that is no pairs"
            first += [Message("user", pair[0]), Message("assistant", pair[1])]
        return [*first, Message("user", text)]
    turns = []
    for row in rows:
        told = row.get("role", row.get("from")) if isinstance(row, dict) else None
        role = ROLES.get(str(told).lower())
        text = row.get("content", row.get("value")) if isinstance(row, dict) else None
        if role is None or not isinstance(text, str):
            return "a turn without a role or a text"
        if role == "tool":
            return "a tool's turn"
        turns.append(Message(role, text))
    return turns
