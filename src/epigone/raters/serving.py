"""The rating site on a port of this machine, until it is stopped."""

from __future__ import annotations

import logging
import socket
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress

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
    except OSError as error:
        shown = f"[{host}]" if ":" in host else host
        raise UserError(f"cannot listen: {(error.strerror or str(error)).lower()}",
                        value=f"{shown}:{port}", fix="another --port") from None  # fmt: skip
    return made


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
