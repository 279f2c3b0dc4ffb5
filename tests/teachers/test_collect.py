"""Asking a fake endpoint that checks, bills and fails: nothing lost, nothing paid for twice."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.teachers import fake as contract
from tests.teachers.conftest import Running

from epigone.corpus.readers import File
from epigone.corpus.rows import Row
from epigone.errors import EndpointError, UserError
from epigone.files import read_jsonl
from epigone.teachers.answers import Settings, pace
from epigone.teachers.ask import Asker, Tally
from epigone.teachers.collect import ask_teacher
from epigone.teachers.means import Means
from epigone.teachers.money import BudgetReached, Price

PRICE = Price(Decimal("2"), Decimal("8"))
Fakes = Callable[..., Running]


def prompt_file(folder: Path, n: int) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Tell me of {i}."}) + "\n" for i in range(n)))
    return path


def ask(server: Running, prompts: Path, folder: Path, **more: Any) -> dict[str, Any]:
    settings = more.pop("settings", None) or Settings(max_tokens=64)
    means = more.pop("means", None) or Means(price=PRICE)
    means = replace(means, ledgers=folder / "ledger")
    return ask_teacher(prompts, folder / "out", server.ref, settings, means=means, **more)


def rows(path: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(path))


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits before trying again."""
    monkeypatch.setattr(Asker, "_pause", lambda self, attempt, failed: 0.0)


def test_answers_in_the_order_of_the_prompts_ready_for_a_corpus(
    fake: Fakes, tmp_path: Path
) -> None:
    server = fake()
    told: list[tuple[float, float, str]] = []
    facts = ask(
        server, prompt_file(tmp_path, 50), tmp_path, system="Be short.",
        about={"teacher": "t", "terms": "openai", "licence": ""},
        progress=lambda d, t, n="": told.append((d, t, n)),
    )  # fmt: skip
    found = rows(tmp_path / "out" / "answers.jsonl")
    assert [r["messages"][1]["content"] for r in found] == [f"Tell me of {i}." for i in range(50)]
    for row in found:
        body = {"model": "teacher", "messages": row["messages"][:-1], "max_tokens": 64}
        assert row["messages"][-1]["content"] == contract.text_of(body)
        assert (row["teacher"], row["model"], row["date"]) == (
            "t",
            "teacher-2025-06-15",
            "2025-06-15",
        )
    server_told = server.told()
    assert server_told["mistakes"] == []
    assert float(facts["cost"]) == pytest.approx(server_told["cost"], abs=1e-12)
    assert facts["may_cost_more"] == "0"
    assert told[-1][:2] == (50, 50)
    assert "$" in told[-1][2]
    with File(tmp_path / "out" / "answers.jsonl") as file:
        read = list(file)
    assert all(isinstance(r, Row) and r.teacher == "teacher-2025-06-15" for r in read)
    assert len(read) == 50


def test_what_was_answered_is_never_asked_again(fake: Fakes, tmp_path: Path) -> None:
    server = fake()
    prompts = prompt_file(tmp_path, 20)
    ask(server, prompts, tmp_path, n=12)
    first = (tmp_path / "out" / "answers.jsonl").read_bytes()
    facts = ask(server, prompts, tmp_path)
    assert facts["known"] == 12
    assert set(server.told()["billed"].values()) == {1}
    assert (tmp_path / "out" / "answers.jsonl").read_bytes().startswith(first)
    # Other settings are other requests; a second sample is another answer.
    facts = ask(server, prompts, tmp_path, settings=Settings(max_tokens=64, samples=2, seed=5))
    assert facts["known"] == 0
    assert sum(server.told()["billed"].values()) == 20 + 40
    both = [rows(tmp_path / "out" / name) for name in ("answers.jsonl", "answers-2.jsonl")]
    assert [len(b) for b in both] == [20, 20]
    assert both[0][0]["messages"][-1] != both[1][0]["messages"][-1]


FAULTS = dict.fromkeys(contract.PASSING, 0.06)


