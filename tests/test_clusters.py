"""Attaching to a cluster that is none, or that is another one."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from epigone import clusters
from epigone.errors import Stopped, UserError

# What gRPC sends first: a frame of settings, of which one is told.
GRPC = bytes.fromhex("000006040000000000000400400000")
MISMATCH = (
    "Version mismatch: The cluster was started with:\n    Ray: 2.40.0\n    Python: 3.10.1\n"
    "This process on 10.0.0.1 was started with:\n    Ray: 2.60.0\n    Python: 3.11.2\n"
)


@contextmanager
def server(answer: bytes) -> Iterator[str]:
    """The address of a server that takes one client, answers it so and hangs up."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def serve() -> None:
            client, _ = listening.accept()
            with client:
                asked.append(client.recv(100))
                client.sendall(answer)

        asked: list[bytes] = []
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        thread.join()
        assert asked[0].startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


def ray(error: BaseException | None) -> Any:
    def init(*_: object, **__: object) -> None:
        if error is not None:
            raise error

    return SimpleNamespace(init=init)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", GRPC[:8]])
def test_what_is_no_cluster_is_told_before_ray_tries_it(answer: bytes) -> None:
    never = ray(AssertionError("Ray was asked"))
    with (
        server(answer) as address,
        pytest.raises(UserError, match=f"{address}.*something else listens there"),
    ):
        clusters._begin(never, address)


@pytest.mark.parametrize(
    ("error", "raised", "told"),
    [
        (None, None, ""),
        (RuntimeError(MISMATCH), UserError, "has another Ray or Python: 127.*with: Ray: 2.40.0"),
        (RuntimeError("no\nway. More"), UserError, "no Ray cluster answers: 127.*; no way"),
        (SystemExit(1), UserError, "no Ray cluster answers"),
        (SystemExit(signal.SIGTERM), Stopped, "stopped by SIGTERM"),
    ],
)
def test_what_ray_says_is_one_line(
    error: BaseException | None, raised: type[BaseException] | None, told: str
) -> None:
    with server(GRPC) as address:
        if raised is None:
            clusters._begin(ray(error), address)
            return
        with pytest.raises(raised, match=told) as caught:
            clusters._begin(ray(error), address)
    assert "\n" not in str(caught.value)


def test_a_port_that_says_nothing_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "_PATIENCE", 0.05)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match="timed out"):
            clusters._begin(ray(AssertionError("Ray was asked")), address)
        monkeypatch.setenv("RAY_USE_TLS", "1")  # such a cluster does not begin in the clear
        clusters._begin(ray(None), address)
