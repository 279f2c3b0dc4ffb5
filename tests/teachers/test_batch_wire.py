"""What a Batch API may send: hostile, odd, or with what it was sent in it."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import pytest

from epigone.errors import RequestRefused
from epigone.models.endpoint import Endpoint
from epigone.models.received import Answer
from epigone.schema import Message
from epigone.teachers import batch_wire
from epigone.teachers.batch_wire import BatchWire, Result, line_of
from epigone.teachers.wire import Failed, chat

KEY = "sk-planted-key/123"
BODY: dict[str, Any] = {
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "hello"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
}
JOB: dict[str, Any] = {
    "id": "batch_1", "status": "completed", "output_file_id": "file-1", "error_file_id": None,
    "request_counts": {"total": 2, "completed": 2, "failed": 0}, "metadata": {"epigone": "me"},
    "errors": None, "created_at": 5, "input_file_id": "file-0",
}  # fmt: skip


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a key."""
    monkeypatch.setenv("PLANTED", KEY)


def read(content: bytes) -> list[Result | None]:
    """The rows of a file."""

    async def go() -> list[Result | None]:
        wire = BatchWire(Endpoint("http://127.0.0.1:9/v1", "m", "PLANTED"), 1)
        try:
            return list(wire.results(io.BytesIO(content)))
        finally:
            await wire.close()

    return asyncio.run(go())


def row(key: Any = "k", **fields: Any) -> bytes:
    return json.dumps({"id": "r", "custom_id": key, "response": None, "error": None, **fields}
                      ).encode() + b"\n"  # fmt: skip


def answered(status: Any, body: Any) -> bytes:
    return row(response={"status_code": status, "request_id": "r", "body": body})


def test_an_answer_is_read_with_its_whole_json() -> None:
    found = read(answered(200, BODY) + b"\n" + answered(200, BODY)[:-1])
    assert len(found) == 2
    for result in found:
        assert result is not None and isinstance(result.outcome, Answer)
        assert (result.key, result.outcome.text, result.response) == ("k", "hello", BODY)


@pytest.mark.parametrize(
    "line",
    [
        b"<html>\n", b"[]\n", b"null\n", b'{"custom_id": "k", "response": {"status_c\n',
        row(key=7), row(key=None), b'{"custom_id": "k", "response": NaN}\n',
        b'{"custom_id": "k", "response":' + b"[" * 5000 + b"]" * 5000 + b"}\n",
        answered(200, {**BODY, "created": 10**30}), b"\xff\xfe\n", b"x" * 5000 + b"\n",
    ],
)  # fmt: skip
def test_what_is_no_row_spoils_no_other(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_wire, "LARGEST", 2000)
    good = answered(200, BODY)
    assert [result is not None for result in read(good + line + good)] == [True, False, True]


@pytest.mark.parametrize("body", [None, [], "hi", {}, {**BODY, "choices": []}, {"error": "no"}])
def test_json_that_is_no_answer_is_paid_for_and_not_bought_again(body: Any) -> None:
    [result] = read(answered(200, body))
    assert result is not None and isinstance(result.outcome, Failed)
    assert result.outcome.billed and result.outcome.whole


def test_failures_are_told_apart() -> None:
    error = {"error": {"message": "no"}}
    [again, refused, quota, expired, bare] = read(
        answered(503, error) + answered(400, error)
        + answered(429, {"error": {"message": "no", "code": "insufficient_quota"}})
        + row(error={"code": "batch_expired", "message": "late"}) + row(response={})
    )  # fmt: skip
    assert again and isinstance(again.outcome, Failed) and not again.outcome.billed
    assert refused and isinstance(refused.outcome, RequestRefused)
    assert quota and isinstance(quota.outcome, RequestRefused) and quota.outcome.status == 402
    assert expired and str(expired.outcome) == "batch_expired: late"
    assert bare and isinstance(bare.outcome, Failed) and bare.outcome.billed


def test_a_key_that_comes_back_is_nowhere() -> None:
    said = {"error": {"message": f"Bearer {KEY}"}}
    content = (
        answered(200, {**BODY, "model": KEY}) + answered(400, said) + answered(200, said)
        + row(error={"code": KEY, "message": KEY})
    )  # fmt: skip
    found = read(content)
    assert len(found) == 4
    assert KEY not in repr(found)
    assert all(KEY not in str(r.outcome) + str(vars(r.outcome)) for r in found[1:] if r)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "../files/x"}, {"id": "a/b"}, {"id": 5}, {"id": ""}, {"output_file_id": "a?b"},
        {"status": None, "id": None}, {"errors": [1]}, {"request_counts": 3}, {"metadata": "me"},
    ],
)  # fmt: skip
def test_what_is_no_batch_is_none(changes: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        batch_wire._job({**JOB, **changes})


def test_a_batch_of_an_endpoint_that_tells_little() -> None:
    job = batch_wire._job({"id": "b", "status": "queued", "errors": None, "request_counts": None})
    assert (job.name, job.total, job.answers, job.own, job.lags) == ("b", 0, "", "", False)
    assert batch_wire._job(JOB).own == "me"


def test_a_line_says_what_is_asked() -> None:
    request = chat(Endpoint("u", "m"), [Message("user", "schöne 文\u2028字")], max_tokens=3)
    line = line_of("k", request)
    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        "custom_id": "k", "method": "POST", "url": "/v1/chat/completions", "body": request.body,
    }  # fmt: skip
