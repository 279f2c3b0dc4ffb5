"""What a built corpus holds, in numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epigone.corpus.contamination import words
from epigone.corpus.tokens import load_tokenizer
from epigone.errors import CorpusError
from epigone.files import read_json
from epigone.schema import Conversation, Progress, silent
from epigone.study import train_file

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from epigone.corpus.diversity import Diversity

_ROLES = ("system", "user", "assistant", "tool")
_TOP = 25
_BATCH = 256


def stats(
    folder: Path, tokenizer_json: Path | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """Numbers of a corpus folder's train conversations, and its account of what was dropped.

    `roles` counts turns, characters and, with a tokenizer, tokens by role; `lengths` are
    histograms over conversations, whose bins begin at powers of two; `openings` counts the first
    two words of first prompts. Raises CorpusError for a folder in which no corpus was built.
    """
    if not (folder / "audit.json").is_file():
        raise CorpusError(
            "no corpus in this folder", value=str(folder), fix="epigone corpus build FILE -o DIR"
        )
    audit = read_json(folder / "audit.json")
    final = audit["final"]
    seen = _Seen(load_tokenizer(tokenizer_json) if tokenizer_json else None)
    batch: list[Conversation] = []
    total = final["train"]["conversations"]
    for number, (conversation, _) in enumerate(train_file.read(folder / train_file.NAME)):
        batch.append(conversation)
        if len(batch) == _BATCH:
            seen.take(batch)
            batch = []
            progress(number, total, "counting")
    seen.take(batch)
    return {
        "sources": [
            {
                key: source[key]
                for key in (
                    *("source", "format", "container", "read", "turns"),
                    *("lost_bytes", "lost_rows"),
                )
            }
            | {"invalid": sum(i["rows"] for i in source["invalid"].values())}
            for source in audit["sources"]
        ],
        "dropped": {
            name: rule["conversations_dropped"]
            for name, rule in audit["rules"].items()
            if rule["on"] and rule["conversations_dropped"]
        },
        "changed": {
            name: rule["conversations_changed"]
            for name, rule in audit["rules"].items()
            if rule["on"] and rule["conversations_changed"]
        },
        "languages": final["by_language"],
        **final,
        **seen.told(),
    }


def first_prompts(folder: Path) -> list[str]:
    """The first prompt of every train conversation of a corpus folder."""
    return [
        next(m.content for m in conversation.messages if m.role == "user")
        for conversation, _ in train_file.read(folder / train_file.NAME)
    ]


def told(found: Diversity, queries: Sequence[str], exact: bool) -> dict[str, Any]:
    """A diversity with its spread, and how it was found."""
    ranked = sorted(found.highest)
    return {
        "queries": len(queries),
        "mean_highest_bleu": round(found.mean, 2),
        "exact": exact,
        **{f"p{p}": round(ranked[(len(ranked) - 1) * p // 100], 2) for p in (10, 50, 90, 99)},
    }


class _Seen:
    """Counts over conversations, as they come."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._turns: Counter[str] = Counter()
        self._chars: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._openings: Counter[str] = Counter()
        self._teachers: Counter[str] = Counter()
        self._sources: Counter[str] = Counter()
        self._exchanges: list[int] = []
        self._replies: list[int] = []
        self._dates: list[str] = []

    def take(self, batch: Sequence[Conversation]) -> None:
        """Count some conversations."""
        for c in batch:
            for m in c.messages:
                self._turns[m.role] += 1
                self._chars[m.role] += len(m.content)
            origin = c.provenance
            self._teachers[origin.teacher] += 1
            self._sources[origin.source] += 1
            self._dates += [origin.date] if origin.date else []
            self._exchanges.append(sum(m.role == "user" for m in c.messages))
            self._replies.append(c.tokens)
            first = next((m.content for m in c.messages if m.role == "user"), "")
            self._openings[" ".join(words(first[:200])[:2])] += 1
        if self._tokenizer is not None and batch:
            turns = [m for c in batch for m in c.messages]
            found = self._tokenizer.encode_batch_fast(
                [m.content for m in turns], add_special_tokens=False
            )
            for m, encoding in zip(turns, found, strict=True):
                self._tokens[m.role] += len(encoding)

    def told(self) -> dict[str, Any]:
        """All counts."""
        roles = [role for role in _ROLES if self._turns[role]]
        return {
            "roles": {
                role: {"turns": self._turns[role], "characters": self._chars[role]}
                | ({"tokens": self._tokens[role]} if self._tokenizer else {})
                for role in roles
            },
            "tokens_per_conversation": _spread(self._replies),
            "exchanges_per_conversation": _spread(self._exchanges),
            "lengths": {
                "teacher tokens": _bins(self._replies),
                "exchanges": _bins(self._exchanges),
            },
            "openings": dict(self._openings.most_common(_TOP)),
            "by_source": dict(self._sources.most_common(_TOP)),
            "by_teacher": dict(self._teachers.most_common(_TOP)),
            "dates": {
                "known": len(self._dates),
                **({"first": min(self._dates), "last": max(self._dates)} if self._dates else {}),
            },
        }


def _spread(values: Sequence[int]) -> dict[str, float]:
    ranked = sorted(values)
    return {
        "mean": round(sum(ranked) / len(ranked), 1),
        **{f"p{p}": ranked[(len(ranked) - 1) * p // 100] for p in (0, 10, 50, 90, 100)},
    }


def _bins(values: Iterable[int]) -> dict[str, int]:
    """How many values lie between a power of two and the next, by the power."""
    found = Counter(2 ** int(math.log2(value)) if value else 0 for value in values)
    return {str(begin): found[begin] for begin in sorted(found)}
