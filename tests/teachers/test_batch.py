"""Batches: the same requests for half the price, and nothing lost, bought or submitted twice."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.teachers import fake as contract
from tests.teachers.batching import BATCH, by_batch, ledger_rows, paid, same
from tests.teachers.conftest import Running
from tests.teachers.test_collect import ask, prompt_file

from epigone.errors import EndpointError
from epigone.teachers import ask as ask_module
from epigone.teachers import batch as batch_module
from epigone.teachers import batches as batches_module
from epigone.teachers.answers import Settings
from epigone.teachers.ask import Asker
from epigone.teachers.batch_wire import BatchWire, Job
from epigone.teachers.money import BudgetReached

Fakes = Callable[..., Running]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long."""
    monkeypatch.setattr(Asker, "_pause", lambda self, tried, failed: 0.0)
    monkeypatch.setattr(batch_module, "QUIET", 0.02)
    monkeypatch.setattr(batches_module, "POLL", (0.01, 0.02))


def test_the_same_answers_for_half_the_price(fake: Fakes, tmp_path: Path) -> None:
    prompts = prompt_file(tmp_path, 60)
    live = ask(fake(), prompts, tmp_path / "live")
    server = fake(batch={"looks": 3})
    notes: list[str] = []
    facts = by_batch(server, prompts, tmp_path, progress=lambda d, t, n="": notes.append(n))
    same(tmp_path, tmp_path / "live")
    paid(server, facts)
    assert Decimal(facts["cost"]) * 2 == Decimal(live["cost"])
    assert facts["price"] == "as given (batch)"
    assert facts["odd_rows"] == 0
    assert [b["rows"] for b in server.batches()["batches"]] == [60]
    assert any("batch_0000: in_progress 0/60" in note for note in notes)
    kinds = [row["kind"] for row in ledger_rows(tmp_path)]
    assert kinds.count("came") == kinds.count("sent") == 60
    assert [row["state"] for row in ledger_rows(tmp_path) if row["kind"] == "batch"] == [
        "uploaded", "made", "done",
    ]  # fmt: skip


def test_what_was_answered_one_way_is_not_asked_the_other(fake: Fakes, tmp_path: Path) -> None:
    server = fake()
    prompts = prompt_file(tmp_path, 40)
    ask(server, prompts, tmp_path, n=10)
    assert by_batch(server, prompts, tmp_path, n=25)["known"] == 10
    assert ask(server, prompts, tmp_path)["known"] == 25
    assert by_batch(server, prompts, tmp_path)["known"] == 40
    assert set(server.told()["billed"].values()) == {1}
    assert [b["rows"] for b in server.batches()["batches"]] == [15]


def test_rows_that_fail_go_into_another_batch(fake: Fakes, tmp_path: Path) -> None:
    prompts = prompt_file(tmp_path, 200)
    ask(fake(), prompts, tmp_path / "quiet")
    server = fake(faults={"429": 0.1, "500": 0.1, "503": 0.1})
    facts = by_batch(server, prompts, tmp_path)
    same(tmp_path, tmp_path / "quiet")
    paid(server, facts)
    assert facts["retries"] == sum(server.told()["failed"].values()) > 30
    again = sum(n - 1 for n in server.batches()["submitted"].values())
    assert again == facts["retries"]


def test_rows_that_answer_nothing_are_counted(fake: Fakes, tmp_path: Path) -> None:
    prompts = prompt_file(tmp_path, 100)
    ask(fake(), prompts, tmp_path / "quiet")
    server = fake(batch={"rows": {"doubled": 0.2, "unknown": 0.2}})
    facts = by_batch(server, prompts, tmp_path)
    same(tmp_path, tmp_path / "quiet")
    paid(server, facts)
    assert facts["odd_rows"] == sum(server.told()["failed"].values()) > 20


@pytest.mark.parametrize("fault", ["missing", "malformed", "bare"])
def test_rows_that_were_paid_for_and_lost_are_told(fake: Fakes, tmp_path: Path, fault: str) -> None:
    prompts = prompt_file(tmp_path, 60)
    ask(fake(), prompts, tmp_path / "quiet")
    server = fake(batch={"rows": {fault: 0.3}})
    facts = by_batch(server, prompts, tmp_path)
    same(tmp_path, tmp_path / "quiet")
    cost, more = float(facts["cost"]), float(facts["may_cost_more"])
    assert 0 < cost < server.told()["cost"] <= cost + more
    submitted = server.batches()["submitted"].values()
    assert sum(submitted) == 60 + server.told()["failed"][fault]
    assert max(submitted) == 2


