"""The rating site on a port of this machine, until it is stopped."""

from __future__ import annotations

import socket
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
        raise UserError(f"cannot listen: {(error.strerror or str(error)).lower()}",
                        value=f"{host}:{port}", fix="another --port") from None  # fmt: skip
    return made


def serve(app: FastAPI, sockets: Sequence[socket.socket], ready: Callable[[], None]) -> None:
    """Serve until ^C or SIGTERM.

    Addresses are not logged: invitations are among them. Behind a proxy on this machine, the
    client's address and scheme are the proxy's to tell (FORWARDED_ALLOW_IPS names another one).
    """
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, proxy_headers=True,
        timeout_graceful_shutdown=5,
    )  # fmt: skip
    ready()
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=list(sockets))
