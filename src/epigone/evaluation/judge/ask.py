"""Questions to a judge: each asked again where its reply is no verdict, then missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from epigone.errors import RequestRefused
from epigone.evaluation.judge import verdicts
from epigone.evaluation.judge.verdicts import Unreadable
from epigone.evaluation.questions import Question as Asked
from epigone.evaluation.questions import Refusals, ask, ask_all
from epigone.models.endpoint import Client, Reply
from epigone.models.kept import Kept
from epigone.models.marks import conversation, filled, shown
from epigone.schema import Message, Progress

# So much of a reply is written down: judges may go on for ever.
_SHOWN = 4000
# Questions with which it is found out whether the endpoint takes a schema.
_TRIED = 5
# How it refuses one.
_NO_SCHEMA = frozenset({400, 404, 415, 422, 501})
REFUSED = "refused"
# The likeliest reply would be the same again.
_AGAIN = 0.5


@dataclass(frozen=True, slots=True)
class Question:
    """One thing that a judge is asked: `models` are in the order in which their texts are shown."""

    protocol: str
    item: str
    models: tuple[str, ...]
    prompt: tuple[Message, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a question: the fields of its verdict, or why it is missing.

    `tries` is how often it was asked, 0 where nobody had to be; `schema` is whether by a schema.
    """

    question: Question
    told: Mapping[str, Any] | None
    tries: int
    reply: str = ""
    missing: str = ""
    schema: bool = False

    def to_json(self) -> dict[str, Any]:
        """A row of verdicts.jsonl."""
        return {
            "protocol": self.question.protocol,
            "item": self.question.item,
            "models": list(self.question.models),
            "verdict": None if self.told is None else dict(self.told),
            "missing": self.missing,
            "tries": self.tries,
            "schema": self.schema,
            "reply": self.reply[:_SHOWN],
        }


@dataclass(slots=True)
class Judge:
    """A client with what it asks by: rubrics, the longest reply, how often at the most.

    `structured` is whether its endpoint keeps to a schema, None until it was asked.
    """

    client: Client
    rubrics: Mapping[str, str]
    max_tokens: int
    tries: int
    at_once: int = 8
    structured: bool | None = None

    def ask(self, questions: Sequence[Question], progress: Progress) -> list[Verdict]:
        """A verdict on each, in their order.

        Raises RequestRefused where every question is refused, EndpointError where the endpoint
        stays away; what came until then is in the ledger.
        """
        found: dict[int, Verdict] = {}
        todo = []
        for i, question in enumerate(questions):
            if (known := same_text(question)) is not None:
                found[i] = known
            else:
                todo.append(i)
        refusals, kept = Refusals(), Kept()
        if todo and self.structured is None:
            some = [questions[i] for i in todo[:_TRIED]]
            self.structured = self._takes_schema(some, kept, refusals)
        for number in range(1, self.tries + 1):
            asked = [self._asked(questions[i], number) for i in todo]
            if not asked:
                break
            replies = ask_all(
                self.client, kept, asked, progress, refusals=refusals, at_once=self.at_once
            )
            for i, reply in zip(todo, replies, strict=True):
                told = verdict_in(questions[i], reply, number)
                found[i] = replace(told, schema=bool(self.structured))
            # What was refused would be so again.
            todo = [i for i in todo if found[i].missing not in ("", REFUSED)]
        return [found[i] for i in range(len(questions))]

    def _asked(self, question: Question, number: int) -> Asked:
        return request(self.rubrics, question, number, self.max_tokens, bool(self.structured))

    def _takes_schema(self, questions: Sequence[Question], kept: Kept, refusals: Refusals) -> bool:
        for question in questions:
            messages, settings = self._asked(question, 1)
            form = {"response_format": verdicts.schema(question.protocol)}
            try:
                ask(self.client, kept, messages, settings | form)
                refusals.answered()
                return True
            except RequestRefused as refused:
                if refused.status not in _NO_SCHEMA:
                    if not refusals.of_one(refused):
                        raise
                    continue
            try:
                ask(self.client, kept, messages, settings)
                refusals.answered()
                return False
            except RequestRefused as refused:
                # Refused for what it says: another question tells.
                if not refusals.of_one(refused):
                    raise
        return False


def request(
    rubrics: Mapping[str, str], question: Question, number: int, max_tokens: int, structured: bool
) -> Asked:
    """How a question is asked for the `number`th time, by a schema where `structured`."""
    text = prompt(rubrics[question.protocol], question)
    settings: dict[str, Any] = {"max_tokens": max_tokens, "temperature": 0}
    if number > 1:
        text += reminder(number)
        settings |= {"temperature": _AGAIN, "seed": number}
    if structured:
        settings["response_format"] = verdicts.schema(question.protocol)
    return [Message("user", text)], settings


def reminder(number: int) -> str:
    """What is said behind a question that is asked again, for the `number`th time."""
    return (
        f"\n\n(This is asked for time {number}, as the reply before was no such object. "
        "Answer with the JSON object alone.)"
    )


def prompt(rubric: str, question: Question) -> str:
    """What a judge is asked: the rubric with the texts in its places, then the form."""
    places = {"conversation": f"<conversation>\n{conversation(question.prompt)}\n</conversation>"}
    if len(question.texts) == 1:
        places["answer"] = f"<answer>\n{shown(question.texts[0])}\n</answer>"
    else:
        for place, number, text in zip(("first", "second"), (1, 2), question.texts, strict=True):
            places[place] = f'<answer number="{number}">\n{shown(text)}\n</answer>'
    return f"{filled(rubric, places).rstrip()}\n\n{verdicts.form(question.protocol)}"


def same_text(question: Question) -> Verdict | None:
    """A tie of two answers that are the same, which nobody has to be asked about."""
    if question.protocol != "pairwise" or question.texts[0].strip() != question.texts[1].strip():
        return None
    return Verdict(question, {"verdict": "equal"}, 0)


def verdict_in(question: Question, reply: Reply | str, number: int) -> Verdict:
    """What a reply says to a question that was asked for the `number`th time."""
    if isinstance(reply, str):
        return Verdict(question, None, number, reply, REFUSED)
    if reply.stop == "content_filter":
        return Verdict(question, None, number, reply.text, "filtered")
    # What is cut off may have gone on to say otherwise.
    if reply.stop == "length":
        return Verdict(question, None, number, reply.text, "cut off")
    try:
        return Verdict(question, verdicts.read(question.protocol, reply.text), number, reply.text)
    except Unreadable as fault:
        return Verdict(question, None, number, reply.text, str(fault))
