"""A model behind an OpenAI-compatible endpoint: one request, tried again where that may help."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import urlsplit

import httpx
import tenacity

from epigone import logs
from epigone.errors import EndpointError, RequestRefused
from epigone.models.received import LARGEST, UNREADABLE, decoded, sound, without_key
from epigone.models.received import read as read_answer
from epigone.schema import Message

_LOG = logging.getLogger(__name__)
# Where the key stands, unless a service has a variable of its own.
KEY = "EPIGONE_API_KEY"
# Where conversations are sent.
CHAT = "chat/completions"
Answer = TypeVar("Answer")
# Statuses of failures that may pass, beside those of a server's errors, and of these the lasting.
_AGAIN, _LASTING = frozenset({408, 409, 429}), frozenset({501, 505})
_ATTEMPTS = 6
_LONGEST_WAIT = 60.0
# What to do about a status.
_FIXES = {
    401: "put a valid key into the endpoint's environment variable",
    403: "the key may not use this model",
    404: "check the URL, which ends in /v1, and the model's name",
}
# Models of OpenAI that think before they answer; what they think is counted as part of it.
_THINKING = re.compile(r"(o\d|gpt-5)(?![a-z])")
_THOUGHTS = 4096
_UNKNOWN_TO_THEM = frozenset({"temperature", "top_p", "stop", "logprobs", "top_logprobs"})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model answers: the URL up to /v1, its name there, and the variable with the key."""

    url: str
    model: str
    key_env: str = KEY
    seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: why it ended ("stop", "length", …), tokens that the endpoint counted.

    `first` holds the natural-log probabilities of the likeliest first tokens, by their text; it is
    None where the endpoint gives none.
    """

    text: str
    stop: str
    prompt_tokens: int
    tokens: int
    first: Mapping[str, float] | None = None


def key_in_environment(endpoint: Endpoint) -> str:
    """The endpoint's key, empty where there is none.

    Raises EndpointError for one that no header takes, without showing it.
    """
    key = os.environ.get(endpoint.key_env, "")
    if any(not 32 < ord(c) < 127 for c in key):
        raise EndpointError("the key has characters that no key has", value=endpoint.key_env)
    logs.hide(key)
    return key


class Keeper(Protocol):
    """Keeps what one endpoint answers, and knows what it may be asked; several threads use it."""

    endpoint: Endpoint

    def asks(self, path: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """The JSON that answered this before, or None: then it leaves, and `came` or `failed`.

        Waits until it may leave; raises EndpointError where it may not.
        """

    def came(
        self,
        path: str,
        body: Mapping[str, Any],
        response: dict[str, Any],
        headers: Mapping[str, str],
    ) -> None:
        """The JSON that answered it, and its headers."""

    def failed(
        self,
        path: str,
        body: Mapping[str, Any],
        why: str,
        headers: Mapping[str, str],
        *,
        billed: bool,
        whole: bool,
    ) -> None:
        """Nothing that can be used came; `billed` where it may cost all the same.

        A `whole` JSON that is no answer would be the same again.
        """


_keeper: Keeper | None = None


@contextmanager
def kept_by(keeper: Keeper) -> Iterator[None]:
    """Have every client of its endpoint that is made in the meantime keep its answers so."""
    # Stages make their clients themselves, and know nothing of money.
    global _keeper
    before, _keeper = _keeper, keeper
    try:
        yield
    finally:
        _keeper = before


class _Again(Exception):
    """A failure that may pass; `after` is how many seconds the endpoint asks to wait.

    `answered` where it was an answer, of which nothing can be made, and `whole` where it was JSON;
    `billed` where it may have been paid for all the same.
    """

    def __init__(
        self,
        what: str,
        headers: Mapping[str, str] | None = None,
        *,
        answered: bool = False,
        billed: bool = False,
        whole: bool = False,
    ) -> None:
        super().__init__(what)
        self.headers = headers or {}
        self.after = retry_after(self.headers)
        self.answered = answered
        self.billed = billed
        self.whole = whole


class Client:
    """Asks one endpoint; can be used by several threads."""

    def __init__(
        self, endpoint: Endpoint, *, attempts: int = _ATTEMPTS, header: str = "Authorization"
    ) -> None:
        """Prepare to ask; nothing is sent yet. Raises EndpointError where the key cannot be.

        The key goes into `header`, and as a bearer's into the usual one.
        """
        self.endpoint = endpoint
        self._key = key_in_environment(endpoint)
        told = f"Bearer {self._key}" if header == "Authorization" else self._key
        headers = {header: told} if self._key else {}
        self._http = httpx.Client(headers=headers, timeout=endpoint.seconds, follow_redirects=False)
        self._attempts = attempts
        self._keeper = _keeper if _keeper and _same(_keeper.endpoint, endpoint) else None

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def ask(self, messages: Sequence[Message], **settings: Any) -> Reply:
        """The answer to a conversation; `settings` are those of /chat/completions; see `post`."""
        return self.post(CHAT, chat(self.endpoint.model, messages, settings), reply_of)

    def post(self, path: str, body: Mapping[str, Any], read: Callable[[Any], Answer]) -> Answer:
        """What `read` makes of the JSON that answers a request.

        Tried again, at growing intervals or when the endpoint says, for what may pass: no
        connection, no answer in time, too many requests, errors of the server, and what `read`
        finds to be no answer. Raises RequestRefused for what would be refused again or, with the
        status 200, never was an answer; EndpointError when the last attempt failed.
        """
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Again),
            stop=tenacity.stop_after_attempt(self._attempts),
            wait=_wait,
            before_sleep=_log_again,
            reraise=True,
        )
        try:
            found: Answer = attempts(self._once, path, body, read)
        except _Again as error:
            if error.answered:
                raise RequestRefused(
                    f"{host(self.endpoint)} answered {self._attempts} times, and never so that it "
                    "could be read",
                    status=200, value=str(error),
                ) from None  # fmt: skip
            raise EndpointError(
                f"{host(self.endpoint)} did not answer, tried {self._attempts} times",
                value=str(error), fix="run the same command again later",
            ) from None  # fmt: skip
        return found

    def _once(self, path: str, body: Mapping[str, Any], read: Callable[[Any], Answer]) -> Answer:
        if self._keeper is None:
            return self._sent(path, body, read)[1]
        known = self._keeper.asks(path, body)
        if known is not None:
            return read(known)
        try:
            response, found, headers = self._sent(path, body, read)
        except BaseException as error:
            again = error if isinstance(error, _Again) else _Again("", billed=True)
            billed = again.billed and not isinstance(error, RequestRefused)
            why = str(error) or type(error).__name__
            self._keeper.failed(path, body, why, again.headers, billed=billed, whole=again.whole)
            raise
        self._keeper.came(path, body, response, headers)
        return found

    def _sent(
        self, path: str, body: Mapping[str, Any], read: Callable[[Any], Answer]
    ) -> tuple[Any, Answer, Mapping[str, str]]:
        url = f"{self.endpoint.url.rstrip('/')}/{path}"
        try:
            with self._http.stream("POST", url, json=body) as response:
                content = _read(response)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            left = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            what = f"{type(error).__name__}: {self._told(str(error))}"
            raise _Again(what, billed=left) from None
        if response.status_code != 200:
            said = self._told(reason(content))
            again, billed, status = verdict(response.status_code, content)
            if again:
                raise _Again(f"HTTP {status}: {said}", response.headers, billed=billed)
            raise refusal(self.endpoint, status, said)
        told: Any = None
        try:
            told = decoded(content, self._key)
            return told, read(told), response.headers
        except UNREADABLE:
            said = self._told(content.decode(errors="replace"))
            raise _Again(
                f"no answer to the request: {said}", response.headers,
                answered=True, billed=True, whole=told is not None,
            ) from None  # fmt: skip

    def _told(self, text: str) -> str:
        # Some servers repeat what they were sent. The key goes before the text is cut, which would
        # leave a part of it.
        return without_key(text, self._key)[:200]


class Verdict(NamedTuple):
    """What a status means: whether asking again may help, and whether it may be billed so too.

    `status` is the one that tells what is meant.
    """

    again: bool
    billed: bool
    status: int


def verdict(status: int, content: bytes) -> Verdict:
    """What an endpoint means by a status other than 200 and what it says with it."""
    if b'"insufficient_quota"' in content:
        # No minute's limit: nobody has to wait for its end.
        status = 402
    again = status in _AGAIN or (status >= 500 and status not in _LASTING)
    # A gateway may have lost patience with a model that went on.
    return Verdict(again, status in (408, 502, 504) or 520 <= status < 529, status)


def refusal(endpoint: Endpoint, status: int, said: str) -> RequestRefused:
    """The error of a request that would be refused again."""
    what = f"{host(endpoint)} refuses the request: HTTP {status}"
    return RequestRefused(what, status=status, value=said, fix=_FIXES.get(status, ""))


def _same(one: Endpoint, other: Endpoint) -> bool:
    return (one.url.rstrip("/"), one.model) == (other.url.rstrip("/"), other.model)


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.after if isinstance(error, _Again) else 0.0
    grown = tenacity.wait_exponential_jitter(initial=1, max=30, jitter=2)(state)
    return min(max(asked, grown), _LONGEST_WAIT)


def _log_again(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    _LOG.debug("attempt %d of an endpoint: %s", state.attempt_number, error)


def _read(response: httpx.Response) -> bytes:
    content = bytearray()
    for part in response.iter_bytes():
        content += part
        if len(content) > LARGEST:
            raise _Again("an answer without end", billed=True)
    return bytes(content)


def chat(model: str, messages: Sequence[Message], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is sent to CHAT for a model's answer to a conversation."""
    return {
        "model": model,
        "messages": [{"role": m.role, "content": m.content} for m in messages],
        **(_of_thinkers(settings) if thinks(model) else settings),
    }


