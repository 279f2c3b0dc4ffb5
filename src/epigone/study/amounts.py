"""Nested amounts of a corpus: which conversations a student of each amount has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from epigone.errors import CorpusError
from epigone.schema import Conversation
from epigone.study import train_file

# The amount that stands for a whole corpus, whatever it holds.
WHOLE = 0


def segments(train: Path, amounts: Sequence[int]) -> list[list[Conversation]]:
    """The conversations between each amount and the one before it.

    The prefix of an amount holds whole conversations, in the file's order, while they fit. The
    first one that does not fit is cut behind its last exchange (a prompt and all that follows it
    up to the next prompt) that still fits, perhaps behind none, and there the prefix ends: so
    prefixes are nested, and none holds more than its amount. The prefix of `amounts[k]` is the
    concatenation of the segments 0 to k. A conversation that an amount cuts goes on in the next
    segment with its remaining exchanges alone, under the id `<id>#<number of the first, from 0>`.

    `train` is a corpus's train file; `amounts` are tokens of teacher output, strictly rising;
    `tokens` of the result are exact. Raises CorpusError for an amount larger than the corpus,
    and ValueError for amounts that do not rise and for counts that do not fit the messages. WHOLE,
    which stands alone, gives all conversations.
    """
    if tuple(amounts) == (WHOLE,):
        return [[conversation for conversation, _ in train_file.read(train)]]
    if not amounts or any(a >= b for a, b in pairwise((0, *amounts))):
        raise ValueError(f"amounts must be positive and rise: {list(amounts)}")
    found: list[list[Conversation]] = []
    current: list[Conversation] = []
    used = 0
    for conversation, counts in train_file.read(train):
        exchanges = _exchanges(conversation, counts)
        begin = 0
        for i, exchange in enumerate(exchanges):
            while used + exchange.tokens > amounts[len(found)]:
                current += _part(conversation, exchanges, begin, i)
                begin = i
                found.append(current)
                current = []
                if len(found) == len(amounts):
                    return found
            used += exchange.tokens
        current += _part(conversation, exchanges, begin, len(exchanges))
    if used < amounts[-1]:
        raise CorpusError(
            f"amount larger than the corpus, which holds {used:,} tokens of teacher output",
            value=amounts[-1],
            fix="ask for less, or add sources",
        )
    return [*found, current]


def refuse_empty(parts: Sequence[Sequence[Conversation]], amounts: Sequence[int]) -> None:
    """Raise CorpusError for an amount that adds no exchange to the one before it."""
    for part, before, amount in zip(parts, (0, *amounts), amounts, strict=False):
        if not part:
            raise CorpusError(
                "the corpus has no exchange that fits between two amounts",
                value=f"{before} and {amount}",
                fix="take amounts that are further apart",
            )


@dataclass(frozen=True, slots=True)
class _Exchange:
    """Where an exchange begins and ends among the messages, and its tokens of teacher output."""

    start: int
    stop: int
    tokens: int


def _exchanges(conversation: Conversation, counts: Sequence[int]) -> list[_Exchange]:
    messages = conversation.messages
    replies = [i for i, m in enumerate(messages) if m.role == "assistant"]
    if len(replies) != len(counts):
        raise ValueError(f"{conversation.id}: {len(replies)} replies but {len(counts)} counts")
    tokens = dict(zip(replies, counts, strict=True))
    # System turns stand before the first prompt and belong to its exchange.
    prompts = [i for i, m in enumerate(messages) if m.role == "user"][1:]
    return [
        _Exchange(start, stop, sum(tokens.get(i, 0) for i in range(start, stop)))
        for start, stop in pairwise((0, *prompts, len(messages)))
    ]


def _part(
    whole: Conversation, exchanges: Sequence[_Exchange], begin: int, end: int
) -> list[Conversation]:
    """The exchanges `begin` to `end` as a conversation, or nothing if there are none."""
    if begin == end:
        return []
    return [
        replace(
            whole,
            id=f"{whole.id}#{begin}" if begin else whole.id,
            messages=whole.messages[exchanges[begin].start : exchanges[end - 1].stop],
            tokens=sum(e.tokens for e in exchanges[begin:end]),
        )
    ]
