"""Batches: the same requests for half the price, and nothing lost, bought or submitted twice."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.teachers.conftest import Running
from tests.teachers.test_collect import PRICE, ask, prompt_file, rows

from epigone.errors import EndpointError
from epigone.teachers import batch as batch_module
from epigone.teachers import batches as batches_module
from epigone.teachers.answers import Settings
from epigone.teachers.ask import Asker, BudgetReached
from epigone.teachers.means import Means

Fakes = Callable[..., Running]
BATCH = Means(price=PRICE, batch=True)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long."""
    monkeypatch.setattr(Asker, "_pause", lambda self, tried, failed: 0.0)
    monkeypatch.setattr(batch_module, "QUIET", 0.02)
    monkeypatch.setattr(batches_module, "POLL", (0.01, 0.02))


def by_batch(server: Running, prompts: Path, folder: Path, **more: Any) -> dict[str, Any]:
    return ask(server, prompts, folder, **{"means": BATCH, **more})


def same(one: Path, other: Path) -> None:
    for name in ("answers.jsonl", "rejected.jsonl"):
        assert (one / "out" / name).read_bytes() == (other / "out" / name).read_bytes()


def ledger_rows(folder: Path) -> list[dict[str, Any]]:
    return [row["row"] for row in rows(next((folder / "ledger").glob("*.jsonl")))]


def paid(server: Running, facts: dict[str, Any]) -> None:
    """The cost is the fake's, and nothing may have cost more."""
    told = server.told()
    assert told["mistakes"] == []
    assert float(facts["cost"]) == pytest.approx(told["cost"], abs=1e-12)
    assert facts["may_cost_more"] == "0"


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
