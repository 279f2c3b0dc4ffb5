"""Over-long dialogues, split at prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from epigone.corpus.rules import exchanges
from epigone.schema import Conversation


def pieces(
    whole: Conversation, sizes: Sequence[int], most: int
) -> list[tuple[Conversation, list[int]]]:
    """A conversation in pieces of at most `most` tokens of all its turns (0: in one piece).

    `sizes` holds the tokens of each turn. A piece begins with a prompt, behind the system turns
    with which the whole begins, and holds as many whole exchanges as fit, or one that does not
    fit alone: none is lost. Each comes with the tokens of its replies; the second piece of X is
    X/2.
    """
    if not most or sum(sizes) <= most:
        return [(whole, _replies(whole, 0, len(sizes), sizes))]
    start = next(i for i, m in enumerate(whole.messages) if m.role != "system")
    system, first = whole.messages[:start], sum(sizes[:start])
    at, room = start, 0
    groups: list[list[tuple[int, int]]] = []
    for exchange in exchanges(whole.messages[start:]):
        size = sum(sizes[at : at + len(exchange)])
        if not groups or size > room:
            groups.append([])
            room = most - first
        groups[-1].append((at, at + len(exchange)))
        at += len(exchange)
        room -= size
    parts: list[tuple[Conversation, list[int]]] = []
    for number, group in enumerate(groups, 1):
        begin, end = group[0][0], group[-1][1]
        name = whole.id if number == 1 else f"{whole.id}/{number}"
        turns = (*system, *whole.messages[begin:end])
        parts.append((replace(whole, id=name, messages=turns), _replies(whole, begin, end, sizes)))
    return parts


def _replies(whole: Conversation, begin: int, end: int, sizes: Sequence[int]) -> list[int]:
    return [sizes[i] for i in range(begin, end) if whole.messages[i].role == "assistant"]
