"""The ledger and the budget beneath measuring: what an endpoint is asked one by one is kept too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from epigone.errors import EndpointError
from epigone.models.endpoint import Endpoint, kept_by
from epigone.study.specs import ModelSpec
from epigone.teachers.ask import BudgetReached, cost_of
from epigone.teachers.ledger import Ledger, Row, key_of, ledger_file, sent
from epigone.teachers.means import endpoint_of, means_of, price_of
from epigone.teachers.money import Budget, Price, most_tokens
from epigone.teachers.wire import read


class Keeper:
    """See `epigone.models.endpoint.Keeper`; can be used by several threads."""

    def __init__(self, ledger: Ledger, price: Price, budget: Budget) -> None:
        """Keep in a ledger what a price and a budget allow."""
        self._ledger, self._price, self._budget = ledger, price, budget
        self._turn = threading.Condition()

    def known(self, path: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """The JSON that answered this before."""
        with self._turn:
            row = self._ledger.get(key_of(path, body, 0))
        response: dict[str, Any] | None = None if row is None else row["response"]
        return response

    def sends(self, path: str, body: Mapping[str, Any]) -> None:
        """It is about to leave; waits for what is in flight, raises BudgetReached."""
        most = self._price.most(body)
        with self._turn:
            while not self._budget.fits(most):
                if not self._budget.in_flight:
                    raise BudgetReached(
                        f"of the budget of ${self._budget.limit}, answers cost "
                        f"${self._ledger.spent} and requests without one up to "
                        f"${self._ledger.open}; the next one may cost ${most}",
                        fix="all that came is kept; go on with a larger --budget",
                    )
                self._turn.wait()
            self._budget.take(most)
            key = key_of(path, body, 0)
            self._write(sent(key, most, most_tokens(body), self._ledger.purpose))

    def came(self, path: str, body: Mapping[str, Any], response: dict[str, Any]) -> None:
        """The JSON that answered it."""
        most = self._price.most(body)
        cost = cost_of(read(response), self._price, most)
        row = {
            "sample": 0, "path": path, "request": dict(body), "response": response,
            "cost": str(cost),
        }  # fmt: skip
        with self._turn:
            self._write(Row("came", key_of(path, body, 0), row))
            self._budget.settle(most, cost)
            self._turn.notify_all()

    def failed(self, path: str, body: Mapping[str, Any], why: str, *, billed: bool) -> None:
        """Nothing that can be used came; `billed` where it may cost all the same."""
        most, key = self._price.most(body), key_of(path, body, 0)
        with self._turn:
            self._write(
                Row("lost", key, {"why": why, "came": ""}) if billed else Row("void", key, {})
            )
            self._budget.settle(most, most if billed else most * 0)
            self._turn.notify_all()

    def _write(self, row: Row) -> None:
        try:
            self._ledger.write([row], sync=self._budget.limit is not None)
        except (OSError, ValueError) as error:
            raise EndpointError(
                "the ledger cannot be written", value=str(self._ledger.path), fix=str(error)
            ) from None


@contextmanager
def keeping(model: ModelSpec, waits: Callable[[], None]) -> Iterator[None]:
    """Keep in the ledger what clients of this teacher's endpoint ask in the meantime.

    `waits` is called once where another process asks it, whose end is waited for.
    """
    endpoint: Endpoint = endpoint_of(model.ref)
    means = means_of(model.means)
    # What is measured is asked one by one.
    price, _ = price_of(endpoint, replace(means, batch=False))
    ledger = Ledger(ledger_file(means.ledgers, endpoint), means.purpose, waits)
    try:
        budget = Budget(means.budget, ledger.spent + ledger.open)
        with kept_by(Keeper(ledger, price, budget)):
            yield
    finally:
        ledger.close()
