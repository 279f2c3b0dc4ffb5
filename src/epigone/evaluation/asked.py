"""A model that can only be asked, below lm-eval: letters instead of likelihoods."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from epigone.errors import BenchmarkError, RequestRefused
from epigone.files import canonical, read_jsonl_sound
from epigone.models.endpoint import Client, Reply
from epigone.schema import Message, Progress, silent

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ASKED, BY_LOGPROB = "asked for the letter", "log-probability of the letter"
_LETTER = "Answer with the letter of the right choice alone."
_GO_ON = "Continue the text. Answer with the continuation alone, without repeating the text."
_TOP = 20
# Many APIs take no more.
_MOST_STOPS = 4


class Answers:
    """Answers that came already, in a file that survives the process: none is paid for twice."""

    def __init__(self, path: Path | None) -> None:
        """Read what is there; a last line that is cut off is no answer."""
        self._lock = threading.Lock()
        self._path = path
        self._known: dict[str, dict[str, Any]] = {}
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            for row in read_jsonl_sound(path):
                self._known[row["request"]] = row["reply"]

    def get(self, key: str) -> Reply | None:
        """The answer to a request, if it came."""
        found = self._known.get(key)
        return None if found is None else Reply(**found)

    def put(self, key: str, reply: Reply) -> None:
        """Keep an answer."""
        told = asdict(reply)
        line = json.dumps({"request": key, "reply": told}, ensure_ascii=False).encode() + b"\n"
        with self._lock:
            self._known[key] = told
            if self._path is not None:
                with open(self._path, "ab") as f:
                    f.write(line)
                    f.flush()
                    os.fsync(f.fileno())


class EndpointLM(LM):  # type: ignore[misc]
    """lm-eval's requests as questions to an endpoint.

    A choice is asked for by its letter, and where the endpoint tells log-probabilities, the
    likeliest letter counts; `method` says which. A request whose answer names no choice has
    `unanswered` set: its item is wrong whatever is made of equal likelihoods.
    """

    def __init__(
        self,
        client: Client,
        answers: Answers,
        progress: Progress = silent,
        *,
        instructed: bool = False,
        at_once: int = 8,
    ) -> None:
        """Ask a client, `at_once` questions at a time; `instructed` where each says what to do."""
        super().__init__()
        self._client = client
        self._answers = answers
        self._progress = progress
        self._at_once = at_once
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
        """0 for the choice that is named, or the letters' own log-probabilities."""
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
        asked = [self._choice([requests[i].args for i in m]) for m in members]
        if self._logprobs is None:
            self._logprobs = self._tells_logprobs(asked[0])
            self.method = BY_LOGPROB if self._logprobs else ASKED
        settings = {"max_tokens": 16, "temperature": 0}
        if self._logprobs:
            settings |= {"max_tokens": 1, "logprobs": True, "top_logprobs": _TOP}
        replies = self._all([(messages, settings) for messages in asked])
        out: list[tuple[float, bool]] = [(-math.inf, False)] * len(requests)
        for own, reply in zip(members, replies, strict=True):
            values = _values(reply, len(own))
            for i, value in zip(own, values or [0.0] * len(own), strict=True):
                out[i] = (value, False)
                requests[i].unanswered = values is None
        return out

    def generate_until(self, requests: Sequence[Instance], **_: Any) -> list[str]:
        """Written answers, cut before the first of the stop texts."""
        asked, stops = [], []
        seen: dict[int, int] = {}
        for request in requests:
            context, told = request.args
            until = told.get("until") or ()
            texts = [until] if isinstance(until, str) else list(until)
            settings = {"max_tokens": int(told.get("max_gen_toks", 256)), "temperature": 0.0}
            if told.get("do_sample"):
                settings["temperature"] = float(told.get("temperature", 1.0))
                settings["top_p"] = float(told.get("top_p", 1.0))
                # Samples of one prompt must not be the same request.
                settings["seed"] = seen[id(request)] = seen.get(id(request), -1) + 1
            messages = _messages(context, "" if self._instructed else _GO_ON)
            # In chat a text is introduced before it begins, with the very lines that end it.
            raw = messages[0].content == _GO_ON
            asked.append(
                (messages, settings | ({"stop": texts[:_MOST_STOPS]} if raw and texts else {}))
            )
            stops.append(texts if raw else [])
        replies = self._all(asked)
        out = []
        for request, reply, texts in zip(requests, replies, stops, strict=True):
            request.stops = [*getattr(request, "stops", ()), reply.stop]
            ends = [at for t in texts if (at := reply.text.find(t)) >= 0]
            out.append(reply.text[: min(ends, default=len(reply.text))])
        return out

    def loglikelihood_rolling(self, requests: Sequence[Instance], **_: Any) -> list[float]:
        """Refused: an endpoint does not tell how likely a text is."""
        raise BenchmarkError(
            "an endpoint does not tell how likely a text is", value=self._client.endpoint.model
        )

    def _choice(self, arguments: Sequence[tuple[str, str]]) -> list[Message]:
        context, options = arguments[0][0], [option.strip() for _, option in arguments]
        if len({c for c, _ in arguments}) > 1 or len(set(options)) < len(options):
            raise BenchmarkError(
                "an endpoint can only choose between ends of one text", value=options[0][:80],
                fix="measure this benchmark on models with weights",
            )  # fmt: skip
        messages = _messages(context, _LETTER)
        if options == list(LETTERS[: len(options)]):
            return messages
        listed = "\n".join(f"{n}. {o}" for n, o in zip(LETTERS, options, strict=False))
        last = f"{messages[-1].content}\n\nWhich choice goes on rightly?\n{listed}\n\n{_LETTER}"
        return [*messages[:-1], Message(messages[-1].role, last)]

    def _tells_logprobs(self, messages: list[Message]) -> bool:
        settings = {"max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": _TOP}
        try:
            (reply,) = self._all([(messages, settings)])
        except RequestRefused:
            return False
        return reply.first is not None

    def _all(self, asked: Sequence[tuple[list[Message], dict[str, Any]]]) -> list[Reply]:
        finished = 0
        lock = threading.Lock()

        def one(question: tuple[list[Message], dict[str, Any]]) -> Reply:
            nonlocal finished
            messages, settings = question
            key = self._key(messages, settings)
            reply = self._answers.get(key)
            if reply is None:
                reply = self._client.ask(messages, **settings)
                self._answers.put(key, reply)
            with lock:
                finished += 1
                self._progress(finished, len(asked))
            return reply

        with ThreadPoolExecutor(self._at_once) as pool:
            futures = [pool.submit(one, question) for question in asked]
            try:
                return [future.result() for future in futures]
            except BaseException:
                # What is on its way is paid for: it is kept, and nothing more is sent.
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _key(self, messages: Sequence[Message], settings: Mapping[str, Any]) -> str:
        endpoint = self._client.endpoint
        told = [endpoint.url, endpoint.model, [[m.role, m.content] for m in messages], settings]
        return hashlib.sha256(canonical(told).encode()).hexdigest()


def _messages(context: str, system: str) -> list[Message]:
    """The turns of a chat, or a text as one turn with what is to be done with it."""
    if context.startswith("["):
        try:
            return [Message(m["role"], m["content"]) for m in json.loads(context)]
        except (ValueError, TypeError, KeyError):
            pass
    return [*([Message("system", system)] if system else []), Message("user", context)]


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
