"""Prolific's API on the wire: the token, what may be tried again, and what must not be."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx

from epigone.errors import EndpointError, RequestRefused, UserError
from epigone.models.endpoint import retry_after
from epigone.models.received import LARGEST, UNREADABLE, decoded, without_key

Found = TypeVar("Found")
API = "https://api.prolific.com/api/v1/"
TOKEN = "PROLIFIC_API_TOKEN"
_LONGEST_WAIT = 60.0
_LASTING = (501, 505)
_FIXES = {401: f"put a valid token into ${TOKEN}", 404: "check the id, and whose token it is"}


class Unclear(EndpointError):
    """A request that moves money may or may not have been carried out."""


class Wire:
    """A connection to Prolific's API with the token of the environment.

    What can be repeated without harm is tried again at growing intervals, or when Prolific says.
    Methods raise RequestRefused, with the HTTP status, for what would be refused again, Unclear for
    what must not be repeated before somebody has looked, EndpointError for no answer.
    """

    def __init__(
        self,
        *,
        url: str = "",
        seconds: float = 30.0,
        attempts: int = 5,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._token = os.environ.get(TOKEN, "")
        if not self._token or any(not 32 < ord(c) < 127 for c in self._token):
            raise UserError(f"${TOKEN} holds no token of Prolific's API",
                            fix="create one at Prolific under API tokens")  # fmt: skip
        headers = {"Authorization": f"Token {self._token}"}
        self._http = httpx.Client(base_url=url or API, headers=headers, timeout=seconds)
        self._attempts, self._sleep = attempts, sleep

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def told(
        self,
        method: str,
        path: str,
        read: Callable[[dict[str, Any]], Found],
        body: Mapping[str, Any] | None = None,
        *,
        repeat: bool = True,
    ) -> Found:
        """What `read` makes of the JSON that answers."""
        for _ in range(self._attempts):
            content = self.sent(method, path, body, repeat=repeat)
            try:
                return read(decoded(content, self._token))
            except UNREADABLE:
                said = self._plain(content.decode(errors="replace"))
                if not repeat:
                    raise Unclear("Prolific's answer cannot be read", value=said,
                                  fix="look on its pages what became of it") from None  # fmt: skip
                self._sleep(2.0)
        raise EndpointError("Prolific's answers cannot be read", value=said)

    def sent(
        self, method: str, path: str, body: Mapping[str, Any] | None, *, repeat: bool
    ) -> bytes:
        """The content of an answer that is none of failure."""
        why, wait = "", 0.0
        for attempt in range(self._attempts):
            if attempt:
                self._sleep(min(max(wait, 2.0**attempt), _LONGEST_WAIT))
            wait, done = 0.0, False
            try:
                with self._http.stream(method, path, json=body) as response:
                    content = _read(response)
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
                why = f"{type(error).__name__}: {error}"
            except httpx.HTTPError as error:
                why, done = f"{type(error).__name__}: {error}", True
            else:
                status = response.status_code
                if status < 300:
                    return content
                why = f"HTTP {status}: {content.decode(errors='replace')}"
                if status != 429 and (status < 500 or status in _LASTING):
                    raise RequestRefused(f"Prolific refuses: HTTP {status}", status=status,
                                         value=self._plain(why.partition(": ")[2]),
                                         fix=_FIXES.get(status, ""))  # fmt: skip
                wait, done = retry_after(response.headers), status != 429
            if done and not repeat:
                raise Unclear("Prolific may have done it, or not", value=self._plain(why),
                              fix="look on its pages before you try again")  # fmt: skip
        raise EndpointError(f"Prolific did not answer, tried {self._attempts} times",
                            value=self._plain(why), fix="try again later")  # fmt: skip

    def _plain(self, text: str) -> str:
        return without_key(text, self._token)[:300]


def _read(response: httpx.Response) -> bytes:
    content = bytearray()
    for part in response.iter_bytes():
        content += part
        if len(content) > LARGEST:
            raise httpx.DecodingError("an answer without end")
    return bytes(content)
