"""The rating site on a port of this machine, until it is stopped."""

from __future__ import annotations

import logging
import socket
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI

from epigone.errors import UserError
from epigone.raters.site import Settings
from epigone.raters.store import Store
from epigone.raters.workforces import Door
from epigone.raters.workforces.private import Private
from epigone.raters.workforces.public import Public

# Below the 1,024 files that a process commonly may have open, of which the database needs some.
_CONNECTIONS = 800


class Mute(logging.Filter):
    """Lets an error into the log by its kind and place: its message may hold what people wrote."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Take the message and the values away; the record stays."""
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            frames = traceback.extract_tb(error.__traceback__)
            at = " < ".join(f"{f.filename}:{f.lineno}" for f in reversed(frames[-4:]))
            record.msg, record.args = f"{record.msg}: {type(error).__name__} at {at}", ()
            record.exc_info = record.exc_text = None
        return True


def doors(store: Store, settings: Settings, *, public: bool) -> list[Door]:
    """The ways in that need nobody's platform: invitations, and the open link if it is wanted."""
    found: list[Door] = [Private(store, settings.secret, settings.clock)]
    return [*found, Public()] if public else found


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any. Raises UserError where it cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        # From here on nobody is turned away: who comes early waits.
        made.listen(512)
    except (OSError, UnicodeError) as error:
        # A name that is none may not even be one to ask about.
        unknown = isinstance(error, socket.gaierror | UnicodeError)
        reason = (getattr(error, "strerror", None) or "no name of a host").lower()
        shown = f"[{host}]" if ":" in host else host
        fix = "another --host" if unknown else "another --port"
        raise UserError(f"cannot listen: {reason}", value=f"{shown}:{port}", fix=fix) from None
    return made


def url(sock: socket.socket, host: str) -> str:
    """The address of a socket of a host; raises UserError where all of a machine's are meant."""
    address, port = sock.getsockname()[:2]
    if ip_address(address.partition("%")[0]).is_unspecified:
        sock.close()
        raise UserError("links need the address by which people reach this machine", value=host,
                        fix="--url https://rate.example.org")  # fmt: skip
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_bare(url: str) -> bool:
    """Whether a site's address is without TLS and of another machine: cookies can be read."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        near = ip_address(host).is_loopback
    except ValueError:
        near = host == "localhost" or host.endswith(".localhost")
    return parts.scheme == "http" and not near


def serve(app: FastAPI, sockets: Sequence[socket.socket], ready: Callable[[], None]) -> None:
    """Serve until ^C or SIGTERM.

    Addresses are not logged: invitations are among them. Behind a proxy on this machine, the
    client's address and scheme are the proxy's to tell (FORWARDED_ALLOW_IPS names another one).
    """
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, proxy_headers=True,
        timeout_graceful_shutdown=5, limit_concurrency=_CONNECTIONS,
    )  # fmt: skip
    logging.getLogger("uvicorn.error").addFilter(Mute())
    ready()
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=list(sockets))
