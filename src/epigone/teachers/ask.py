"""Ask an endpoint many things at once: limits, budget, ledger, and what to do when it fails."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

from epigone.errors import EndpointError, RequestRefused
from epigone.models.endpoint import Endpoint, host
from epigone.teachers.circuit import PATIENCE, Circuit, Down
from epigone.teachers.ledger import Ledger, Row, key_of
from epigone.teachers.limits import Limits
from epigone.teachers.money import FREE, Budget, Price, most_tokens
from epigone.teachers.wire import Answer, Failed, Request, Wire, read

Item = TypeVar("Item")
_ATTEMPTS = 8
_LONGEST_WAIT = 60.0
# An endpoint that asks to wait for longer is asked again by another run.
_PATIENCE = 600.0
# Refusals that hold for whatever is asked.
_FOR_ALL = frozenset({401, 402, 404})


class BudgetReached(EndpointError):
    """The next request could cost more than is left."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that the endpoint would refuse again."""

    status: int
    why: str


@dataclass(slots=True)
class Tally:
    """What happened so far; `known` answers were in the ledger already."""

    came: int = 0
    known: int = 0
    refused: int = 0
    retries: int = 0
    tokens: int = 0
    prompt_tokens: int = 0


class Asker:
    """Asks one endpoint; every method belongs to the event loop that `asking` runs in."""

    def __init__(
        self,
        wire: Wire,
        ledger: Ledger,
        limits: Limits,
        budget: Budget,
        price: Price,
        concurrency: int,
    ) -> None:
        """See `asking`."""
        self.endpoint = wire.endpoint
        self.tally = Tally()
        self.budget = budget
        self.note = ""
        self._wire, self._limits, self._price = wire, limits, price
        self._ledger, self._scribe = ledger, Scribe(ledger)
        self._free = asyncio.Semaphore(concurrency)
        self._circuit = Circuit(self._say, clock=time.monotonic)
        self._settled = asyncio.Event()
        self._stop: EndpointError | None = None
        self._asking: dict[str, asyncio.Task[Answer | Refused]] = {}
        # Waiting times need no seed: they change no result.
        self._random = random.Random()

    def _say(self, what: str) -> None:
        self.note = what

    async def ask(self, request: Request, again: int = 0) -> Answer | Refused:
        """What the endpoint says to a request, from the ledger where it is known.

        `again` counts how often it was asked before because what came would not do. Raises
        EndpointError where nothing more can be asked: it is down, refuses everything, or the budget
        is spent.
        """
        key = key_of(request.path, request.body, request.sample, again)
        row = self._ledger.get(key)
        if row is not None:
            self.tally.known += 1
            return read(row["response"])
        # The same question twice at once is one request.
        task = self._asking.get(key)
        if task is None:
            task = asyncio.ensure_future(self._answer(key, request))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key))
        return await asyncio.shield(task)

    async def _answer(self, key: str, request: Request) -> Answer | Refused:
        async with self._free:
            failed: Failed | None = None
            for attempt in range(_ATTEMPTS):
                if failed is not None:
                    self.tally.retries += 1
                    await asyncio.sleep(self._pause(attempt, failed))
                try:
                    return await self._once(key, request)
                except Failed as error:
                    failed = error
                except RequestRefused as error:
                    nobody = error.status == 403 and not self._ledger.answers
                    if error.status in _FOR_ALL or nobody:
                        raise self._halted(error) from None
                    self._circuit.answered()
                    return self._refused(error.status, str(error))
            # Where nobody is answered, the circuit stops all.
            return self._refused(0, str(failed))

    def _refused(self, status: int, why: str) -> Refused:
        self.tally.refused += 1
        return Refused(status, why)

    def _pause(self, attempt: int, failed: Failed) -> float:
        """Full jitter (Brooker 2015), after what the endpoint asks for."""
        grown = self._random.uniform(0, min(_LONGEST_WAIT, 2.0**attempt))
        return failed.after + (min(grown, 1.0) if failed.after else grown)

    async def _once(self, key: str, request: Request) -> Answer:
        most = self._price.most(request.body)
        await self._room(most)
        cost = Decimal(0)
        try:
            await self._limits.acquire(most_tokens(request.body))
            try:
                async with self._circuit.passage():
                    if self._stop:
                        raise self._stop
                    await self._scribe.write(Row("sent", key, {"most": str(most)}))
                    cost = most
                    answer, cost = await self._sent(key, request, most)
            except Down:
                raise self._halted(self._away()) from None
        finally:
            self.budget.settle(most, cost)
            self._settled.set()
        self.tally.came += 1
        self.tally.tokens += answer.tokens
        self.tally.prompt_tokens += answer.prompt_tokens
        return answer

    async def _sent(self, key: str, request: Request, most: Decimal) -> tuple[Answer, Decimal]:
        """Send it, and write down what came of it."""
        try:
            response, headers = await self._wire.send(request)
        except RequestRefused:
            await self._scribe.write(Row("void", key, {}))
            raise
        except Failed as error:
            await self._note_failure(key, error)
            raise
        self._circuit.answered()
        self._limits.learn(headers)
        answer = read(response)
        # Who counts nothing is believed to charge the most.
        counted = answer.prompt_tokens + answer.tokens > 0
        cost = self._price.cost(answer.prompt_tokens, answer.tokens) if counted else most
        row = {
            "sample": request.sample, "path": request.path, "request": request.body,
            "response": response, "cost": str(cost),
        }  # fmt: skip
        await self._scribe.write(Row("came", key, row))
        return answer, cost

    async def _note_failure(self, key: str, failed: Failed) -> None:
        if failed.billed:
            await self._scribe.write(Row("lost", key, {"why": str(failed), "came": failed.came}))
        else:
            await self._scribe.write(Row("void", key, {}))
        if failed.after > _PATIENCE:
            raise self._halted(
                EndpointError(
                    f"{host(self.endpoint)} asks to wait for {failed.after / 60:,.0f} minutes",
                    value=str(failed),
                    fix="run the same command again then",
                )
            )
        if failed.limited:
            self._limits.pause(failed.after)
        elif failed.came is None:
            self._circuit.failed(str(failed))

    async def _room(self, most: Decimal) -> None:
        """Wait until the budget has room; what is in flight mostly costs less than its worst."""
        while not self._stop:
            if self.budget.fits(most):
                self.budget.take(most)
                return
            if not self.budget.in_flight:
                self._halted(
                    BudgetReached(
                        f"${self.budget.spent} of ${self.budget.limit} are spent, and the next "
                        f"request may cost ${most}",
                        fix="all that came is kept; go on with a larger --budget",
                    )
                )
                break
            self._settled.clear()
            await self._settled.wait()
        assert self._stop
        raise self._stop

    def _away(self) -> EndpointError:
        return EndpointError(
            f"{host(self.endpoint)} has not answered for {PATIENCE / 60:.0f} minutes",
            value=self.note,
            fix="all that came is kept; run the same command again later",
        )

    def _halted(self, error: EndpointError) -> EndpointError:
        """Send nothing more; what is in flight may still come."""
        self._stop = self._stop or error
        self._settled.set()
        return self._stop

    async def finish(self) -> None:
        """Send nothing more, and wait for what is in flight and for the ledger."""
        self._halted(EndpointError("stopped", fix="run the same command again to go on"))
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        await self._scribe.close()


