"""An endpoint that counts what comes in each window, and a command that is killed and goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.teachers.conftest import Running
from tests.teachers.test_collect import ask, prompt_file

from epigone.teachers import limits
from epigone.teachers.answers import Settings
from epigone.teachers.means import Means

LIMITS = {"requests": 3, "tokens": 10_000}


@pytest.mark.slow
def test_no_window_passes_a_limit_over_a_restart(
    fake: Callable[..., Running], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A minute of two seconds, on both sides.
    monkeypatch.setattr(limits, "WINDOW", 2.0)
    server = fake(per_minute=LIMITS, minute=2.0)
    prompts = prompt_file(tmp_path, 6)
    means = Means(requests_per_minute=LIMITS["requests"], tokens_per_minute=LIMITS["tokens"])

    def asked(longest: int) -> int:
        found = ask(server, prompts, tmp_path, settings=Settings(max_tokens=longest), means=means)
        return int(found["written"])

    began, billed = time.monotonic(), 0
    # Three short answers and two long ones are all that a window has room for.
    for longest, room in ((64, 3), (4000, 2)):
        child = os.fork()
        if not child:
            asked(longest)
            os._exit(0)
        billed += room
        while len(server.told()["billed"]) < billed:
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert [asked(64), asked(4000)] == [6, 6]
    told = server.told()
    assert told["mistakes"] == []
    assert all(told["largest"][name] <= limit for name, limit in LIMITS.items())
    assert told["largest"]["requests"] == 3
    # No slower than the limits make it, each window with what a request may be late by.
    assert time.monotonic() - began < 28
