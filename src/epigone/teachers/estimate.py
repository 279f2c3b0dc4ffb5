"""What a study will ask its teacher for, before it is asked: requests and tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from epigone.schema import Message
from epigone.study.specs import AskSpec
from epigone.teachers.answers import Settings
from epigone.teachers.pool import choose
from epigone.teachers.prompts import Prompt, read_prompts
from epigone.teachers.stage import settings_of
from epigone.teachers.synthesize import SETTINGS
from epigone.teachers.task import read
from epigone.teachers.tldr import SETTINGS as SUMMARIES
from epigone.teachers.tldr import asked_with, read_passages
from epigone.teachers.wordings import built_in

# Assumed while nothing is asked yet: tokens of an answer and of a summary, and the share of the
# pairs of a pool's answers that are accepted.
ANSWER, SUMMARY, ACCEPTED = 250, 35, 0.5


@dataclass(frozen=True, slots=True)
class Expected:
    """Requests, tokens in and out, the most tokens that answers may have, and what is assumed."""

    requests: int
    prompt_tokens: int
    tokens: int
    most_tokens: int
    assumed: str


def expected(
    spec: AskSpec, data: Path | None, seeds: Path | None, count: Callable[[str], int]
) -> Expected:
    """What `run` will ask, at one try each; `count` tells the tokens of a text.

    `data` and `seeds` are where the spec's lie. What an evaluation asks is not left out yet. Raises
    UserError for data that cannot be asked.
    """
    if spec.task == "tldr":
        assert data is not None
        passages = choose(read_passages(data), spec, ()).prompts
        return _of_prompts(asked_with(passages), settings_of(spec, SUMMARIES), SUMMARY, count)
    if spec.task == "answers":
        assert data is not None
        prompts = choose(read_prompts(data, spec.system), spec, ()).prompts
        return _of_prompts(prompts, settings_of(spec, Settings()), ANSWER, count)
    task = read(built_in()[spec.task] if spec.task else data or Path(), seeds)
    settings = settings_of(spec, SETTINGS)
    requests = -(-spec.size // max(1, round(spec.each * ACCEPTED)))
    shown = list(task.seeds[: spec.shown])
    pairs = count(task.labels.shown(shown)) / len(shown)
    answer = min(settings.max_tokens, round(spec.each * pairs))
    return Expected(
        requests,
        requests * count(task.request(shown, spec.each)),
        requests * answer,
        requests * settings.max_tokens,
        f"{ACCEPTED:.0%} of the pairs that come are accepted, as long as the seeds",
    )


def _of_prompts(
    prompts: tuple[Prompt, ...], settings: Settings, answer: int, count: Callable[[str], int]
) -> Expected:
    answer = min(answer, settings.max_tokens)
    turns = prompt_tokens = 0
    for prompt in prompts:
        said = sum(_size(m, count) for m in prompt.given)
        for turn in prompt.turns:
            # Each turn carries all that was said before it.
            said += _size(Message("user", turn), count)
            prompt_tokens += said
            said += answer
            turns += 1
    return Expected(
        turns, prompt_tokens, turns * answer, turns * settings.max_tokens,
        f"{answer} tokens an answer",
    )  # fmt: skip


def _size(message: Message, count: Callable[[str], int]) -> int:
    # A template puts a few tokens around each turn.
    return count(message.content) + 4
