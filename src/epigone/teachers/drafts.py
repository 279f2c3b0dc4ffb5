"""Files of students' answers: read, and matched with one another."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

from epigone.corpus.formats import REPLIES
from epigone.errors import CorpusError
from epigone.files import canonical
from epigone.models.received import sound
from epigone.schema import Message
from epigone.teachers.prompts import turns_of, values_of

Item = TypeVar("Item")
# Of n answers in a row n (n - 1) / 2 twos are asked about, each twice.
MOST_ANSWERS = 16


@dataclass(frozen=True, slots=True)
class Draft:
    """A student's answer, with the file and the model it comes from.

    `cut` says that it ended at the longest it might be.
    """

    prompt: tuple[Message, ...]
    text: str
    file: str
    model: str
    cut: bool = False

    @property
    def origin(self) -> dict[str, str]:
        """Where it comes from, as JSON."""
        return {"file": self.file, "model": self.model}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file: one answer, or several, to one prompt."""

    id: str
    drafts: tuple[Draft, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """Two answers to one prompt."""

    id: str
    one: Draft
    other: Draft


def names_of(paths: Sequence[Path]) -> list[str]:
    """What files are called, with their folders where the names alone are the same."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    return [f"{path.absolute().parent.name}/{path.name}" for path in paths]


def read_drafts(path: Path, name: str, skipped: Counter[str]) -> list[Row]:
    """The rows of a JSON file with a prompt and one answer or several; `skipped` counts others.

    Samples, conversations that end with a reply, prompts with a reply beside them, and
    `answers: [..]`. Raises CorpusError for a file without any.
    """
    rows: list[Row] = []
    own: Counter[str] = Counter()
    try:
        for value in values_of(path, own):
            made = _row(value, name)
            if isinstance(made, str):
                own[made] += 1
            else:
                rows.append(made)
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError("the answers cannot be read", value=str(path), fix=str(error)) from None
    if not rows:
        why = ", ".join(f"{n} {reason}" for reason, n in own.items()) or "it is empty"
        raise CorpusError("no answer in the file", value=str(path), fix=why)
    skipped.update(own)
    return rows


def _row(value: Any, name: str) -> Row | str:
    if not isinstance(value, dict):
        return "no object"
    made = turns_of(
        {**value, "messages": value["prompt"]} if isinstance(value.get("prompt"), list) else value
    )
    if isinstance(made, str):
        return made
    texts = _texts(value, made)
    if isinstance(texts, str):
        return texts
    prompt = tuple(m for m in made if m.content.strip())
    if not prompt or prompt[-1].role != "user":
        return "a prompt that does not end with the user's turn"
    if any("\x00" in t or sound(t) != t for t in (*texts, *(m.content for m in prompt))):
        return "characters that no text has"
    key = hashlib.sha256(canonical([(m.role, m.content) for m in prompt]).encode()).hexdigest()
    own = next((value[k] for k in ("id", "item") if isinstance(value.get(k), str | int)), "")
    known = value.get("provenance")
    known = known if isinstance(known, dict) else {}
    model = value.get("model") or value.get("teacher") or known.get("teacher")
    said = sound(model)[:200] if isinstance(model, str) else ""
    cut = value.get("stop") == "length"
    return Row(
        sound(str(own))[:200] or key[:16],
        tuple(Draft(prompt, text, name, said, cut) for text in texts),
    )


def _texts(value: dict[str, Any], turns: list[Message]) -> list[str] | str:
    """The answers of a row; one that ends its turns is taken from them."""
    if "answers" in value:
        texts = value["answers"]
        if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
            return "answers that are no list of texts"
        return texts if 2 <= len(texts) <= MOST_ANSWERS else f"not 2 to {MOST_ANSWERS} answers"
    if turns and turns[-1].role == "assistant":
        return [turns.pop().content]
    for key in ("draft", *REPLIES):
        if isinstance(value.get(key), str):
            return [value[key]]
    return "no answer"


def once(
    items: Sequence[Item], key: Callable[[Item], Hashable], skipped: Counter[str]
) -> list[Item]:
    """The first of all items that are the same."""
    found: dict[Hashable, Item] = {}
    for item in items:
        found.setdefault(key(item), item)
    skipped["asked already"] += len(items) - len(found)
    return list(found.values())


def within(rows: Sequence[Row], skipped: Counter[str]) -> list[Choice]:
    """Every two answers of each row."""
    skipped["one answer in a row"] += sum(len(row.drafts) == 1 for row in rows)
    return [
        Choice(f"{row.id}-{i}-{j}", one, other)
        for row in rows
        for (i, one), (j, other) in combinations(enumerate(row.drafts, 1), 2)
    ]


def between(one: Sequence[Row], other: Sequence[Row], skipped: Counter[str]) -> list[Choice]:
    """Rows of two files with the same prompt, first those of the same id, in the first's order.

    Every row is used once.
    """
    alone = [[row for row in rows if len(row.drafts) == 1] for rows in (one, other)]
    skipped["several answers in a row"] += len(one) + len(other) - sum(map(len, alone))
    matched: dict[int, int] = {}
    keys: list[Callable[[Row], Hashable]] = [
        lambda row: (row.id, row.drafts[0].prompt),
        lambda row: row.drafts[0].prompt,
    ]
    for key in keys:
        taken, free = set(matched.values()), defaultdict[Hashable, deque[int]](deque)
        for j, row in enumerate(alone[1]):
            if j not in taken:
                free[key(row)].append(j)
        for i, row in enumerate(alone[0]):
            if i not in matched and free[key(row)]:
                matched[i] = free[key(row)].popleft()
    for rows in alone:
        if len(rows) > len(matched):
            skipped[f"only in {rows[0].drafts[0].file}"] += len(rows) - len(matched)
    return [
        Choice(alone[0][i].id, alone[0][i].drafts[0], alone[1][j].drafts[0])
        for i, j in sorted(matched.items())
    ]


def unfit(*drafts: Draft, keep_cut: bool) -> str:
    """Why no one is asked about answers, empty where nothing speaks against it."""
    if any(not draft.text.strip() for draft in drafts):
        return "an empty answer"
    if any(draft.cut for draft in drafts) and not keep_cut:
        return "an answer cut at its longest"
    if len({draft.text.strip() for draft in drafts}) < len(drafts):
        return "equal answers"
    return ""
