"""What is measured at an endpoint is kept in its ledger and counts against the budget."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.teachers.conftest import Running

from epigone.errors import RequestRefused
from epigone.models.endpoint import Client, Endpoint
from epigone.schema import Message
from epigone.study.specs import MeansSpec, ModelSpec
from epigone.teachers.ask import BudgetReached
from epigone.teachers.keeper import keeping
from epigone.teachers.ledger import Ledger, ledger_file
from epigone.teachers.money import BUDGET, LEDGERS, PURPOSE

Fakes = Callable[..., Running]


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
