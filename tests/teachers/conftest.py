"""A fake endpoint in a process of its own, so that it outlives what asks it."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest

from .fake import Fake, serve

ROOT = Path(__file__).parents[2]


class Running:
    """A fake endpoint that runs; `url` ends in /v1."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.ref = f"{url}#teacher"

    def told(self) -> dict[str, Any]:
        """What happened at it."""
        found: dict[str, Any] = httpx.get(self.url.replace("/v1", "/told")).json()
        return found

    def batches(self) -> dict[str, Any]:
        """What happened to batches at it."""
        found: dict[str, Any] = httpx.get(self.url.replace("/v1", "/told-batches")).json()
        return found

    def steer(self, **settings: Any) -> None:
        """Change how it behaves."""
        httpx.post(self.url.replace("/v1", "/steer"), json=settings).raise_for_status()


@contextmanager
def running(**settings: Any) -> Iterator[Running]:
    """Start one, and end it."""
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        _answer(tell, json.loads(json.dumps(settings)))
    os.close(tell)
    try:
        with open(told) as lines:
            yield Running(lines.readline().strip())
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _answer(tell: int, settings: dict[str, Any]) -> NoReturn:
    try:
        os.dup2(tell, 1)
        # A socket that the tests close must not stay open here; and nothing that came with the fork
        # may be collected, and so close a descriptor whose number is another one's by then.
        gc.freeze()
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        asyncio.run(serve(Fake(**settings)))
    finally:
        os._exit(1)


@pytest.fixture
def fake() -> Iterator[Callable[..., Running]]:
    """Starts fake endpoints."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(running(**settings))
