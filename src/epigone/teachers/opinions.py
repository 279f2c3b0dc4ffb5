"""What a teacher is asked about students' answers, and what becomes of what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from epigone.models.marks import conversation, shown
from epigone.models.received import Answer
from epigone.schema import Message
from epigone.teachers.answers import Settings, ask_well, request_of
from epigone.teachers.ask import Asker, Refused
from epigone.teachers.drafts import Choice, Draft
from epigone.teachers.judging import (
    check_critique,
    check_revision,
    check_verdict,
    no_fault,
    revision,
    verdict,
)
from epigone.teachers.wordings import wording


@dataclass(slots=True)
class Opinion:
    """What a teacher said, one answer after the other; why it is of no use, and what told so."""

    id: str
    rejected: str = ""
    told: str = ""
    said: list[Answer] = field(default_factory=list)


@dataclass(slots=True)
class Ranking(Opinion):
    """What became of two answers; `places` are the ones that won, of which the second is swapped.

    A place is 1 or 2, or 0 where neither answer is better.
    """

    choice: Choice = field(kw_only=True)
    places: list[int] = field(default_factory=list)

    @property
    def better_first(self) -> tuple[Draft, Draft]:
        """The better answer, then the other."""
        one, other = self.choice.one, self.choice.other
        return (one, other) if self.places[0] == 1 else (other, one)


@dataclass(slots=True)
class Revising(Opinion):
    """What became of one answer; a critique was said first, then the new answer."""

    draft: Draft = field(kw_only=True)
    new: str = ""


class _Rejected(Exception):
    """Why a reply is of no use, and what it says."""

    def __init__(self, reason: str, told: str) -> None:
        super().__init__(reason)
        self.told = told


async def ask_rank(asker: Asker, settings: Settings, ranking: Ranking) -> Ranking:
    """Ask which of two answers is better, then with their places swapped."""
    one, other = ranking.choice.one, ranking.choice.other
    try:
        for first, second in ((one, other), (other, one)):
            said = await _reply(
                asker, settings, "rank", check_verdict,
                conversation=conversation(one.prompt), first=shown(first.text),
                second=shown(second.text),
            )  # fmt: skip
            ranking.said.append(said)
            ranking.places.append(verdict(said.text) or 0)
        ranking.rejected = against(*ranking.places)
        ranking.told = said.text
    except _Rejected as fault:
        ranking.rejected, ranking.told = str(fault), fault.told
    return ranking


def against(place: int, swapped: int) -> str:
    """Why two verdicts are no preference, empty where they are one."""
    if {place, swapped} == {1, 2}:
        return ""
    if place == swapped == 0:
        return "a tie"
    return "a tie in one order" if 0 in (place, swapped) else "the orders disagree"


async def ask_revision(
    asker: Asker, settings: Settings, revising: Revising, principles: str
) -> Revising:
    """Ask for a critique of an answer, then for a new answer that it does not apply to."""
    draft = revising.draft
    texts = {"conversation": conversation(draft.prompt), "answer": shown(draft.text)}
    try:
        critique = await _reply(
            asker, settings, "critique", check_critique, constitution=principles, **texts
        )
        revising.said.append(critique)
        if no_fault(critique.text):
            raise _Rejected("no fault found", critique.text)
        before = (draft.text, *(m.content for m in draft.prompt))
        said = await _reply(
            asker, settings, "revise", partial(check_revision, before=before),
            critique=shown(critique.text), **texts,
        )  # fmt: skip
        new = revision(said.text, before)
        if new == draft.text.strip():
            raise _Rejected("the same answer again", said.text)
        revising.said.append(said)
        revising.new = new
    except _Rejected as fault:
        revising.rejected, revising.told = str(fault), fault.told
    return revising


async def _reply(
    asker: Asker, settings: Settings, name: str, check: Callable[[str], str], **values: Any
) -> Answer:
    """What is said to a filled wording. Raises _Rejected for what cannot be used."""
    asked = [Message("user", wording(name).fill(**values))]
    # A cut reply is none, and there is one reply to each question.
    own = replace(settings, samples=1, cut=False, schema=None, completions=False)
    request = partial(request_of, asker.endpoint, asked, own, 0)
    # The likeliest answer would be the same again.
    tries = 0 if settings.temperature == 0 else settings.tries
    found, fault = await ask_well(asker, request, cut=False, check=check, tries=tries)
    if isinstance(found, Refused):
        raise _Rejected(fault, found.why)
    if fault:
        raise _Rejected(fault, found.refusal or found.text)
    return found
