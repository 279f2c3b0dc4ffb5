"""What is measured at an endpoint is kept in its ledger and counts against the budget."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.teachers.conftest import Running
from tests.teachers.test_limits import most_in_a_window

from epigone.errors import EndpointError, RequestRefused
from epigone.models.endpoint import Client, Endpoint, kept_by
from epigone.schema import Message
from epigone.study.specs import MeansSpec, ModelSpec
from epigone.teachers.keeper import Keeper, keeping
from epigone.teachers.ledger import Ledger, Row, key_of, ledger_file, sent
from epigone.teachers.limits import Limits
from epigone.teachers.money import BUDGET, FREE, LEDGERS, PURPOSE, Budget, BudgetReached
from epigone.teachers.purse import purse

Fakes = Callable[..., Running]
BODY = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}


@pytest.fixture(autouse=True)
def _means(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(LEDGERS, str(tmp_path / "ledger"))
    monkeypatch.setenv(PURPOSE, "study")
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)


def model_of(server: Running, **means: Any) -> ModelSpec:
    ref = f"endpoint:{server.ref}"
    return ModelSpec(kind="teacher", name="t", ref=ref, means=MeansSpec(price="2,8", **means))


def ask_many(server: Running, n: int, **means: Any) -> list[str]:
    with keeping(model_of(server, **means), lambda: None):
        client = Client(Endpoint(server.url, "teacher"))

        def one(i: int) -> str:
            return client.ask([Message("user", f"Tell me of {i}.")], max_tokens=64).text

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(one, range(n)))
        client.close()
    return found


def test_nothing_is_asked_twice(fake: Fakes) -> None:
    server = fake(faults={"500": 0.2, "drop": 0.1, "malformed": 0.1})
    first = ask_many(server, 60)
    told = server.told()
    assert told["mistakes"] == []
    # Answers that were lost on their way came again; none is asked for after that.
    assert ask_many(server, 60) == first
    assert server.told()["billed"] == told["billed"]
    assert ask_many(fake(), 60) == first


def test_its_cost_is_what_was_billed_or_less_sure(fake: Fakes, tmp_path: Path) -> None:
    server = fake(faults={"drop": 0.15})
    ask_many(server, 80)
    ledger = Ledger(ledger_file(tmp_path / "ledger", Endpoint(server.url, "teacher")), "study")
    billed = server.told()["cost"]
    assert float(ledger.spent) <= billed <= float(ledger.spent + ledger.open)
    calm = fake()
    ask_many(calm, 80)
    sure = Ledger(ledger_file(tmp_path / "ledger", Endpoint(calm.url, "teacher")), "study")
    assert float(sure.spent) == pytest.approx(calm.told()["cost"], abs=1e-12)
    assert sure.open == 0


@pytest.mark.parametrize("batch", [False, True])
def test_a_budget_is_never_passed(
    fake: Fakes, monkeypatch: pytest.MonkeyPatch, batch: bool
) -> None:
    server = fake(latency=0.01)
    for budget in ("0.004", "0.009", "0.02"):
        monkeypatch.setenv(BUDGET, budget)
        with pytest.raises(BudgetReached, match="of the budget"):
            ask_many(server, 400, batch=batch)
        cost = Decimal(str(server.told()["cost"]))
        assert 0 < cost <= Decimal(budget)
    assert set(server.told()["billed"].values()) == {1}


def test_what_is_refused_costs_nothing(fake: Fakes, tmp_path: Path) -> None:
    server = fake(faults={"400": 1.0})
    with pytest.raises(RequestRefused):
        ask_many(server, 1)
    ledger = Ledger(ledger_file(tmp_path / "ledger", Endpoint(server.url, "teacher")), "study")
    assert (ledger.spent, ledger.open) == (0, 0)


def opened(folder: Path, url: str) -> Ledger:
    return Ledger(ledger_file(folder / "ledger", Endpoint(url, "teacher")), "study")


BEHIND = b'{"choices": [{"finish_reason": "error", "message": {"content": null}}]}'
ODD = b'{"choices": [{"finish_reason": "stop", "message": {"content": "x", "refusal": 5}}]}'


@pytest.mark.parametrize("said", [BEHIND, ODD])
def test_json_that_is_no_answer_holds_nobody_up_and_is_not_bought_again(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setenv(BUDGET, "0.006")
    running = Running(server.url)
    for _ in range(2):
        server.failures = [said]
        with keeping(model_of(running), lambda: None):
            client = Client(Endpoint(server.url, "teacher"))
            with pytest.raises(RequestRefused) as raised:
                client.ask([Message("user", "hi")], max_tokens=64)
            assert raised.value.status == 200
            server.failures = []
            # There is room for one at a time.
            with ThreadPoolExecutor(4) as pool:
                asked = [pool.submit(client.ask, [Message("user", f"{i}")], max_tokens=64)
                         for i in range(4)]  # fmt: skip
                assert [a.result(20).text for a in asked] == ["hello"] * 4
    assert len(server.requests) == 5
    ledger = opened(tmp_path, server.url)
    assert ledger.open > 0


def test_a_ledger_that_cannot_be_written_holds_nobody_up(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BUDGET, "0.002")
    whole = Ledger.write

    def write(self: Ledger, rows: Any, *, sync: bool = False) -> None:
        if rows[0].kind == "came":
            raise OSError(28, "No space left on device")
        whole(self, rows, sync=sync)

    monkeypatch.setattr(Ledger, "write", write)
    with keeping(model_of(Running(server.url)), lambda: None):
        client = Client(Endpoint(server.url, "teacher"))
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(client.ask, [Message("user", f"{i}")], max_tokens=64)
                     for i in range(4)]  # fmt: skip
            for each in asked:
                with pytest.raises(EndpointError, match="No space left"):
                    each.result(20)


def test_what_is_in_an_open_batch_is_not_asked(fake: Fakes, tmp_path: Path) -> None:
    server = fake()
    ask_many(server, 1)
    ledger = opened(tmp_path, server.url)
    row = json.loads(ledger.path.read_text().splitlines()[-1])["row"]
    body = {**row["request"], "messages": [{"role": "user", "content": "Tell me of 1."}]}
    key = key_of(row["path"], body, 0)
    ledger.write(
        [
            sent(key, Decimal(1), 0, "", batch="own", path=row["path"], sample=0, request=body),
            Row("batch", "own", {"state": "made", "name": "batch_7"}),
        ]
    )
    ledger.close()
    with pytest.raises(EndpointError, match=r"in a batch that is open: batch_7"):
        ask_many(server, 2)
    assert sum(server.told()["seen"].values()) == 1


def test_the_same_question_at_once_is_one_request(fake: Fakes) -> None:
    server = fake(latency=0.2)
    with keeping(model_of(server), lambda: None):
        client = Client(Endpoint(server.url, "teacher"))
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(client.ask, [Message("user", "hi")], max_tokens=64)
                     for _ in range(8)]  # fmt: skip
            assert len({a.result(20).text for a in asked}) == 1
    assert server.told()["billed"] == {next(iter(server.told()["billed"])): 1}


def test_limits_bind_what_is_measured(server: Any, tmp_path: Path) -> None:
    now, left, lock = [1000.0], [], threading.Lock()

    def nap(seconds: float) -> None:
        now[0] += seconds

    endpoint, ledger = Endpoint(server.url, "m"), Ledger(tmp_path / "ledger.jsonl")
    # Another run sent three of them ten seconds ago.
    limits = Limits(5, clock=lambda: now[0], recent=[(10.0, 9.0)] * 3)
    keeper = Keeper(endpoint, ledger, FREE, Budget(None, Decimal(0)), limits, nap)
    left += [(990.0, 1.0)] * 3

    def answer(body: dict[str, Any]) -> str:
        with lock:
            left.append((now[0], 1.0))
        return "hello"

    server.answer = answer
    with kept_by(keeper):
        client = Client(endpoint)
        for i in range(12):
            client.ask([Message("user", f"{i}")], max_tokens=9)
        assert most_in_a_window(left) <= 5
        assert now[0] > 1100
        # What the endpoint tells of itself binds as well.
        keeper.failed("p", BODY, "", {"retry-after": "50"}, billed=False, whole=False)
        before = now[0]
        client.ask([Message("user", "more")], max_tokens=9)
        assert now[0] - before >= 50
    limits.learn({"x-ratelimit-limit-tokens": "100"})
    with kept_by(keeper), pytest.raises(RequestRefused, match="more than the 100 of a minute"):
        Client(endpoint).ask([Message("user", "x" * 900)], max_tokens=9)


def test_other_endpoints_and_models_are_none_of_its(fake: Fakes, tmp_path: Path) -> None:
    server, other = fake(), fake()
    with keeping(model_of(server), lambda: None):
        Client(Endpoint(other.url, "teacher")).ask([Message("user", "hi")], max_tokens=64)
        with pytest.raises(RequestRefused):
            Client(Endpoint(server.url, "model")).ask([Message("user", "hi")], max_tokens=64)
        Client(Endpoint(f"{server.url}/", "teacher")).ask([Message("user", "hi")], max_tokens=64)
    ledger = opened(tmp_path, server.url)
    assert len(ledger) == 1
    assert len(ledger.path.read_text().splitlines()) == 3


def test_two_endpoints_share_one_budget(
    fake: Fakes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(BUDGET, "0.006")
    first, second = fake(), fake()
    ask_many(first, 9)
    spent = Decimal(str(first.told()["cost"]))
    assert 0 < spent < Decimal("0.006")
    with pytest.raises(BudgetReached, match=r"of the budget of \$0\.006"):
        ask_many(second, 400)
    both = spent + Decimal(str(second.told()["cost"]))
    assert spent < both <= Decimal("0.006")
    # Another purpose has a budget of its own, and what is known costs nothing.
    monkeypatch.setenv(PURPOSE, "other")
    ask_many(fake(), 9)
    monkeypatch.setenv(PURPOSE, "study")
    assert len(ask_many(first, 9)) == 9
    monkeypatch.setenv(BUDGET, "0.012")
    ask_many(second, 9)
    assert both < spent + Decimal(str(second.told()["cost"])) <= Decimal("0.012")


def test_one_process_at_a_time_spends_a_budget(tmp_path: Path) -> None:
    ledgers = [Ledger(tmp_path / f"{name}.jsonl", "study") for name in "ab"]
    held, waited, done = threading.Event(), threading.Event(), threading.Event()

    def second() -> None:
        held.wait()
        with purse(ledgers[1], Decimal(1), waited.set):
            assert ledgers[1].elsewhere == Decimal("0.25")
            done.set()

    thread = threading.Thread(target=second)
    thread.start()
    with purse(ledgers[0], Decimal(1), lambda: None):
        held.set()
        assert waited.wait(10)
        assert not done.is_set()
        ledgers[0].write([sent("k", Decimal("0.25"), 1, "study")])
    thread.join(10)
    assert done.is_set()
    for ledger in ledgers:
        ledger.close()
