"""An endpoint that counts what comes in each window, and a command that is killed and goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.teachers.conftest import Running
from tests.teachers.test_collect import ask

from epigone.teachers import limits
from epigone.teachers.means import Means

LIMITS = {"requests": 30, "tokens": 30_000}


@pytest.mark.slow
def test_no_window_passes_a_limit_over_a_restart(
    fake: Callable[..., Running], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A minute of six seconds, on both sides.
    monkeypatch.setattr(limits, "WINDOW", 6.0)
    server = fake(per_minute=LIMITS, minute=6.0)
    prompts = tmp_path / "prompts.jsonl"
    texts = [f"Tell me of {i}." + " More." * (300 * (i % 3 == 0)) for i in range(90)]
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    means = Means(requests_per_minute=LIMITS["requests"], tokens_per_minute=LIMITS["tokens"])
    began = time.monotonic()
    child = os.fork()
    if not child:
        ask(server, prompts, tmp_path, means=means)
        os._exit(0)
    # At a burst's end, when all that a window has room for is gone.
    time.sleep(5)
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert len(server.told()["billed"]) > 5
    facts = ask(server, prompts, tmp_path, means=means)
    assert facts["written"] == 90
    told = server.told()
    assert told["mistakes"] == []
    assert all(told["largest"][name] <= limit for name, limit in LIMITS.items())
    # No slower than the limits make it, each window with what a request may be late by.
    assert time.monotonic() - began < 45
