"""What tests of batches share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.teachers.conftest import Running
from tests.teachers.test_collect import PRICE, ask, rows

from epigone.teachers.means import Means

BATCH = Means(price=PRICE, batch=True)


def by_batch(server: Running, prompts: Path, folder: Path, **more: Any) -> dict[str, Any]:
    return ask(server, prompts, folder, **{"means": BATCH, **more})


def same(one: Path, other: Path) -> None:
    for name in ("answers.jsonl", "rejected.jsonl"):
        assert (one / "out" / name).read_bytes() == (other / "out" / name).read_bytes()


def ledger_rows(folder: Path) -> list[dict[str, Any]]:
    return [row["row"] for row in rows(next((folder / "ledger").glob("*.jsonl")))][1:]


def paid(server: Running, facts: dict[str, Any]) -> None:
    """The cost is the fake's, and nothing may have cost more."""
    told = server.told()
    assert told["mistakes"] == []
    assert float(facts["cost"]) == pytest.approx(told["cost"], abs=1e-12)
    assert facts["may_cost_more"] == "0"