def reply_of(row: Mapping[str, Any]) -> Reply:
    """The answer in the JSON of a response; raises what `UNREADABLE` names where there is none."""
    said = read_answer(row)
    first = _first(row["choices"][0].get("logprobs"))
    return Reply(said.text, said.stop, said.prompt_tokens, said.tokens, first)


def _first(told: Any) -> dict[str, float] | None:
    """Log-probabilities of the first token, where there are any: texts of one token may repeat."""
    try:
        rows = told["content"][0]["top_logprobs"]
        found: dict[str, float] = {}
        for row in rows:
            text, value = sound(str(row["token"])), float(row["logprob"])
            if math.isfinite(value):
                found[text] = max(value, found.get(text, -math.inf))
    except (KeyError, TypeError, IndexError, ValueError):
        return None
    return found or None


def reason(content: bytes) -> str:
    """Why an endpoint says that a request failed."""
    try:
        told = json.loads(content)
        error = told.get("error", told) if isinstance(told, dict) else told
        text = error.get("message", error) if isinstance(error, dict) else error
        return str(text)
    except (ValueError, RecursionError):
        return content.decode(errors="replace")


def thinks(model: str) -> bool:
    """Whether a model takes `max_completion_tokens` for `max_tokens`."""
    return _THINKING.match(model) is not None


def longest(model: str, max_tokens: int) -> int:
    """Tokens that an answer may have when `max_tokens` are asked for: thoughts come on top."""
    return max_tokens + (_THOUGHTS if thinks(model) else 0)


def _of_thinkers(settings: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in settings.items() if name not in _UNKNOWN_TO_THEM}
    if "max_tokens" in found:
        found["max_completion_tokens"] = found.pop("max_tokens") + _THOUGHTS
    return found


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that an endpoint asks to wait, 0 where it does not.

    Retry-After holds seconds or a date; retry-after-ms is OpenAI's own.
    """
    told = headers.get("retry-after", "")
    with suppress(ValueError):
        return max(0.0, float(headers.get("retry-after-ms", "")) / 1000)
    with suppress(ValueError):
        return max(0.0, float(told))
    with suppress(ValueError, TypeError, OverflowError):
        when = parsedate_to_datetime(told)
        # A date whose zone is not known is one of Greenwich.
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return max(0.0, (when - datetime.now(UTC)).total_seconds())
    return 0.0


def host(endpoint: Endpoint) -> str:
    """The endpoint's host and port, for messages."""
    return urlsplit(endpoint.url).netloc
