"""The ledger and the budget beneath measuring: what an endpoint is asked one by one is kept too."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

from epigone.errors import EndpointError, RequestRefused
from epigone.models.endpoint import Endpoint, host, kept_by, retry_after
from epigone.models.received import UNREADABLE, read
from epigone.study.specs import ModelSpec
from epigone.teachers.ledger import Ledger, Row, key_of, ledger_file, lost, sent
from epigone.teachers.limits import WINDOW, Limits, TooLarge
from epigone.teachers.means import Means, endpoint_of, means_of, price_of
from epigone.teachers.money import Budget, Price, likely_tokens, most_tokens
from epigone.teachers.purse import purse


class Keeper:
    """See `epigone.models.endpoint.Keeper`; can be used by several threads."""

    def __init__(
        self,
        endpoint: Endpoint,
        ledger: Ledger,
        price: Price,
        budget: Budget,
        limits: Limits,
        nap: Callable[[float], None] = time.sleep,
    ) -> None:
        """Keep in a ledger what a price, a budget and limits allow; `nap` waits for these."""
        self.endpoint = endpoint
        self._ledger, self._price, self._budget = ledger, price, budget
        self._limits, self._nap = limits, nap
        self._turn = threading.Condition()
        # First come, first served: one at a time waits for the limits.
        self._gate = threading.Lock()
        self._flying: set[str] = set()

    def asks(self, path: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """The JSON that answered this before, or None where it leaves now.

        Waits while the same is in flight, and for the budget and the limits. Raises BudgetReached,
        and EndpointError for what may not be asked.
        """
        key, most = key_of(path, body, 0), self._price.most(body)
        known = self._claimed(key, most)
        if known is None:
            try:
                self._wait(body)
                with self._turn:
                    self._write(sent(key, most, most_tokens(body), self._ledger.purpose))
            except BaseException:
                self._end(key, most, Decimal(0))
                raise
        return known

    def came(
        self,
        path: str,
        body: Mapping[str, Any],
        response: dict[str, Any],
        headers: Mapping[str, str],
    ) -> None:
        """The JSON that answered it, and its headers."""
        key, most = key_of(path, body, 0), self._price.most(body)
        cost = most
        try:
            cost = self._price.of(read(response), most)
            told = {
                "sample": 0, "path": path, "request": dict(body), "response": response,
                "cost": str(cost),
            }  # fmt: skip
            row = Row("came", key, told)
        except UNREADABLE:
            row = lost(key, "an answer to others only")
        self._ended(key, most, cost, row, headers)

    def failed(
        self,
        path: str,
        body: Mapping[str, Any],
        why: str,
        headers: Mapping[str, str],
        *,
        billed: bool,
        whole: bool,
    ) -> None:
        """Nothing that can be used came; `billed` where it may cost all the same."""
        key, most = key_of(path, body, 0), self._price.most(body)
        row = lost(key, why, whole=whole) if billed else Row("void", key, {})
        self._ended(key, most, most if billed else Decimal(0), row, headers)

    def _claimed(self, key: str, most: Decimal) -> dict[str, Any] | None:
        """What is known; or None, and the budget has room for it and nobody else asks it."""
        with self._turn:
            while True:
                row = self._ledger.get(key)
                if row is not None:
                    response: dict[str, Any] = row["response"]
                    return response
                if why := self._ledger.refused(key):
                    what = f"{host(self.endpoint)} answered before, and so that it cannot be read"
                    raise RequestRefused(what, status=200, value=why)
                self._ledger.check_single(key)
                if key not in self._flying:
                    if self._budget.fits(most):
                        break
                    if not self._budget.in_flight:
                        raise self._budget.reached(most, *self._ledger.told)
                self._turn.wait()
            self._flying.add(key)
            self._budget.take(most)
        return None

    def _wait(self, body: Mapping[str, Any]) -> None:
        tokens = most_tokens(body), likely_tokens(body)
        with self._gate:
            while True:
                try:
                    with self._turn:
                        wait = self._limits.take(*tokens)
                except TooLarge as error:
                    what = f"a question is too large for the limits of {host(self.endpoint)}"
                    raise RequestRefused(what, status=413, value=str(error)) from None
                if wait <= 0:
                    return
                self._nap(wait)

    def _ended(
        self, key: str, most: Decimal, cost: Decimal, row: Row, headers: Mapping[str, str]
    ) -> None:
        try:
            with self._turn:
                self._limits.learn(headers)
                self._limits.pause(min(WINDOW, retry_after(headers)))
                self._write(row)
        finally:
            self._end(key, most, cost)

    def _end(self, key: str, most: Decimal, cost: Decimal) -> None:
        """Whatever came of it, others wait for its end."""
        with self._turn:
            self._flying.discard(key)
            self._budget.settle(most, cost)
            self._turn.notify_all()

    def _write(self, row: Row) -> None:
        try:
            self._ledger.write([row], sync=self._budget.limit is not None)
        except (OSError, ValueError) as error:
            raise EndpointError(
                "the ledger cannot be written", value=str(self._ledger.path), fix=str(error)
            ) from None


@contextmanager
def keeping(
    model: ModelSpec, waits: Callable[[], None], means: Means | None = None
) -> Iterator[Ledger]:
    """Keep in the ledger what clients of this model's endpoint ask in the meantime.

    `waits` is called once where another process asks it, whose end is waited for. Without `means`
    they are the model's own and those of the run.
    """
    endpoint = endpoint_of(model.ref)
    means = means or means_of(model.means)
    # What is measured is asked one by one.
    price, _ = price_of(endpoint, replace(means, batch=False))
    ledger = Ledger(ledger_file(means.ledgers, endpoint), means.purpose, waits)
    try:
        with purse(ledger, means.budget, waits):
            budget = Budget(means.budget, ledger.spent + ledger.open + ledger.elsewhere)
            limits = Limits(
                means.requests_per_minute, means.tokens_per_minute, clock=time.monotonic,
                recent=ledger.recent,
            )  # fmt: skip
            with kept_by(Keeper(endpoint, ledger, price, budget, limits)):
                yield ledger
    finally:
        ledger.close()