class Scribe:
    """Writes rows into the ledger, those that gather in the meantime together."""

    def __init__(self, ledger: Ledger) -> None:
        """Write nothing yet."""
        self._ledger = ledger
        self._rows: list[tuple[Row, asyncio.Future[None]]] = []
        self._work: asyncio.Task[None] | None = None

    async def write(self, row: Row) -> None:
        """Return once the row is in the ledger. Raises EndpointError where it cannot be."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rows.append((row, future))
        if self._work is None or self._work.done():
            self._work = asyncio.ensure_future(self._all())
        await future

    async def _all(self) -> None:
        while self._rows:
            rows, self._rows = self._rows, []
            try:
                await asyncio.to_thread(self._ledger.write, [row for row, _ in rows])
            except OSError as error:
                wrong = EndpointError(
                    "the ledger cannot be written", value=str(self._ledger.path),
                    fix=error.strerror or "",
                )  # fmt: skip
                for _, future in rows:
                    if not future.done():
                        future.set_exception(wrong)
            else:
                for _, future in rows:
                    if not future.done():
                        future.set_result(None)

    async def close(self) -> None:
        """Wait until all is written."""
        if self._work is not None:
            await self._work


@asynccontextmanager
async def asking(
    endpoint: Endpoint,
    ledger: Ledger,
    *,
    price: Price = FREE,
    budget: Decimal | None = None,
    requests_per_minute: float = 0,
    tokens_per_minute: float = 0,
    concurrency: int = 32,
) -> AsyncIterator[Asker]:
    """An `Asker` of an endpoint, whose answers go to `ledger`.

    `budget` counts what the ledger's answers cost, and what requests without an answer may have;
    at its end what is in flight is waited for.
    """
    wire = Wire(endpoint, concurrency)
    limits = Limits(requests_per_minute, tokens_per_minute, clock=time.monotonic)
    asker = Asker(
        wire, ledger, limits, Budget(budget, ledger.spent + ledger.open), price, concurrency
    )
    try:
        yield asker
    finally:
        await asker.finish()
        await wire.close()


async def each(
    items: Iterable[Item],
    work: Callable[[int, Item], Awaitable[None]],
    workers: int,
    told: Callable[[int], None] = lambda done: None,
) -> None:
    """Work on items, so many at a time, in their order; the first error ends all."""
    numbered = iter(enumerate(items))
    done = 0

    async def one() -> None:
        nonlocal done
        for i, item in numbered:
            await work(i, item)
            done += 1
            told(done)

    tasks = [asyncio.ensure_future(one()) for _ in range(workers)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
