"""What endpoints may send: hostile, odd, or with what they were sent in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from epigone.errors import EndpointError, RequestRefused
from epigone.models.endpoint import Endpoint, verdict
from epigone.models.received import Answer, read
from epigone.schema import Message
from epigone.teachers import ask as ask_module
from epigone.teachers.ask import Asker, NotHad, Refused, asking
from epigone.teachers.ledger import Ledger
from epigone.teachers.wire import Failed, Wire, chat, own_seed

KEY = "sk-planted-key/123"
GOOD: dict[str, Any] = {
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "hello"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
}


def answered(
    content: bytes, tmp_path: Path, *, status: int = 200, headers: dict[str, str] | None = None
) -> tuple[Any, Ledger]:
    """What an asker makes of an endpoint that always says the same; and the ledger."""

    async def go() -> Any:
        async def say(_: web.Request) -> web.Response:
            return web.Response(body=content, status=status, headers=headers)

        app = web.Application()
        app.router.add_post("/v1/chat/completions", say)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        endpoint = Endpoint(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", "m", "PLANTED")
        request = chat(endpoint, [Message("user", "hi")], max_tokens=8)
        try:
            async with asking(endpoint, ledger) as asker:
                return await asyncio.wait_for(asker.ask(request), 20)
        except (NotHad, EndpointError) as error:
            return error
        finally:
            await runner.cleanup()

    ledger = Ledger(tmp_path / "ledger.jsonl")
    return asyncio.run(go()), ledger


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits before trying again, and there is a key."""
    monkeypatch.setattr(Asker, "_pause", lambda self, tried, failed: 0.0)
    monkeypatch.setenv("PLANTED", KEY)