def test_what_is_no_answer_is_told_as_it_is_live(fake: Fakes, tmp_path: Path) -> None:
    server = fake(faults=dict.fromkeys(contract.STAYING, 0.1))
    prompts = prompt_file(tmp_path, 150)
    live = ask(server, prompts, tmp_path / "live")
    facts = by_batch(server, prompts, tmp_path)
    same(tmp_path, tmp_path / "live")
    assert facts["rejected"] == live["rejected"]
    assert set(server.batches()["submitted"].values()) == {1}


def test_calls_that_fail_submit_nothing_twice(
    fake: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "ROWS", 8)
    prompts = prompt_file(tmp_path, 160)
    ask(fake(), prompts, tmp_path / "quiet")
    faults = dict.fromkeys(("500", "429", "before", "after", "cut", "html"), 0.08)
    server = fake(batch={"calls": faults}, key="sk-planted-key-123")
    monkeypatch.setenv("PLANTED", "sk-planted-key-123")
    facts = by_batch(server, prompts, tmp_path, key_env="PLANTED")
    same(tmp_path, tmp_path / "quiet")
    paid(server, facts)
    told = server.batches()
    assert set(told["submitted"].values()) == {1}
    assert len(told["batches"]) == 20
    failed = {name.split()[0] for name in server.told()["failed"]}
    assert failed == {"upload", "create", "look", "content", "list"}
    assert not any(b"planted" in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


def test_an_expired_batch_keeps_what_it_finished(fake: Fakes, tmp_path: Path) -> None:
    prompts = prompt_file(tmp_path, 50)
    ask(fake(), prompts, tmp_path / "quiet")
    server = fake(batch={"ends": ["expired", "expired", "completed"], "finished": 0.4})
    facts = by_batch(server, prompts, tmp_path)
    same(tmp_path, tmp_path / "quiet")
    paid(server, facts)
    assert [b["rows"] for b in server.batches()["batches"]] == [50, 30, 18]


def test_what_no_batch_finishes_is_given_up_for_now(fake: Fakes, tmp_path: Path) -> None:
    server = fake(batch={"ends": ["expired"], "finished": 0})
    prompts = prompt_file(tmp_path, 5)
    with pytest.raises(EndpointError, match=r"5 answers could not be had.*batch_expired"):
        by_batch(server, prompts, tmp_path)
    assert len(server.batches()["batches"]) == 4
    server.steer(batch={})
    paid(server, by_batch(server, prompts, tmp_path))


def test_a_batch_that_is_cancelled_elsewhere_is_not_made_again_at_once(
    fake: Fakes, tmp_path: Path
) -> None:
    server = fake(batch={"ends": ["cancelled", "completed"], "finished": 0.5})
    prompts = prompt_file(tmp_path, 20)
    with pytest.raises(EndpointError, match=r"the batch was cancelled at .*batch_0000"):
        by_batch(server, prompts, tmp_path)
    facts = by_batch(server, prompts, tmp_path)
    assert facts["known"] == 10
    assert [b["rows"] for b in server.batches()["batches"]] == [20, 10]
    assert server.told()["mistakes"] == []


def test_a_batch_that_is_refused_is_one_line_and_costs_nothing(fake: Fakes, tmp_path: Path) -> None:
    server = fake(batch={"ends": ["failed", "completed"]})
    prompts = prompt_file(tmp_path, 20)
    with pytest.raises(EndpointError, match=r"refuses the batch .*invalid_json_line") as raised:
        by_batch(server, prompts, tmp_path)
    assert str(raised.value).isprintable()
    facts = by_batch(server, prompts, tmp_path)
    paid(server, facts)
    assert sum(row["kind"] == "void" for row in ledger_rows(tmp_path)) == 20


@pytest.mark.parametrize(("crowd", "sizes"), [([20, 99], [80, 40, 20]), ([99, 1], [30, 30])])
def test_what_is_too_much_at_once_goes_in_smaller_parts(
    fake: Fakes, tmp_path: Path, crowd: list[int], sizes: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if crowd[1] == 1:
        monkeypatch.setattr(batch_module, "ROWS", 30)
    prompts = prompt_file(tmp_path, 80)
    server = fake(batch={"crowded": crowd, "looks": 3})
    facts = by_batch(server, prompts, tmp_path)
    paid(server, facts)
    told = server.batches()
    assert [b["rows"] for b in told["batches"]][: len(sizes)] == sizes
    assert set(told["submitted"].values()) == {1}


def test_answers_that_are_told_of_are_waited_for(fake: Fakes, tmp_path: Path) -> None:
    server = fake(batch={"lags": 2})
    paid(server, by_batch(server, prompt_file(tmp_path, 10), tmp_path))
    assert set(server.batches()["submitted"].values()) == {1}


def test_turns_of_dialogues_go_one_batch_after_the_other(fake: Fakes, tmp_path: Path) -> None:
    turns = [{"role": r, "content": c} for c in "abc" for r in ("user", "assistant")]
    path = tmp_path / "talk.json"
    path.write_text(json.dumps([{"messages": [{**t, "content": t["content"] + str(i)}
                                              for t in turns[: 2 + 2 * (i % 3)]]}
                                for i in range(30)]))  # fmt: skip
    ask(fake(), path, tmp_path / "live")
    server = fake(faults={"500": 0.05})
    facts = by_batch(server, path, tmp_path, settings=Settings(max_tokens=64))
    same(tmp_path, tmp_path / "live")
    paid(server, facts)
    assert server.batches()["batches"][0]["rows"] == 30


def test_files_stay_within_their_size(
    fake: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "BYTES", 2_000)
    server = fake()
    prompts = prompt_file(tmp_path, 20)
    with prompts.open("a") as file:
        file.write(json.dumps({"prompt": "long " * 500}) + "\n")
    facts = by_batch(server, prompts, tmp_path)
    assert facts["written"] == 20
    assert facts["rejected"] == {"larger than a batch's file": 1}
    assert len(server.batches()["batches"]) >= 3
    assert server.told()["mistakes"] == []


def test_files_that_are_gone_are_asked_for_anew_and_told(
    fake: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = fake(batch={"lags": 1})
    prompts = prompt_file(tmp_path, 10)
    whole = BatchWire.look

    async def look(self: BatchWire, name: str) -> Job:
        job = await whole(self, name)
        if job.answers and name == "batch_0000":
            httpx.post(server.url.replace("/v1", "/forget-files"), content="file-out")
        return job

    monkeypatch.setattr(BatchWire, "look", look)
    facts = by_batch(server, prompts, tmp_path)
    assert Decimal(facts["may_cost_more"]) > 0
    assert set(server.batches()["submitted"].values()) == {2}


def test_a_budget_is_never_passed(fake: Fakes, tmp_path: Path) -> None:
    server = fake(faults={"429": 0.1, "500": 0.1})
    prompts = prompt_file(tmp_path, 300)
    ask(fake(), prompts, tmp_path / "quiet")
    budget = Decimal("0.01")
    for _ in range(2):
        with pytest.raises(BudgetReached, match=r"\d+ answers to 300 prompts and samples"):
            by_batch(server, prompts, tmp_path, means=replace(BATCH, budget=budget))
        assert float(budget) - 0.0008 < server.told()["cost"] <= float(budget)
    told = {r["kind"] for r in ledger_rows(tmp_path)}
    assert told == {"sent", "came", "void", "batch"}
    by_batch(server, prompts, tmp_path, means=replace(BATCH, budget=Decimal(5)))
    assert set(server.told()["billed"].values()) == {1}
    same(tmp_path, tmp_path / "quiet")


def test_too_many_requests_for_ever_end_in_one_line(
    fake: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, waits, notes = [0.0], [], []

    async def sleep(self: Asker, seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds
        await asyncio.sleep(0)

    monkeypatch.setattr(Asker, "_sleep", sleep)
    monkeypatch.setattr(ask_module, "clock", lambda: now[0])
    server = fake(batch={"calls": {"429": 1.0}})
    with pytest.raises(EndpointError, match=r"has said for 1\d minutes that there are too many"):
        by_batch(server, prompt_file(tmp_path, 9), tmp_path,
                 progress=lambda d, t, n="": notes.append(n))  # fmt: skip
    assert 12 < server.batches()["calls"]["upload"] < 60
    assert max(waits) <= 60
    assert any("too many requests 9 times in a row" in note for note in notes)


class Full:
    """A file on a disk that is full, from its making on or for what is written."""

    def __init__(self, when: str) -> None:
        self.when = when

    def __call__(self, **named: Any) -> Any:
        if self.when == "made":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return open("/dev/full", "w+b", buffering=0 if self.when == "written" else 1 << 20)


@pytest.mark.parametrize("when", ["made", "written", "flushed", "collected"])
def test_a_full_disk_is_one_line(
    fake: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    server, download = fake(), BatchWire.download
    prompts = prompt_file(tmp_path, 9)

    async def full(self: BatchWire, name: str, file: Any) -> None:
        await download(self, name, Full("written")())

    with monkeypatch.context() as patched:
        if when == "collected":
            patched.setattr(BatchWire, "download", full)
        else:
            patched.setattr("tempfile.TemporaryFile", Full(when))
        folder = re.escape(str(tmp_path / "ledger"))
        with pytest.raises(EndpointError, match=f"cannot be written.*: {folder} .No space"):
            by_batch(server, prompts, tmp_path)
    facts = by_batch(server, prompts, tmp_path)
    paid(server, facts)
    assert len(server.batches()["batches"]) == 1
