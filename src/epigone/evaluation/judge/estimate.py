"""What a judge will be asked, before it is asked: requests and tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from epigone.evaluation.judge.ask import Question, prompt, same_text
from epigone.evaluation.judge.verdicts import TOKENS


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
    count: Callable[[str], int],
) -> Expected:
    """What the questions take; `count` tells the tokens of a text."""
    asked = [q for q in questions if same_text(q) is None]
    tokens = sum(count(prompt(rubrics[q.protocol], q)) for q in asked)
    return Expected(
        len(asked),
        tokens,
        len(asked) * min(TOKENS, max_tokens),
        tokens * tries,
        len(asked) * max_tokens * tries,
    )