def with_(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def message(**fields: Any) -> bytes:
    return with_(choices=[{"finish_reason": "stop", "message": fields}])


WHOLE_BUT_NONE = {
    "no choices": with_(choices=[]),
    "null choices": with_(choices=None),
    "null message": with_(choices=[{"message": None}]),
    "message is text": with_(choices=[{"message": "hi"}]),
    "content in parts": message(content=[{"type": "text", "text": "hi"}]),
    "usage is a list": with_(usage=[1]),
    "usage is text": with_(usage="x"),
    "an error with 200": json.dumps({"error": {"message": "no"}}).encode(),
    "an error behind": with_(choices=[{"finish_reason": "error", "message": {"content": "h"}}]),
}
UNREADABLE = {
    "not JSON": b"<html>",
    "cut": with_()[:-9],
    "nothing": b"",
    "a list": b"[]",
    "NaN": b'{"a": NaN}',
    "endless": b'{"a": 1e999}',
    "deep": b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "a number without end": b'{"a": 1' + b"0" * 30 + b"}",
}


@pytest.mark.parametrize("name", WHOLE_BUT_NONE)
def test_json_that_is_no_answer_is_not_bought_again(name: str, tmp_path: Path) -> None:
    told = []
    # Whoever answers so will answer so again; another run does not ask for it.
    for _ in range(2):
        found, ledger = answered(WHOLE_BUT_NONE[name], tmp_path)
        assert isinstance(found, Refused)
        told.append((found.status, found.why))
        kinds = [json.loads(line)["row"]["kind"] for line in ledger.path.open()][1:]
        assert kinds == ["sent", "lost"]
        ledger.close()
    assert told[0] == told[1]


def test_a_request_too_many_is_asked_again_slowly_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, notes, waits = [1000.0], [], []

    async def sleep(self: Asker, seconds: float) -> None:
        if seconds > 0:
            notes.append(self.note)
            waits.append(seconds)
        now[0] += seconds
        await asyncio.sleep(0)

    monkeypatch.setattr(Asker, "_sleep", sleep)
    monkeypatch.setattr(ask_module, "clock", lambda: now[0])
    found, ledger = answered(b'{"error": {"message": "slow down"}}', tmp_path, status=429)
    assert isinstance(found, EndpointError)
    assert "has said for" in str(found) and "too many requests: HTTP 429: slow down" in str(found)
    assert str(found).isprintable()
    # Ten minutes of waiting at most a minute each time, with full jitter and fewer at first.
    assert 600 < now[0] - 1000 < 661
    assert 12 < len(waits) < 60
    assert max(waits) <= 60 and max(waits[:3]) <= 16
    assert any("too many requests 9 times in a row, asking slowly" in note for note in notes)
    assert ledger.open == 0


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_tried_a_few_times(name: str, tmp_path: Path) -> None:
    found, ledger = answered(UNREADABLE[name], tmp_path)
    assert isinstance(found, NotHad)
    kinds = [json.loads(line)["row"]["kind"] for line in ledger.path.open()][1:]
    assert kinds == ["sent", "lost"] * 4


@pytest.mark.parametrize(
    "content",
    [
        message(content="ok", refusal=None).replace(b'"ok"', b'"\\ud800 half"'),
        message(content="ok").replace(b'"ok"', b'"raw \xed\xa0\xbd"'),
        with_(created=1_750_000_000_000),
        with_(created=10**30)[:-1] + b"}",
        with_(usage={"prompt_tokens": -1, "completion_tokens": "many"}),
        with_(usage=None),
        with_(model=["m"]),
    ],
)
def test_odd_answers_are_answers_and_can_be_written(content: bytes, tmp_path: Path) -> None:
    found, ledger = answered(content, tmp_path)
    if isinstance(found, NotHad):
        # A number that no counter reaches.
        assert b"1" + b"0" * 30 in content
        return
    assert isinstance(found, Answer)
    assert found.created < 253_402_300_800
    found.text.encode()
    ledger.close()
    again = Ledger(ledger.path)
    assert (len(again), again.damaged) == (1, 0)


@pytest.mark.parametrize(
    "content",
    [
        message(content=f"you said {KEY}"),
        message(content=f"you said {KEY}").replace(b"/", b"\\/"),
        f"<html>Authorization: Bearer {KEY}</html>".encode(),
        with_(model=KEY, choices=[]),
    ],
)
def test_a_key_that_comes_back_is_nowhere(content: bytes, tmp_path: Path) -> None:
    found, ledger = answered(content, tmp_path)
    assert KEY not in repr(found)
    assert b"planted" not in ledger.path.read_bytes()


def test_what_is_no_key_stands_in_texts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PLANTED", "EMPTY")
    found, _ = answered(message(content="the set is EMPTY"), tmp_path)
    assert found.text == "the set is EMPTY"


@pytest.mark.parametrize(
    ("status", "told"), [(302, "302"), (401, "401"), (405, "405"), (404, "URL")]
)
def test_what_holds_for_all_is_raised(status: int, told: str, tmp_path: Path) -> None:
    found, ledger = answered(b'{"error": {"message": "x"}}', tmp_path, status=status,
                             headers={"Location": "http://127.0.0.1:9/"})  # fmt: skip
    assert isinstance(found, RequestRefused)
    assert told in str(found)
    assert ledger.open == 0


@pytest.mark.parametrize(
    ("status", "again", "billed"),
    [(400, False, False), (408, True, True), (409, True, False), (425, False, False),
     (429, True, False), (500, True, False), (501, False, False), (502, True, True),
     (504, True, True), (505, False, False), (507, True, False), (520, True, True),
     (524, True, True), (528, True, True), (529, True, False), (599, True, False)],
)  # fmt: skip
def test_what_a_status_means_is_the_same_everywhere(
    status: int, again: bool, billed: bool, tmp_path: Path
) -> None:
    assert verdict(status, b"{}") == (again, billed, status)
    found, ledger = answered(b"{}", tmp_path, status=status) if status != 429 else (None, None)
    if ledger is not None:
        assert isinstance(found, NotHad) == again
        kinds = [json.loads(line)["row"]["kind"] for line in ledger.path.open()][1:]
        assert set(kinds) == {"sent", "lost" if billed else "void"}
        assert (len(kinds) > 2) == again


def test_a_spent_quota_is_no_limit_of_a_minute(tmp_path: Path) -> None:
    content = b'{"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}'
    found, _ = answered(content, tmp_path, status=429)
    assert isinstance(found, RequestRefused)
    assert found.status == 402


def test_netrc_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    found, _ = answered(message(content="hello"), tmp_path)
    assert isinstance(found, Answer)


@contextmanager
def _free_port() -> Iterator[int]:
    import socket

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_nobody_is_billed_where_nobody_listens() -> None:
    async def go(port: int) -> Failed:
        wire = Wire(Endpoint(f"http://127.0.0.1:{port}/v1", "m"), 1)
        try:
            await wire.send(chat(wire.endpoint, [Message("user", "hi")], max_tokens=8))
        except Failed as failed:
            return failed
        finally:
            await wire.close()
        raise AssertionError

    with _free_port() as port:
        assert not asyncio.run(go(port)).billed


def test_models_that_think_are_asked_for_their_length_by_its_other_name() -> None:
    for model, name in [("gpt-5-mini", "max_completion_tokens"), ("o3", "max_completion_tokens"),
                        ("gpt-4o", "max_tokens"), ("olmo", "max_tokens")]:  # fmt: skip
        assert chat(Endpoint("u", model), [], max_tokens=3).body[name] == 3


def test_seeds_of_samples_and_further_tries_are_their_own() -> None:
    drawn = [own_seed(seed, s, t) for seed in (5, 6) for s in (0, 1, 2) for t in (0, 1)]
    assert drawn[0] == 5
    assert len(set(drawn)) == len(drawn)
    assert all(0 <= seed < 2**31 for seed in drawn)


def test_the_total_counts_thoughts() -> None:
    told = {**GOOD, "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 90}}
    assert read(told).tokens == 87
