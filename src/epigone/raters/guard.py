"""What stands before every page: sizes, rates, and headers that tell browsers what to refuse."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from threading import Lock
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 32_768
# Seconds that a request's body may take, and requests of one address at once: a slow sender holds
# a connection, of which there are few.
PATIENCE = 10.0
AT_ONCE = 256
_KEYS = 20_000
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-Robots-Tag": "noindex, nofollow",
}


def policy(*, framed_by: Iterable[str] = (), posts_to: str = "") -> str:
    """The content security policy: everything of ours, nothing inline, nothing of others.

    `framed_by` are the hosts that may show the page in a frame, `posts_to` a URL that its form may
    be sent to.
    """
    target = urlsplit(posts_to)
    forms = f" {target.scheme}://{target.netloc}" if posts_to else ""
    frames = " ".join(framed_by) or "'none'"
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; require-trusted-types-for 'script'; "
        f"form-action 'self'{forms}; frame-ancestors {frames}"
    )


def address(scope: Scope) -> str:
    """Whose request it is: an address of IPv4, or the half of IPv6 that one customer is given."""
    client = scope.get("client")
    try:
        found = ipaddress.ip_address(client[0] if client else "")
    except ValueError:
        return client[0] if client else ""
    if isinstance(found, ipaddress.IPv4Address) or found.ipv4_mapped:
        return str(getattr(found, "ipv4_mapped", None) or found)
    return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))


class Bucket:
    """So many at once, and `rate` more a second, for each key; the oldest keys are forgotten."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = Lock()

    def take(self, key: str) -> bool:
        """Whether one more is allowed now; then it is counted."""
        with self._lock:
            left, now = self._has(key)
            allowed = left >= 1.0
            self._left.pop(key, None)
            self._left[key] = (left - 1.0 if allowed else left, now)
            while len(self._left) > _KEYS:
                self._left.popitem(last=False)
        return allowed

    def allows(self, key: str) -> bool:
        """Whether one more would be allowed now; nothing is counted."""
        with self._lock:
            return self._has(key)[0] >= 1.0

    def _has(self, key: str) -> tuple[float, float]:
        now = self._clock()
        left, at = self._left.get(key, (self._burst, now))
        return min(self._burst, left + self._rate * max(0.0, now - at)), now


class _TooLarge(HTTPException):
    """One of the framework's own, which it lets pass while it reads a body."""

    def __init__(self) -> None:
        super().__init__(413, "Too large.")


class _TooSlow(HTTPException):
    """A body that does not come."""

    def __init__(self) -> None:
        super().__init__(408, "That took too long. Please try again.")


class Guard:
    """The outermost layer of the app."""

    def __init__(self, app: ASGIApp, *, bucket: Bucket, https: bool) -> None:
        self._app, self._bucket, self._https = app, bucket, https
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                dress(MutableHeaders(scope=message), scope["path"], https=self._https)
            await send(message)

        who = address(scope)
        if self._open[who] >= AT_ONCE or not self._bucket.take(who):
            busy = PlainTextResponse("Too many requests.", 429, {"Retry-After": "5"})
            await busy(scope, receive, dressed)
            return
        if _announced(scope) > MAX_BODY:
            await PlainTextResponse("Too large.", 413)(scope, receive, dressed)
            return
        self._open[who] += 1
        try:
            await self._app(scope, _limited(receive), dressed)
        finally:
            self._open[who] -= 1
            if not self._open[who]:
                del self._open[who]


def _limited(receive: Receive) -> Receive:
    taken, ended, until = 0, False, asyncio.get_running_loop().time() + PATIENCE

    async def limited() -> Message:
        nonlocal taken, ended
        if ended:
            # What comes after the body is the browser's leaving, which may take its time.
            return await receive()
        try:
            async with asyncio.timeout_at(until):
                message = await receive()
        except TimeoutError:
            raise _TooSlow from None
        taken += len(message.get("body", b""))
        ended = not message.get("more_body", False)
        if taken > MAX_BODY:
            raise _TooLarge
        return message

    return limited


def dress(headers: MutableHeaders, path: str, *, https: bool) -> None:
    """Put the headers on an answer that all of them have, where it has none of its own."""
    headers.setdefault("Content-Security-Policy", policy())
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)
    if path.startswith("/static/"):
        headers["Cache-Control"] = "max-age=300"
    if https:
        headers.setdefault("Strict-Transport-Security", "max-age=31536000")


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 20 else MAX_BODY + 1
    return 0
