"""What a judge will be asked, before it is asked: requests and tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epigone.evaluation.judge.ask import (
    Question,
    prompt,
    reminder,
    request,
    same_text,
    verdict_in,
)
from epigone.evaluation.judge.verdicts import TOKENS
from epigone.models.endpoint import Reply, chat, longest, thinks

# What a model that thinks first is assumed to think before a verdict.
THOUGHTS = 500


@dataclass(frozen=True, slots=True)
class Expected:
    """Requests and tokens if every first reply is a verdict; the most if none is, however often
    it is asked, and every one is as long as it may be."""

    requests: int
    prompt_tokens: int
    tokens: int
    most_prompt_tokens: int
    most_tokens: int


def expected(
    questions: Sequence[Question],
    rubrics: Mapping[str, str],
    max_tokens: int,
    tries: int,
    model: str,
    count: Callable[[str], int],
) -> Expected:
    """What the questions take of a model; `count` tells the tokens of a text."""
    asked = [q for q in questions if same_text(q) is None]
    tokens = sum(count(prompt(rubrics[q.protocol], q)) for q in asked)
    return bounds(len(asked), tokens, max_tokens, tries, model, count)


def open_questions(
    questions: Sequence[Question],
    rubrics: Mapping[str, str],
    max_tokens: int,
    tries: int,
    model: str,
    known: Callable[[Mapping[str, Any]], Reply | None],
) -> list[Question]:
    """Questions that would be asked, as `known` has no verdict on them yet, nor a reply to every
    try; it tells the reply to what was sent before."""

    def settled(question: Question) -> bool:
        for number in range(1, tries + 1):
            # Nobody knows yet whether the endpoint takes a schema.
            asked = (request(rubrics, question, number, max_tokens, way) for way in (True, False))
            replies = (known(chat(model, *one)) for one in asked)
            reply = next((r for r in replies if r is not None), None)
            if reply is None:
                return False
            if verdict_in(question, reply, number).told is not None:
                return True
        return True

    return [q for q in questions if same_text(q) is None and not settled(q)]


def bounds(
    requests: int,
    prompt_tokens: int,
    max_tokens: int,
    tries: int,
    model: str,
    count: Callable[[str], int],
) -> Expected:
    """What so many requests of so many tokens in all take, each asked again `tries` - 1 times."""
    reminders = sum(count(reminder(number)) for number in range(2, tries + 1))
    each = min(TOKENS, max_tokens) + (THOUGHTS if thinks(model) else 0)
    return Expected(
        requests,
        prompt_tokens,
        requests * each,
        prompt_tokens * tries + requests * reminders,
        requests * tries * longest(model, max_tokens),
    )
