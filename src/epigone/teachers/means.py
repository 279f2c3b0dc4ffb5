"""How an endpoint is asked, from start to end: prices, limits, ledger, signals."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from epigone.errors import UserError
from epigone.models.endpoint import KEY, Endpoint
from epigone.models.references import parse as resolve
from epigone.schema import Progress, silent
from epigone.study.specs import MeansSpec
from epigone.teachers.ask import Asker, asking
from epigone.teachers.batch import CALLERS, batching
from epigone.teachers.ledger import Ledger, ledger_file
from epigone.teachers.money import BUDGET, FREE, LEDGERS, PURPOSE, Price, parse_price, single_price
from epigone.teachers.purse import purse

Result = TypeVar("Result")
LEDGER_FOLDER = Path("runs/ledger")


@dataclass(frozen=True, slots=True)
class Means:
    """How fast and for how much an endpoint may be asked; none of it changes an answer.

    `price` is the endpoint's; without one, a known model's is taken. Limits are a minute's, 0 for
    those that the endpoint tells of itself, if any. `ledgers` is the folder of all ledgers, and a
    budget is that of one `purpose`, a study's or a folder's. With `batch` requests wait to go
    together, for half the price; limits and `concurrency` do not bound them.
    """

    concurrency: int = 32
    requests_per_minute: float = 0
    tokens_per_minute: float = 0
    price: Price | None = None
    budget: Decimal | None = None
    ledgers: Path = LEDGER_FOLDER
    purpose: str = ""
    batch: bool = False

    def __post_init__(self) -> None:
        if self.batch:
            # Callers that wait are what batches are made of.
            object.__setattr__(self, "concurrency", max(self.concurrency, CALLERS))


def means_of(told: MeansSpec | None) -> Means:
    """The means that a study's step has: its own, and those of the whole run in the environment."""
    told = told or MeansSpec()
    budget = os.environ.get(BUDGET)
    return Means(
        concurrency=told.concurrency,
        requests_per_minute=told.requests_per_minute,
        tokens_per_minute=told.tokens_per_minute,
        price=None if told.price is None else parse_price(told.price),
        budget=Decimal(budget) if budget else None,
        ledgers=Path(os.environ.get(LEDGERS) or LEDGER_FOLDER),
        purpose=os.environ.get(PURPOSE, ""),
        batch=told.batch,
    )


def price_of(endpoint: Endpoint, means: Means) -> tuple[Price, str]:
    """What the endpoint's answers cost, and where that is known from.

    Raises UserError for a budget without a price.
    """
    found = single_price(endpoint.model, means.price)
    if found is None and means.budget is not None:
        raise UserError(
            "a budget needs the price of the model", value=endpoint.model,
            fix="--price IN,OUT, in dollars for a million tokens; 0,0 for a free one",
        )  # fmt: skip
    price, known = found or (FREE, "not known")
    return (price.in_batches, f"{known} (batch)") if means.batch else (price, known)


def endpoint_of(ref: str, key_env: str = KEY, seconds: float = 600.0) -> Endpoint:
    """The endpoint that a text such as "https://host/v1#model" names. Raises UserError.

    `seconds` is how long an answer may take; an endpoint that has more requests at once than it can
    answer lets the others wait.
    """
    named = resolve(f"endpoint:{ref.removeprefix('endpoint:')}")
    url, _, model = named.value.partition("#")
    return Endpoint(url, model, key_env, seconds)


def purpose_of(out: Path) -> str:
    """The purpose of what is asked for a folder, however its name is spelt."""
    return hashlib.sha256(os.fsencode(os.path.realpath(out))).hexdigest()[:12]


def ask_all(
    endpoint: Endpoint,
    means: Means,
    work: Callable[[Asker], Awaitable[Result]],
    progress: Progress = silent,
) -> tuple[Result, dict[str, Any]]:
    """Do `work` with an `Asker` of the endpoint; returned with it are counts and costs.

    While another process asks, its end is waited for. Raises UserError for a budget without a
    price.
    """
    price, known = price_of(endpoint, means)

    def waits() -> None:
        progress(0, 1, "waiting for another process that asks this endpoint")

    ledger = Ledger(ledger_file(means.ledgers, endpoint), means.purpose, waits)
    spent = ledger.spent

    async def asked() -> tuple[Result, Asker]:
        if means.batch:
            async with batching(endpoint, ledger, price=price, budget=means.budget) as by_batches:
                return await work(by_batches), by_batches
        async with asking(
            endpoint,
            ledger,
            price=price,
            budget=means.budget,
            requests_per_minute=means.requests_per_minute,
            tokens_per_minute=means.tokens_per_minute,
            concurrency=means.concurrency,
        ) as asker:
            return await work(asker), asker

    try:
        with purse(ledger, means.budget, waits):
            result, asker = until_done(asked())
        tally = asker.tally
        facts = {
            "endpoint": endpoint.url,
            "model": endpoint.model,
            "known": tally.known,
            "retries": tally.retries,
            "prompt_tokens": tally.prompt_tokens,
            "tokens": tally.tokens,
            "price": known,
            "cost": str(ledger.spent - spent),
            # Requests whose answers never came, in all runs: no one knows whether they were billed.
            "may_cost_more": str(ledger.open),
            "damaged_lines": ledger.damaged,
            **({"odd_rows": tally.odd} if means.batch else {}),
            "ledger": str(ledger.path),
        }
    finally:
        ledger.close()
    return result, facts


def until_done(work: Coroutine[Any, Any, Result]) -> Result:
    """Run it; SIGTERM ends it as ^C does: what is in flight is waited for and kept."""
    if threading.current_thread() is not threading.main_thread():
        return asyncio.run(work)
    before = signal.getsignal(signal.SIGTERM)
    ended = False

    async def watched() -> Result:
        nonlocal ended
        loop, own = asyncio.get_running_loop(), asyncio.ensure_future(work)

        def end() -> None:
            nonlocal ended
            ended = True
            own.cancel()

        loop.add_signal_handler(signal.SIGTERM, end)
        return await own

    try:
        return asyncio.run(watched())
    except asyncio.CancelledError:
        if not ended:
            raise
    finally:
        signal.signal(signal.SIGTERM, before)
    signal.raise_signal(signal.SIGTERM)
    raise KeyboardInterrupt
