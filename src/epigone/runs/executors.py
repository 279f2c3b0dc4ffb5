"""Where the steps of a run are performed, by name."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal

from epigone.runs.local import Local
from epigone.runs.roles import Executor
from epigone.runs.store import Store
from epigone.teachers.money import BUDGET, LEDGERS, PURPOSE

Executors = Literal["local", "ray"]


def environment_of(store: Store, budget: Decimal | None) -> dict[str, str]:
    """What steps see of the run in their environment: where answers are kept, and what for."""
    return {
        LEDGERS: str(store.root.parent / "ledger"),
        PURPOSE: store.root.name,
        BUDGET: "" if budget is None else str(budget),
    }


def executor_of(
    on: Executors, address: str, environment: Mapping[str, str], store: Store
) -> Executor:
    """The executor of a name; raises UserError where it cannot be had."""
    if on == "local":
        return Local(environment)
    from epigone.runs.on_ray import OnRay

    return OnRay(address, environment, store.root)
