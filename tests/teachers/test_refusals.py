"""What an endpoint refuses, and for how long it is asked all the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.teachers.conftest import Running
from tests.teachers.test_collect import PRICE, ask, prompt_file

from epigone.errors import EndpointError
from epigone.models.received import Answer
from epigone.schema import Message
from epigone.teachers import ask as ask_module
from epigone.teachers.ask import Asker, Refused, asking
from epigone.teachers.ledger import Ledger, Row
from epigone.teachers.means import Means, endpoint_of
from epigone.teachers.scribe import Scribe
from epigone.teachers.wire import chat

Fakes = Callable[..., Running]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits before trying again."""
    monkeypatch.setattr(Asker, "_pause", lambda self, tried, failed: 0.0)


@pytest.mark.parametrize("status", ["400", "403"])
def test_a_run_with_many_refusals_can_be_repeated(fake: Fakes, tmp_path: Path, status: str) -> None:
    server = fake()
    prompts = prompt_file(tmp_path, 100)
    ask(server, prompts, tmp_path, n=50)
    server.steer(faults={status: 1.0})
    for _ in range(2):
        facts = ask(server, prompts, tmp_path)
        assert (facts["known"], facts["written"]) == (50, 50)
        assert facts["rejected"] == {"refused by the endpoint": 50}


def test_an_endpoint_that_refuses_everything_is_not_asked_for_ever(
    fake: Fakes, tmp_path: Path
) -> None:
    server = fake(faults={"400": 1.0})
    with pytest.raises(EndpointError, match="answers nothing that can be used"):
        ask(server, prompt_file(tmp_path, 400), tmp_path)
    assert sum(server.told()["seen"].values()) < 60


def test_what_is_larger_than_a_minutes_limit_is_told_as_such(fake: Fakes, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    large = "long " * 60_000
    told = [f"{large} {i}" for i in range(25)] + [f"Tell me of {i}." for i in range(5)]
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in told))
    server = fake()
    facts = ask(server, prompts, tmp_path, means=Means(tokens_per_minute=60_000))
    # No such row counts towards an endpoint that refuses everything.
    assert facts["rejected"] == {"larger than a minute's limit": 25}
    assert facts["written"] == 5
    assert sum(server.told()["seen"].values()) == 5


@pytest.mark.parametrize("why", ["stopped", "too large"])
def test_what_never_left_is_no_cost(
    fake: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Something changes while the disk takes its time over the line that a request leaves."""
    now, whole = [0.0], Scribe.write

    async def write(self: Scribe, *rows: Row) -> None:
        await whole(self, *rows)
        if rows[0].kind == "sent":
            now[0] += 2
            if why == "stopped":
                asker._halted(EndpointError("stopped"))
            else:
                asker._limits.learn({"x-ratelimit-limit-tokens": "1"})

    async def go() -> Refused | Answer:
        nonlocal asker
        async with asking(endpoint, ledger, price=PRICE) as asker:
            return await asker.ask(chat(endpoint, [Message("user", "hi")], max_tokens=8))

    server = fake()
    endpoint, ledger = endpoint_of(server.ref), Ledger(tmp_path / "ledger.jsonl")
    asker: Any = None
    monkeypatch.setattr(ask_module, "clock", lambda: now[0])
    monkeypatch.setattr(Scribe, "write", write)
    if why == "stopped":
        with pytest.raises(EndpointError, match="stopped"):
            asyncio.run(go())
    else:
        found = asyncio.run(go())
        assert isinstance(found, Refused)
        assert found.reason == "larger than a minute's limit"
    assert server.told()["seen"] == {}
    assert ledger.open == 0
    kinds = [json.loads(line)["row"]["kind"] for line in ledger.path.open()][1:]
    assert kinds == ["sent", "void"]
