"""Over-long dialogues, split at prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

from epigone.corpus.rules import exchanges
from epigone.schema import Conversation


def pieces(
    whole: Conversation,
    reply_tokens: Sequence[int],
    most: int,
    tokens: Callable[[Sequence[str]], list[int]],
) -> list[tuple[Conversation, list[int]]]:
    """A conversation in pieces of at most `most` tokens of all its turns (0: in one piece).

    A piece begins with a prompt, behind the system turns with which the whole begins, and holds
    as many whole exchanges as fit, or one that does not fit alone: none is lost. Each comes with
    the tokens of its replies; the second piece of X is X#2.
    """
    sizes = tokens([m.content for m in whole.messages]) if most else []
    if sum(sizes) <= most:
        return [(whole, list(reply_tokens))]
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
    replies = iter(reply_tokens)
    parts: list[tuple[Conversation, list[int]]] = []
    for number, group in enumerate(groups, 1):
        turns = whole.messages[group[0][0] : group[-1][1]]
        own = list(islice(replies, sum(m.role == "assistant" for m in turns)))
        name = whole.id if number == 1 else f"{whole.id}#{number}"
        parts.append((replace(whole, id=name, messages=(*system, *turns)), own))
    return parts