@pytest.mark.usefixtures("hasty")
def test_failures_that_pass_change_nothing_in_the_file(fake: Fakes, tmp_path: Path) -> None:
    prompts = prompt_file(tmp_path, 300)
    quiet, wild = tmp_path / "quiet", tmp_path / "wild"
    ask(fake(), prompts, quiet)
    server = fake(faults=FAULTS, key="sk-planted-key-123")
    os.environ["PLANTED"] = "sk-planted-key-123"
    facts = ask(server, prompts, wild, key_env="PLANTED")
    told = server.told()
    assert set(told["failed"]) == set(contract.PASSING)
    assert told["mistakes"] == []
    for name in ("answers.jsonl", "rejected.jsonl"):
        assert (wild / "out" / name).read_bytes() == (quiet / "out" / name).read_bytes()
    # What was billed and lost on its way is told apart: at most so much more.
    cost, more = float(facts["cost"]), float(facts["may_cost_more"])
    assert cost <= told["cost"] <= cost + more
    assert facts["retries"] == sum(told["failed"].values()) - told["failed"]["slow"]
    files = [p for p in wild.rglob("*") if p.is_file()]
    assert len(files) == 4
    assert not any(b"planted" in p.read_bytes() for p in files)


def test_what_is_no_answer_is_told_and_not_passed_on(fake: Fakes, tmp_path: Path) -> None:
    server = fake(faults=dict.fromkeys(contract.STAYING, 0.1))
    facts = ask(server, prompt_file(tmp_path, 200), tmp_path)
    assert set(facts["rejected"]) == {
        "cut at its longest", "content filter", "empty", "refused by the model",
        "refused by the endpoint",
    }  # fmt: skip
    rejected = rows(tmp_path / "out" / "rejected.jsonl")
    assert len(rejected) + facts["written"] == 200
    assert sum(facts["rejected"].values()) == len(rejected)
    assert all(
        "An answer" in r["messages"][-1]["content"]
        for r in rows(tmp_path / "out" / "answers.jsonl")
    )
    # Cut answers count where that is wanted, and none of them is paid for again.
    before = sum(server.told()["billed"].values())
    more = ask(
        server, prompt_file(tmp_path, 200), tmp_path, settings=Settings(max_tokens=64, cut=True)
    )
    assert more["written"] == facts["written"] + facts["rejected"]["cut at its longest"]
    assert sum(server.told()["billed"].values()) == before


