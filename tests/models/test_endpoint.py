from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigone.errors import EndpointError, RequestRefused
from epigone.models import endpoint as module
from epigone.models.endpoint import KEY, Client, Endpoint, retry_after
from epigone.schema import Message

ASK = (Message("system", "Be brief."), Message("user", "hi"))


@pytest.fixture
def waited(server: Any, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", seconds.append)
    return seconds


def client(server: Any, **named: object) -> Client:
    return Client(Endpoint(server.url, "m", seconds=5), **named)  # type: ignore[arg-type]


def test_what_is_sent_and_what_comes(server: Any) -> None:
    reply = client(server).ask(ASK, max_tokens=8, temperature=0)
    assert (reply.text, reply.stop, reply.prompt_tokens, reply.tokens) == ("hello", "stop", 3, 2)
    assert reply.first is None
    assert server.requests == [
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "hi"},
            ],
            "max_tokens": 8,
            "temperature": 0,
        }
    ]


PASSING = [
    (429, {}, "slow down"),
    (500, {}, "oops"),
    (503, {}, "<html>busy</html>"),
    "cut",
    b"{",
    b"[]",
    b'{"choices": []}',
    b'{"choices": [{"message": {"content": 5}}]}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("failure", PASSING, ids=range(len(PASSING)))
def test_what_may_pass_is_tried_again(server: Any, failure: object) -> None:
    server.failures = [failure, failure]
    assert client(server).ask(ASK).text == "hello"
    assert len(server.requests) == 3


def test_what_stays_is_told_in_one_line_after_six_attempts(
    server: Any, waited: list[float]
) -> None:
    server.failures = [(500, {}, '{"error": {"message": "first\\nsecond"}}')] * 9
    with pytest.raises(EndpointError, match="did not answer, tried 6 times") as told:
        client(server).ask(ASK)
    assert len(server.requests) == 6
    assert "\n" not in str(told.value)
    assert len(waited) == 5
    # It doubles, with up to two seconds that keep many from asking again at once.
    assert all(2**i <= seconds <= 2**i + 2 for i, seconds in enumerate(waited))


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 422])
def test_a_refusal_is_not_tried_again(server: Any, status: int) -> None:
    server.failures = [(status, {"Location": "http://127.0.0.1:1/"}, '{"error": "no such model"}')]
    with pytest.raises(EndpointError, match=f"HTTP {status}: no such model"):
        client(server).ask(ASK)
    assert len(server.requests) == 1


@pytest.mark.parametrize("date", [False, True])
def test_the_endpoint_says_how_long_to_wait(server: Any, waited: list[float], date: bool) -> None:
    told = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True) if date else "40"
    server.failures = [(429, {"Retry-After": told}, ""), (429, {"Retry-After": "1e9"}, ""),
                       (429, {"Retry-After": "soon"}, "")]  # fmt: skip
    client(server).ask(ASK)
    assert 30 < waited[0] <= 40
    assert waited[1] == 60
    assert waited[2] < 30


def test_the_key_is_sent_and_never_told(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "sk-secret-1")
    server.key = "sk-secret-1"
    assert client(server).ask(ASK).text == "hello"
    server.key = "another"
    with pytest.raises(EndpointError, match="valid key") as told:
        client(server).ask(ASK)
    assert "sk-secret-1" not in str(told.value)
    assert "***" in str(told.value)
    server.failures = [(500, {}, "you sent sk-secret-1")] * 6
    with pytest.raises(EndpointError) as told:
        client(server).ask(ASK)
    assert "sk-secret-1" not in str(told.value)
    # Where a body is cut, no part of the key is left either.
    for status in (200, 400, 500):
        server.failures = [(status, {}, "x" * 194 + "sk-secret-1")] * 6
        with pytest.raises(EndpointError) as told:
            client(server).ask(ASK)
        assert "sk-s" not in str(told.value)
    monkeypatch.setenv(KEY, "sk\nsecret")
    with pytest.raises(EndpointError, match="characters that no key has"):
        client(server)


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    asked = Client(Endpoint(f"http://127.0.0.1:{port}/v1", "m", seconds=5), attempts=2)
    with pytest.raises(EndpointError, match="ConnectError"):
        asked.ask(ASK)


def test_an_answer_without_end_is_cut(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 1000)
    server.answer = lambda body: "x" * 10_000
    with pytest.raises(EndpointError, match="an answer without end"):
        client(server, attempts=1).ask(ASK)


def test_log_probabilities_of_the_first_token(server: Any) -> None:
    server.logprobs = True
    server.answer = lambda body: ("A", [("A", -0.1), (" A", -2.5), ("B", -3.0), ("A", -9.0)])
    reply = client(server).ask(ASK, logprobs=True, top_logprobs=4)
    assert reply.first == {"A": -0.1, " A": -2.5, "B": -3.0}


def test_a_date_with_an_absurd_zone_asks_for_nothing() -> None:
    assert retry_after({"retry-after": "Mon, 01 Jan 0001 00:00:00 +2359"}) == 0
    assert retry_after({"retry-after": "Fri, 31 Dec 9999 23:59:59 +99999999999999999"}) == 0


dates = st.from_regex(
    r"(Mon, )?[0-9]{1,2} (Jan|Feb|Dec) [0-9]{1,5} [0-9]{1,2}:[0-9]{2}:[0-9]{2} [+-]?[0-9A-Z]{0,20}",
    fullmatch=True,
)


@given(st.sampled_from(["retry-after", "retry-after-ms"]), st.text() | dates)
def test_whatever_it_asks_for_is_a_number_of_seconds(name: str, told: str) -> None:
    assert retry_after({name: told}) >= 0


@pytest.mark.parametrize("status", [501, 505])
def test_what_a_server_cannot_do_is_not_tried_again(server: Any, status: int) -> None:
    server.failures = [(status, {}, "{}")]
    with pytest.raises(RequestRefused, match=f"HTTP {status}"):
        client(server).ask(ASK)
    assert len(server.requests) == 1


def test_a_spent_quota_is_no_limit_of_a_minute(server: Any) -> None:
    server.failures = [(429, {}, '{"error": {"message": "x", "code": "insufficient_quota"}}')]
    with pytest.raises(RequestRefused, match="HTTP 402"):
        client(server).ask(ASK)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [507, 520, 524, 528])
def test_errors_of_gateways_are_tried_again(server: Any, waited: list[float], status: int) -> None:
    server.failures = [(status, {}, "")]
    assert client(server).ask(ASK).text == "hello"


def test_an_error_behind_the_endpoint_is_no_answer(server: Any, waited: list[float]) -> None:
    server.failures = [b'{"choices": [{"finish_reason": "error", "message": {"content": "h"}}]}']
    assert client(server).ask(ASK).text == "hello"
