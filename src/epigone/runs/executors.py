"""Where the steps of a run are performed, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Literal

from epigone.runs.at_url import AtUrl, Opened, check_parts
from epigone.runs.local import Local
from epigone.runs.roles import Executor
from epigone.runs.store import Store
from epigone.study.step import Step
from epigone.teachers.money import BUDGET, LEDGERS, PURPOSE

Executors = Literal["local", "ray"]


def environment_of(store: Store, study: str, budget: Decimal | None) -> dict[str, str]:
    """What steps see of the run in their environment: where answers are kept, and what for.

    `study` is the name that is declared: the folder's may change, and answers would be nobody's.
    """
    return {
        LEDGERS: str(store.root.parent / "ledger"),
        PURPOSE: study,
        BUDGET: "" if budget is None else str(budget),
    }


def executor_of(
    on: Executors,
    address: str,
    environment: Mapping[str, str],
    store: Store,
    at_url: Opened | None = None,
    steps: Sequence[Step] = (),
) -> Executor:
    """The executor of a name, over a store at a URL if there is one.

    Raises UserError where it cannot be had, or cannot do one of the `steps`.
    """
    if at_url is not None:
        environment = {**environment, **at_url.environment()}
    if on == "local":
        local = Local(environment)
        return local if at_url is None else AtUrl(local, at_url, lambda task, needs: True)
    from epigone.runs.on_ray import OnRay, stays

    ray = OnRay(address, environment, store.root)
    if at_url is None:
        return ray
    try:
        todo = (s for s in steps if s.stage == "train" and store.record(s) is None)
        check_parts(todo, ray.machines(), at_url.remote.runs)
    except BaseException:
        ray.stop()
        raise
    return AtUrl(ray, at_url, stays)
