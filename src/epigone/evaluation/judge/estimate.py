"""What a judge will be asked, before it is asked: requests and tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from epigone.evaluation.judge.ask import Question, prompt, reminder, same_text
from epigone.evaluation.judge.verdicts import TOKENS
from epigone.models.endpoint import longest, thinks

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
