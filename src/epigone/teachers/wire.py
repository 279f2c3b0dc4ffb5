"""One request on its way: what is sent, what came of it, and whether to try again."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from epigone.errors import EndpointError, RequestRefused
from epigone.models.endpoint import AGAIN, FIXES, Endpoint, host, reason, retry_after, sound
from epigone.schema import Message

_LARGEST = 16 << 20
CHAT, COMPLETIONS = "chat/completions", "completions"
# Models of OpenAI that count their thoughts as part of an answer name its length otherwise.
_THINKING = re.compile(r"(o\d|gpt-5)(?![a-z])")


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: the path below /v1, the whole body, and which of several samples this is."""

    path: str
    body: Mapping[str, Any]
    sample: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a teacher said, as its endpoint told it.

    `stop` is why it ended: "stop", "length", "content_filter", …; `refusal` what it said instead of
    an answer; `model` the snapshot that answered; `created` seconds since 1970.
    """

    text: str
    stop: str
    refusal: str
    prompt_tokens: int
    tokens: int
    model: str
    created: int


class Failed(Exception):
    """A try that failed and may succeed later.

    `after` is how many seconds the endpoint asks to wait; `billed` whether it may have been paid
    for all the same; `came` what of it arrived; `limited` whether there were too many requests.
    """

    def __init__(
        self,
        what: str,
        *,
        after: float = 0.0,
        billed: bool = False,
        came: str | None = None,
        limited: bool = False,
    ) -> None:
        super().__init__(what)
        self.after = after
        self.billed = billed
        self.came = came
        self.limited = limited


def chat(
    endpoint: Endpoint,
    messages: Sequence[Message],
    *,
    max_tokens: int,
    sample: int = 0,
    **settings: Any,
) -> Request:
    """A request of a chat model; a `seed` grows with the sample, so that samples differ."""
    body: dict[str, Any] = {
        "model": endpoint.model,
        "messages": [{"role": m.role, "content": m.content} for m in messages],
        _length_name(endpoint.model): max_tokens,
        **{name: value for name, value in settings.items() if value is not None},
    }
    if "seed" in body:
        body["seed"] += sample
    return Request(CHAT, body, sample)


def completion(
    endpoint: Endpoint, prompt: str, *, max_tokens: int, sample: int = 0, **settings: Any
) -> Request:
    """A request of a base model, which goes on from a text."""
    told = chat(endpoint, (), max_tokens=max_tokens, sample=sample, **settings)
    body = {name: value for name, value in told.body.items() if name != "messages"}
    return Request(COMPLETIONS, {**body, "prompt": prompt}, sample)


def _length_name(model: str) -> str:
    return "max_completion_tokens" if _THINKING.match(model) else "max_tokens"


def key_in_environment(endpoint: Endpoint) -> str:
    """The endpoint's key, empty where there is none.

    Raises EndpointError for one that no header takes, without showing it.
    """
    key = os.environ.get(endpoint.key_env, "")
    if any(not 32 < ord(c) < 127 for c in key):
        raise EndpointError("the key has characters that no key has", value=endpoint.key_env)
    return key


class Wire:
    """Connections to one endpoint."""

    def __init__(self, endpoint: Endpoint, connections: int) -> None:
        """Prepare to send; nothing is sent yet, and an event loop has to run."""
        self.endpoint = endpoint
        self._key = key_in_environment(endpoint)
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections),
            timeout=aiohttp.ClientTimeout(total=endpoint.seconds),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=True,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def send(self, request: Request) -> tuple[dict[str, Any], Mapping[str, str]]:
        """The endpoint's whole JSON and its headers.

        Raises Failed for what may succeed later, RequestRefused for what would be refused again.
        """
        url = f"{self.endpoint.url.rstrip('/')}/{request.path}"
        try:
            # A redirect would carry the key to another host.
            async with self._http.post(url, json=request.body, allow_redirects=False) as response:
                content = await _read(response)
                status, headers = response.status, response.headers
        except aiohttp.ClientConnectorError as error:
            raise Failed(f"no connection: {self.told(str(error))}") from None
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            # It left; whether it was answered, and counted, nobody knows.
            what = f"{type(error).__name__}: {self.told(str(error))}"
            raise Failed(what, billed=True) from None
        if status != 200:
            self._failed(status, headers, content)
        try:
            found = self._decoded(content)
            read(found)
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            said = content.decode(errors="replace")
            raise Failed(
                f"no answer to the request: {self.told(said)}", billed=True, came=said
            ) from None
        return found, headers

    def _failed(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        said = self.told(reason(content))
        if status in AGAIN:
            after = retry_after(headers)
            raise Failed(f"HTTP {status}: {said}", after=after, limited=status == 429)
        raise RequestRefused(
            f"{host(self.endpoint)} refuses the request: HTTP {status}",
            status=status,
            value=said,
            fix=FIXES.get(status, ""),
        )

    def told(self, text: str) -> str:
        """A text of the endpoint's without the key, cut."""
        return (text.replace(self._key, "***") if self._key else text)[:200]

    def _decoded(self, content: bytes) -> Any:
        found = json.loads(content, parse_constant=_no_number)
        repeated = self._key and self._key.encode() in content
        if repeated or b"\\ud" in content.lower():
            # Some servers repeat what they were sent, and halves of characters no file takes.
            text = sound(json.dumps(found, ensure_ascii=False))
            found = json.loads(text.replace(self._key, "***") if self._key else text)
        return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for part in response.content.iter_any():
        content += part
        if len(content) > _LARGEST:
            raise Failed("an answer without end", billed=True)
    return bytes(content)


def read(row: Mapping[str, Any]) -> Answer:
    """The answer in an endpoint's JSON, of chat or of completions.

    Raises KeyError, TypeError, IndexError, ValueError where there is none.
    """
    choice = row["choices"][0]
    message = choice["message"] if "message" in choice else {"content": choice["text"]}
    text = message.get("content")
    refusal = message.get("refusal")
    if not isinstance(text, str | None) or not isinstance(refusal, str | None):
        raise TypeError("no text")
    usage = row.get("usage") or {}
    return Answer(
        text=sound(text or ""),
        stop=sound(str(choice.get("finish_reason") or ""))[:40],
        refusal=sound(refusal or ""),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        tokens=_count(usage.get("completion_tokens")),
        model=sound(str(row.get("model") or ""))[:200],
        created=_count(row.get("created")),
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
