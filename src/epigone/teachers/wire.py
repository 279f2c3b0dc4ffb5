"""One request on its way: what is sent, what came of it, and whether to try again."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from epigone.models.endpoint import (
    Endpoint,
    key_in_environment,
    reason,
    refusal,
    retry_after,
    thinks,
    verdict,
)
from epigone.models.received import LARGEST, UNREADABLE, decoded, read, without_key
from epigone.schema import Message
from epigone.teachers.ledger import Row, lost

# How much is kept of what cannot be read.
SHOWN = 2_000
_CONNECT = 15.0
_NEVER_SENT = (
    aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError,
    aiohttp.InvalidURL,
)  # fmt: skip
CHAT, COMPLETIONS = "chat/completions", "completions"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: the path below /v1, the whole body, and which of several samples this is."""

    path: str
    body: Mapping[str, Any]
    sample: int = 0


class Failed(Exception):
    """A try that failed and may succeed later.

    `billed` is whether it may have been paid for all the same; `status` is that of HTTP, 0 without
    an answer; `came` is what arrived where it cannot be read, and `whole` whether it was JSON.
    """

    def __init__(
        self,
        what: str,
        *,
        billed: bool = False,
        status: int = 0,
        headers: Mapping[str, str] | None = None,
        came: str = "",
        whole: bool = False,
    ) -> None:
        super().__init__(what)
        self.billed = billed
        self.status = status
        self.headers = headers or {}
        self.came = came
        self.whole = whole

    @property
    def after(self) -> float:
        """Seconds that the endpoint asks to wait."""
        return retry_after(self.headers)

    @property
    def limited(self) -> bool:
        """Whether there were too many requests."""
        return self.status == 429

    def row(self, key: str, **batch: str) -> Row:
        """What the ledger says of it."""
        if not self.billed:
            return Row("void", key, batch)
        return lost(key, str(self), self.came, whole=self.whole, **batch)


def chat(
    endpoint: Endpoint,
    messages: Sequence[Message],
    *,
    max_tokens: int,
    sample: int = 0,
    **settings: Any,
) -> Request:
    """A request of a chat model; settings that are None are the endpoint's."""
    body: dict[str, Any] = {
        "model": endpoint.model,
        "messages": [{"role": m.role, "content": m.content} for m in messages],
        "max_completion_tokens" if thinks(endpoint.model) else "max_tokens": max_tokens,
        **{name: value for name, value in settings.items() if value is not None},
    }
    return Request(CHAT, body, sample)


def own_seed(seed: int, *which: int) -> int:
    """The seed itself for the first of all, another one of 31 bits for each other."""
    if not any(which):
        return seed
    told = hashlib.sha256(repr((seed, *which)).encode()).digest()
    return int.from_bytes(told[:4], "little") >> 1


def completion(
    endpoint: Endpoint, prompt: str, *, max_tokens: int, sample: int = 0, **settings: Any
) -> Request:
    """A request of a base model, which goes on from a text."""
    told = chat(endpoint, (), max_tokens=max_tokens, sample=sample, **settings)
    body = {name: value for name, value in told.body.items() if name != "messages"}
    return Request(COMPLETIONS, {**body, "prompt": prompt}, sample)


class Wire:
    """Connections to one endpoint."""

    def __init__(self, endpoint: Endpoint, connections: int) -> None:
        """Prepare to send; nothing is sent yet, and an event loop has to run."""
        self.endpoint = endpoint
        self._key = key_in_environment(endpoint)
        parts = urlsplit(endpoint.url)
        # Not by aiohttp's own look into the environment, which would also send what is in .netrc.
        through = not proxy_bypass(parts.hostname or "")
        self._proxy = getproxies().get(parts.scheme) if through else None
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections),
            timeout=aiohttp.ClientTimeout(total=endpoint.seconds, sock_connect=_CONNECT),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def send(self, request: Request) -> tuple[dict[str, Any], Mapping[str, str]]:
        """The endpoint's whole JSON and its headers.

        Raises Failed for what may succeed later, RequestRefused for what would be refused again.
        """
        content, headers = await self._called("POST", request.path, json=request.body)
        found: Any = None
        try:
            found = decoded(content, self._key)
            read(found)
        except UNREADABLE:
            said = self._clean(content.decode(errors="replace"))
            raise Failed(
                f"no answer to the request: {said[:200]}", billed=True, status=200,
                headers=headers, came=said[:SHOWN], whole=found is not None,
            ) from None  # fmt: skip
        return found, headers

    async def _called(self, method: str, path: str, **sent: Any) -> tuple[bytes, Mapping[str, str]]:
        """What an endpoint answers, and its headers; see `send` for what is raised."""
        async with self._answered(method, path, **sent) as response:
            return await _read(response), response.headers

    @asynccontextmanager
    async def _answered(
        self, method: str, path: str, **sent: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer whose content is still to be read, where its status is 200."""
        url = f"{self.endpoint.url.rstrip('/')}/{path}"
        try:
            # A redirect would carry the key to another host.
            async with self._http.request(
                method, url, allow_redirects=False, proxy=self._proxy, **sent
            ) as response:
                if response.status != 200:
                    self._failed(response.status, response.headers, await _read(response))
                yield response
        except _NEVER_SENT as error:
            raise Failed(f"no connection: {self.told(str(error))}") from None
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            # It left; whether it was answered, and counted, nobody knows.
            what = f"{type(error).__name__}: {self.told(str(error))}"
            raise Failed(what, billed=True) from None

    def _failed(self, status: int, headers: Mapping[str, str], content: bytes) -> NoReturn:
        said = self.told(reason(content))
        again, billed, status = verdict(status, content)
        if again:
            raise Failed(f"HTTP {status}: {said}", status=status, headers=headers, billed=billed)
        raise refusal(self.endpoint, status, said)

    def told(self, text: str) -> str:
        """A text of the endpoint's without the key, cut."""
        return self._clean(text)[:200]

    def _clean(self, text: str) -> str:
        return without_key(text, self._key)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for part in response.content.iter_any():
        content += part
        if len(content) > LARGEST:
            raise Failed("an answer without end", billed=True)
    return bytes(content)