def test_dialogues_are_asked_turn_by_turn(fake: Fakes, tmp_path: Path) -> None:
    server = fake()
    talk = [("human", "One?"), ("gpt", "old"), ("human", "Two?"), ("gpt", "old")]
    lines = [
        {"id": "a", "conversations": [{"from": r, "value": v} for r, v in talk]},
        {"id": "b", "messages": [
            {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"},
            {"role": "user", "content": "Go on"},
        ]},
        "a text alone",
    ]  # fmt: skip
    path = tmp_path / "talk.json"
    path.write_text(json.dumps(lines))
    ask(server, path, tmp_path)
    found = {r["id"][0]: r["messages"] for r in rows(tmp_path / "out" / "answers.jsonl")}
    first = found["a"]
    assert [m["role"] for m in first] == ["user", "assistant"] * 2
    asked = {"model": "teacher", "messages": first[:3], "max_tokens": 64}
    assert first[1]["content"] != "old"
    assert first[3]["content"] == contract.text_of(asked)
    assert found["b"][1]["content"] == "Yes?"
    assert len(found["b"]) == 4
    assert len(found) == 3


@pytest.mark.usefixtures("hasty")
def test_a_budget_is_never_passed(fake: Fakes, tmp_path: Path) -> None:
    # What fails and is billed to no one takes nothing of it.
    server = fake(latency=0.01, faults={"429": 0.1, "500": 0.1})
    prompts = prompt_file(tmp_path, 300)
    whole = tmp_path / "whole"
    ask(fake(), prompts, whole)
    budget = Decimal("0.02")
    with pytest.raises(BudgetReached, match=r"\d+ answers to 300 prompts and samples are there"):
        ask(server, prompts, tmp_path, means=Means(price=PRICE, budget=budget))
    told = server.told()
    assert 0 < told["cost"] <= float(budget)
    assert not (tmp_path / "out").exists()
    # Nearly all of it was of use: what is left is less than the dearest request.
    assert told["cost"] > float(budget) - 0.0015
    with pytest.raises(BudgetReached):
        ask(server, prompts, tmp_path, means=Means(price=PRICE, budget=budget))
    assert server.told()["cost"] <= float(budget)
    ask(server, prompts, tmp_path, means=Means(price=PRICE, budget=Decimal(5)))
    assert set(server.told()["billed"].values()) == {1}
    name = "answers.jsonl"
    assert (tmp_path / "out" / name).read_bytes() == (whole / "out" / name).read_bytes()


def test_a_budget_needs_a_price(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a budget needs the price"):
        ask_teacher(prompt_file(tmp_path, 1), tmp_path / "out", "http://127.0.0.1:9/v1#m",
                    means=Means(budget=Decimal(1), ledgers=tmp_path))  # fmt: skip


@pytest.mark.usefixtures("hasty")
def test_an_endpoint_that_goes_away_and_comes_back(
    fake: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = fake()
    prompts = prompt_file(tmp_path, 120)
    notes: list[str] = []

    def progress(done: float, total: float, note: str = "") -> None:
        notes.append(note)
        if done == 40:
            server.steer(down=True)

    probes: list[float] = []

    async def waited(self: Asker, seconds: float) -> None:
        if seconds:
            probes.append(seconds)
        if len(probes) == 5:
            server.steer(down=False)
        await asyncio.sleep(0)

    monkeypatch.setattr(Asker, "_sleep", waited)
    facts = ask(server, prompts, tmp_path, progress=progress)
    assert facts["written"] == 120
    assert probes[:5] == [1, 2, 4, 8, 16]
    assert set(server.told()["billed"].values()) == {1}


@pytest.mark.usefixtures("hasty")
def test_an_endpoint_that_stays_away_is_one_line_and_loses_nothing(
    fake: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = fake()
    prompts = prompt_file(tmp_path, 60)
    ask(server, prompts, tmp_path, n=30)
    server.steer(down=True)
    monkeypatch.setattr("epigone.teachers.circuit.PATIENCE", -1.0)
    with pytest.raises(EndpointError, match="30 answers to 60 prompts and samples") as raised:
        ask(server, prompts, tmp_path)
    assert "\n" not in str(raised.value)
    server.steer(down=False)
    assert ask(server, prompts, tmp_path)["known"] == 30
    assert set(server.told()["billed"].values()) == {1}


@pytest.mark.parametrize(("key", "status"), [("sk-right", "401"), ("", "404")])
def test_what_holds_for_all_stops_at_once(
    fake: Fakes, tmp_path: Path, key: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = fake(key=key)
    monkeypatch.setenv("EPIGONE_API_KEY", "sk-wrong-one")
    ref = server.ref if key else f"{server.url}#other"
    with pytest.raises(EndpointError, match=f"HTTP {status}") as raised:
        ask_teacher(
            prompt_file(tmp_path, 500), tmp_path / "out", ref,
            means=Means(ledgers=tmp_path / "ledger"),
        )  # fmt: skip
    assert "sk-wrong-one" not in str(raised.value)
    assert len(server.told()["mistakes"]) <= 32
    assert not any(b"sk-wrong" in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


def test_a_schema_is_asked_for_and_checked(fake: Fakes, tmp_path: Path) -> None:
    right = {"type": "object", "properties": {"answer": {"type": "integer"}}}
    wrong = {"type": "object", "properties": {"answer": {"type": "string"}}}
    server = fake()
    prompts = prompt_file(tmp_path, 5)
    facts = ask(server, prompts, tmp_path / "r", settings=Settings(max_tokens=64, schema=right))
    assert facts["written"] == 5
    for _ in range(2):
        with pytest.raises(EndpointError, match="none of 5 answers is of use: not of the schema"):
            ask(server, prompts, tmp_path / "w", settings=Settings(max_tokens=64, schema=wrong))
    # One answer and two more tries each, which are all in the ledger.
    assert sorted(server.told()["billed"].values()) == [1] * 5 + [3] * 5
    with pytest.raises(UserError, match="not a JSON schema"):
        ask(server, prompts, tmp_path / "n", settings=Settings(schema={"type": "strin"}))
    assert not (tmp_path / "n").exists()


def test_base_models_go_on_from_texts(fake: Fakes, tmp_path: Path) -> None:
    server = fake()
    ask(server, prompt_file(tmp_path, 3), tmp_path,
        settings=Settings(max_tokens=9, completions=True))  # fmt: skip
    assert server.told()["mistakes"] == []
    assert len(rows(tmp_path / "out" / "answers.jsonl")) == 3


def killed_at_random(server: Running, prompts: Path, folder: Path, kills: int) -> None:
    """Ask in so many child processes, each killed before its end, and then to the end."""
    rng = random.Random(1)
    for kill in range(kills):
        seen = server.told()["seen"]
        child = os.fork()
        if not child:
            os.setpgid(0, 0)
            ask(server, prompts, folder)
            os._exit(0)
        # Some when requests are on their way, however slow this machine is.
        while kill % 10 == 0 and server.told()["seen"] == seen:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.02, 0.3))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "nothing was left to ask"
    ask(server, prompts, folder)


def test_killed_at_any_moment(fake: Fakes, tmp_path: Path) -> None:
    prompts = prompt_file(tmp_path, 2000)
    quiet, wild = tmp_path / "quiet", tmp_path / "wild"
    facts = ask(fake(), prompts, quiet)
    server = fake(latency=0.1)
    killed_at_random(server, prompts, wild, 50)
    name = "answers.jsonl"
    assert (wild / "out" / name).read_bytes() == (quiet / "out" / name).read_bytes()
    assert len(rows(wild / "out" / name)) == 2000
    told = server.told()
    came = json.loads((wild / "out" / "asked.json").read_text())
    ledger = [row["row"] for row in rows(Path(came["ledger"]))][1:]
    paid = sum(Decimal(r["cost"]) for r in ledger if r["kind"] == "came")
    assert paid == Decimal(facts["cost"])
    answered = {r["key"]: r["request"] for r in ledger if r["kind"] == "came"}
    ends = Counter(r["key"] for r in ledger if r["kind"] != "sent")
    left = Counter(r["key"] for r in ledger if r["kind"] == "sent") - ends
    assert set(ends.values()) == {1}
    assert len(answered) == len(told["billed"]) == 2000
    twice = 0.0
    for key, body in answered.items():
        # Only what was in flight at a kill was answered twice, and each time a line tells of it.
        again = told["billed"][contract.name_of(body)] - 1
        assert 0 <= again <= left[key]
        twice += again * contract.cost_of(contract.usage_of(body, contract.text_of(body)))
    assert twice > 0
    assert float(paid) == pytest.approx(told["cost"] - twice, abs=1e-9)
    assert told["cost"] <= float(paid) + float(came["may_cost_more"])


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_what_is_in_flight_when_it_is_ended_is_kept(
    fake: Fakes, tmp_path: Path, told: signal.Signals
) -> None:
    server = fake(latency=0.5)
    prompts = prompt_file(tmp_path, 64)
    child = os.fork()
    if not child:
        try:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            ask(server, prompts, tmp_path)
        except BaseException as error:
            os._exit(9 if isinstance(error, KeyboardInterrupt) else 1)
        os._exit(0)
    while not server.told()["seen"]:
        time.sleep(0.01)
    time.sleep(0.1)
    os.kill(child, told)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 9
    billed = sum(server.told()["billed"].values())
    assert 1 <= billed <= 32
    ledger = [row["row"] for row in rows(next((tmp_path / "ledger").glob("*.jsonl")))]
    assert sum(row["kind"] == "came" for row in ledger) == billed
    assert not (tmp_path / "out").exists()
    assert ask(server, prompts, tmp_path)["known"] == billed


def test_the_time_left_follows_from_what_came() -> None:
    asker = SimpleNamespace(
        note="", budget=SimpleNamespace(spent=Decimal(0)), tally=Tally(came=30, known=30, tokens=9)
    )
    # Thirty answers took a minute; sixty items are done, each of one answer; thirty are left.
    assert pace(asker, 60.0, 60, 90) == "0.5/s, 60 s left, 9 tokens"  # type: ignore[arg-type]
    # Two answers an item: thirty items are done, ninety are left, at half an answer a second.
    assert pace(asker, 60.0, 30, 120) == "0.5/s, 6 min left, 9 tokens"  # type: ignore[arg-type]
    asker.tally = Tally(known=5)
    assert pace(asker, 1.0, 5, 10) == "0.0/s, 0 tokens"  # type: ignore[arg-type]
