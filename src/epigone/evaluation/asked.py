"""A model that can only be asked, below lm-eval: letters instead of likelihoods."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.utils import normalize_gen_kwargs

from epigone.errors import BenchmarkError, RequestRefused
from epigone.evaluation.questions import GO_ON, Refusals, ask, ask_all, messages_of
from epigone.models.endpoint import Client, Reply
from epigone.models.kept import Kept
from epigone.schema import Message, Progress, silent

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ASKED, BY_LOGPROB = "asked for the letter", "log-probability of the letter"
WENT_ON, WROTE = "asked to go on", "asked in chat"
_LETTER = "Answer with the letter of the right choice alone."
_BY_LETTER: dict[str, Any] = {"max_tokens": 16, "temperature": 0}
_BY_LOGPROB = {"max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": 20}
# Questions with which it is found out whether log-probabilities are told.
_TRIED = 5
# Many APIs take no more.
_MOST_STOPS = 4


class EndpointLM(LM):  # type: ignore[misc]
    """lm-eval's requests as questions to an endpoint.

    A choice is asked for by its letter, and where the endpoint tells log-probabilities, the
    likeliest letter counts; `method` says which. A request whose answer names no choice has
    `unanswered` set: its item is wrong whatever is made of equal likelihoods. One that the endpoint
    refuses, as too long or against its rules, has the reason in `refused`.
    """

    def __init__(
        self,
        client: Client,
        kept: Kept,
        progress: Progress = silent,
        *,
        instructed: bool = False,
    ) -> None:
        """Ask a client; `instructed` where each question says what to do."""
        super().__init__()
        self._client = client
        self._kept = kept
        self._progress = progress
        self._instructed = instructed
        self._logprobs: bool | None = None
        self.method = ""
        self.shortened = 0

    @property
    def tokenizer_name(self) -> str:
        """Nothing: the endpoint's tokenizer is not known."""
        return ""

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation as JSON, which is read again when it is sent."""
        return json.dumps(list(chat_history))

    def loglikelihood(self, requests: Sequence[Instance], **_: Any) -> list[tuple[float, bool]]:
        """0 for the choice that is meant, which is the likeliest where letters have likelihoods."""
        groups: dict[int, list[int]] = {}
        for i, request in enumerate(requests):
            # The choices of one item have one document.
            groups.setdefault(id(request.doc), []).append(i)
        members = list(groups.values())
        if any(len(m) < 2 for m in members):
            raise BenchmarkError(
                "an endpoint does not tell how likely a text is", value=self._client.endpoint.model,
                fix="choose benchmarks with choices or written answers",
            )  # fmt: skip
        questions = [self._choice([requests[i].args for i in m]) for m in members]
        if self._logprobs is None:
            self._logprobs = self._tells_logprobs(questions)
        self.method = BY_LOGPROB if self._logprobs else ASKED
        settings = _BY_LOGPROB if self._logprobs else _BY_LETTER
        replies = ask_all(
            self._client, self._kept, [(m, settings) for m in questions], self._progress
        )
        out: list[tuple[float, bool]] = [(-math.inf, False)] * len(requests)
        for own, reply in zip(members, replies, strict=True):
            reply = _nothing_said(reply)
            refused = isinstance(reply, str)
            values = None if isinstance(reply, str) else _values(reply, len(own))
            # Letters are of one length, the texts they stand for are not: what weighs likelihoods
            # by length must find only which one was meant.
            best = max(values) if values else 0.0
            for i, value in zip(own, values or [0.0] * len(own), strict=True):
                out[i] = (0.0 if value == best else -math.inf, False)
                requests[i].letter = value
                requests[i].unanswered = values is None and not refused
                requests[i].refused = reply if refused else ""
        return out

    def generate_until(self, requests: Sequence[Instance], **_: Any) -> list[str]:
        """Written answers, cut before the first of the stop texts."""
        questions, stops = [], []
        seen: dict[int, int] = {}
        for request in requests:
            context, told = request.args
            wanted = normalize_gen_kwargs(told)
            texts = wanted["until"]
            drawn = bool(wanted["do_sample"])
            settings = {
                "max_tokens": wanted["max_gen_toks"],
                "temperature": float(wanted.get("temperature", 1.0)) if drawn else 0.0,
            }
            if drawn:
                settings["top_p"] = float(wanted.get("top_p", 1.0))
                # Samples of one prompt must not be the same request.
                settings["seed"] = seen[id(request)] = seen.get(id(request), -1) + 1
            messages = messages_of(context, "" if self._instructed else GO_ON)
            self.method = WENT_ON if messages[0].content == GO_ON else WROTE
            questions.append(
                (messages, settings | ({"stop": texts[:_MOST_STOPS]} if texts else {}))
            )
            stops.append(texts)
        replies = ask_all(self._client, self._kept, questions, self._progress)
        out = []
        for request, reply, texts in zip(requests, replies, stops, strict=True):
            reply = _nothing_said(reply)
            if isinstance(reply, str):
                request.refused = reply
                out.append("")
                continue
            request.stops = [*getattr(request, "stops", ()), reply.stop]
            text = _without_cue(reply.text, request.args[0])
            ends = [at for t in texts if (at := text.find(t)) >= 0]
            out.append(text[: min(ends, default=len(text))])
        return out

    def loglikelihood_rolling(self, requests: Sequence[Instance], **_: Any) -> list[float]:
        """Refused: an endpoint does not tell how likely a text is."""
        raise BenchmarkError(
            "an endpoint does not tell how likely a text is", value=self._client.endpoint.model
        )

    def _choice(self, arguments: Sequence[tuple[str, str]]) -> list[Message]:
        context, options = arguments[0][0], [option.strip() for _, option in arguments]
        several = len({c for c, _ in arguments}) > 1 or len(set(options)) < len(options)
        if several or len(options) > len(LETTERS):
            raise BenchmarkError(
                "an endpoint can only choose between up to 26 ends of one text",
                value=options[0][:80],
                fix="measure this benchmark on models with weights",
            )  # fmt: skip
        messages = messages_of(context, _LETTER)
        if options == list(LETTERS[: len(options)]):
            if messages[0].role != "system":
                # A chat of examples does not say what is to be answered.
                messages.insert(0, Message("system", _LETTER))
            return messages
        listed = "\n".join(f"{n}. {o}" for n, o in zip(LETTERS, options, strict=False))
        last = f"{messages[-1].content}\n\nWhich choice goes on rightly?\n{listed}\n\n{_LETTER}"
        return [*messages[:-1], Message(messages[-1].role, last)]

    def _tells_logprobs(self, questions: Sequence[list[Message]]) -> bool:
        refusals = Refusals()
        for messages in questions[:_TRIED]:
            try:
                return ask(self._client, self._kept, messages, _BY_LOGPROB).first is not None
            except RequestRefused as refused:
                if not refusals.of_one(refused):
                    raise
            try:
                ask(self._client, self._kept, messages, _BY_LETTER)
            except RequestRefused as refused:
                if not refusals.of_one(refused):
                    raise
                # Refused for what it says: another question tells.
                continue
            return False
        return False


def _nothing_said(reply: Reply | str) -> Reply | str:
    """A reply, or why there is none: what a filter or thoughts left nothing of is no answer."""
    if (
        isinstance(reply, str)
        or reply.text.strip()
        or reply.stop not in ("content_filter", "length")
    ):
        return reply
    return f"nothing was said before it ended with {reply.stop}"


def _without_cue(text: str, context: str) -> str:
    """An answer without the end of the text that it goes on from, as "A:", said once more."""
    cue = context.rpartition("\n")[2].strip()
    begins = text.lstrip()
    return begins[len(cue) :] if cue.endswith(":") and begins.startswith(cue) else text


def _values(reply: Reply, choices: int) -> list[float] | None:
    """A value for each choice, the highest for the one that is meant; None where none is."""
    letters = LETTERS[:choices]
    if reply.first is not None:
        told = {n: [v for t, v in reply.first.items() if t.strip() == n] for n in letters}
        if any(told.values()):
            lowest = min(reply.first.values()) - 1.0
            return [_sum(told[n]) if told[n] else lowest for n in letters]
    found = re.findall(rf"(?<![A-Za-z'])([{letters}])(?![A-Za-z'])", reply.text)
    # "A" may be an article: the letter that an answer begins or ends with goes before.
    named = re.match(rf"\W*([{letters}])(?![A-Za-z'])", reply.text)
    letter = named[1] if named else (found[-1] if found else None)
    return None if letter is None else [0.0 if n == letter else -math.inf for n in letters]


def _sum(values: Sequence[float]) -> float:
    most = max(values)
    return most + math.log(sum(math.exp(v - most) for v in values))
