"""Questions to an endpoint: many at a time, each answered once and for good."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from epigone.errors import RequestRefused
from epigone.models.endpoint import Client, Reply
from epigone.models.kept import Kept, asked
from epigone.schema import Message, Progress

GO_ON = "Continue the text. Answer with the continuation alone, without repeating the text."
# Messages, and settings of /chat/completions.
Question = tuple[list[Message], dict[str, Any]]
_AT_ONCE = 8
# Refused for what it says, or answered with what is none, while others of its kind are answered.
_OF_ONE = frozenset({200, 400, 413, 422})
# So many refusals while nothing at all is answered are a reason that holds for all.
_ENOUGH = 20


def messages_of(context: str, system: str) -> list[Message]:
    """The turns of a chat, or a text as one turn with what is to be done with it."""
    if context.startswith("["):
        try:
            return [Message(m["role"], m["content"]) for m in json.loads(context)]
        except (ValueError, TypeError, KeyError):
            pass
    return [*([Message("system", system)] if system else []), Message("user", context)]


class Refusals:
    """Tells whether a refusal is of one question, or holds for all of them."""

    def __init__(self) -> None:
        """Nothing is answered or refused yet."""
        self._answered = False
        self._first: RequestRefused | None = None
        self._count = 0

    def answered(self) -> None:
        """One was answered."""
        self._answered = True

    def of_one(self, refused: RequestRefused) -> bool:
        """Whether it is of one question; 403 may be a key's, until others were answered."""
        self._count += 1
        self._first = self._first or refused
        if not self._answered and self._count >= _ENOUGH:
            return False
        return refused.status in _OF_ONE or (self._answered and refused.status == 403)

    def end(self) -> None:
        """Raise the first refusal where there was nothing else."""
        if self._first is not None and not self._answered:
            raise self._first


def ask_all(
    client: Client,
    kept: Kept,
    questions: Sequence[Question],
    progress: Progress,
    *,
    refusals: Refusals | None = None,
    at_once: int = _AT_ONCE,
) -> list[Reply | str]:
    """The reply to each question, or why this one was refused; no more than `at_once` at a time.

    `refusals` are those of questions of the same kind that were asked before, if any were.

    Raises RequestRefused where every question is refused, or for a reason that holds for all;
    EndpointError where the endpoint stays away. What came until then is kept.
    """
    finished = 0
    refusals = refusals or Refusals()
    lock = threading.Lock()

    def one(question: Question) -> Reply | RequestRefused:
        nonlocal finished
        found: Reply | RequestRefused
        try:
            found = ask(client, kept, *question)
            refusals.answered()
        except RequestRefused as refused:
            if not refusals.of_one(refused):
                raise
            found = refused
        with lock:
            finished += 1
            progress(finished, len(questions))
        return found

    with ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(one, question) for question in questions]
        try:
            found = [future.result() for future in futures]
        except BaseException:
            # What is on its way is paid for: it is kept, and nothing more is sent.
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    refusals.end()
    return [str(f) if isinstance(f, RequestRefused) else f for f in found]


def ask(
    client: Client, kept: Kept, messages: Sequence[Message], settings: Mapping[str, Any]
) -> Reply:
    """The reply to one question, new or kept; see `Client.ask` for what it raises."""
    endpoint = client.endpoint
    told = [[m.role, m.content] for m in messages]
    key = asked(endpoint.url, endpoint.model, told, settings)
    known = kept.get(key)
    if known is not None:
        return Reply(**known)
    reply = client.ask(messages, **settings)
    kept.put({key: asdict(reply)})
    return reply
