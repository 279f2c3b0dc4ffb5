"""A fake endpoint in a process of its own, so that it outlives what asks it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

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
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.teachers.fake", json.dumps(settings)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout
    try:
        yield Running(process.stdout.readline().strip())
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def fake() -> Iterator[Callable[..., Running]]:
    """Starts fake endpoints."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(running(**settings))
