"""Ask an endpoint many things at once: limits, budget, ledger, and what to do when it fails."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal

from epigone.errors import EndpointError, RequestRefused
from epigone.models.endpoint import Endpoint, host
from epigone.models.received import Answer, read
from epigone.teachers.circuit import PATIENCE, Circuit, Down
from epigone.teachers.ledger import Ledger, Row, key_of, sent
from epigone.teachers.limits import Limits, TooLarge, jittered
from epigone.teachers.money import FREE, Budget, Price, likely_tokens, most_tokens
from epigone.teachers.scribe import Scribe
from epigone.teachers.wire import Failed, Request, Wire

_ATTEMPTS = 8
# Tries of one request that may have been paid for without an answer.
_BILLED = 4
# An endpoint that asks to wait for longer, or says nothing else for so long than that there are too
# many requests, is asked again by another run.
CROWDED = 600.0
# Refusals that hold for whatever is asked.
_FOR_ALL = frozenset({301, 302, 307, 308, 401, 402, 404, 405, 407, 501, 505})
# So many refused or unreadable answers while nothing at all is answered, too.
_ENOUGH = 20
# A disk may take its time; what was to go out by then may not go any more.
_STALE = 1.0
clock = time.monotonic


class NotHad(Exception):
    """An answer that could not be had this time: another run may get it."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that the endpoint would refuse again, or that cannot be sent."""

    status: int
    why: str
    reason: str = "refused by the endpoint"


@dataclass(slots=True)
class Tally:
    """What happened so far; `known` answers were in the ledger already.

    `odd` rows of batches answered no request, or could not be read.
    """

    came: int = 0
    known: int = 0
    refused: int = 0
    retries: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    odd: int = 0

    @property
    def answers(self) -> int:
        """All answers that are there."""
        return self.came + self.known


class Asker:
    """Asks one endpoint; every method belongs to the event loop that `asking` runs in."""

    def __init__(
        self,
        wire: Wire,
        ledger: Ledger,
        price: Price,
        budget: Decimal | None,
        concurrency: int,
        per_minute: tuple[float, float],
    ) -> None:
        """See `asking`; `per_minute` are requests and tokens."""
        self.endpoint = wire.endpoint
        self.tally = Tally()
        self.budget = Budget(budget, ledger.spent + ledger.open + ledger.elsewhere)
        # Called when the note changes, which may be long before an answer comes.
        self.watch: Callable[[], None] = lambda: None
        self.note = f"{ledger.damaged} damaged lines in the ledger" if ledger.damaged else ""
        self._wire, self._price, self._clock = wire, price, clock
        self._ledger, self._scribe = ledger, Scribe(ledger, sync=budget is not None)
        self._free = asyncio.Semaphore(concurrency)
        self._circuit = Circuit(self._say, clock=clock, sleep=self._sleep)
        self._settled, self._stopping = asyncio.Event(), asyncio.Event()
        self._stop: EndpointError | None = None
        self._asking: dict[str, asyncio.Task[Answer | Refused]] = {}
        # Waiting times need no seed: they change no result.
        self._random = random.Random()
        self._limits = Limits(*per_minute, clock=clock, sleep=self._sleep, recent=ledger.recent)

    def _say(self, what: str) -> None:
        self.note = what
        self.watch()

    async def _sleep(self, seconds: float) -> None:
        """Wait; raises what stopped everything as soon as that happens."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        if self._stop:
            raise stopped_by(self._stop)

    async def ask(self, request: Request, again: int = 0) -> Answer | Refused:
        """What the endpoint says to a request, from the ledger where it is known.

        `again` counts how often it was asked before because what came would not do. Raises NotHad
        where it did not answer this one, EndpointError where nothing more can be asked: it is down,
        refuses everything, or the budget is spent.
        """
        key = key_of(request.path, request.body, request.sample, again)
        row = self._ledger.get(key)
        if row is not None:
            self.tally.known += 1
            return read(row["response"])
        if why := self._ledger.refused(key):
            return Refused(200, why)
        # The same question twice at once is one request.
        task = self._asking.get(key)
        if task is None:
            task = asyncio.ensure_future(self._answer(key, request))
            self._asking[key] = task
            task.add_done_callback(lambda task: self._asked(key, task))
        return await asyncio.shield(task)

    def _asked(self, key: str, task: asyncio.Task[Answer | Refused]) -> None:
        del self._asking[key]
        if not task.cancelled():
            # Whoever waited may have gone, and an error that nobody takes is told on stderr.
            task.exception()

    async def _answer(self, key: str, request: Request) -> Answer | Refused:
        try:
            self._ledger.check_single(key)
        except EndpointError as error:
            raise self._halted(error) from None
        tried, billed = 0, 0
        failed: Failed | None = None
        async with self._free:
            while tried < _ATTEMPTS and billed < _BILLED:
                if failed is not None:
                    self.tally.retries += 1
                    await self._sleep(self._pause(tried, failed))
                try:
                    return await self._once(key, request)
                except TooLarge as error:
                    return Refused(0, str(error), "larger than a minute's limit")
                except RequestRefused as error:
                    return self._refusal(error)
                except Failed as error:
                    failed = error
                # Too many requests are nothing that this one did.
                tried += not failed.limited
                billed += failed.billed
                if failed.whole:
                    # Whoever answers so will answer so again.
                    return self._refused(200, str(failed))
        raise NotHad(str(failed))

    def _refusal(self, error: RequestRefused) -> Refused:
        if error.status in _FOR_ALL or (error.status == 403 and not self.tally.answers):
            raise self._halted(error) from None
        return self._refused(error.status, str(error))

    def _refused(self, status: int, why: str) -> Refused:
        self.tally.refused += 1
        if self.tally.refused >= _ENOUGH and not self.tally.answers:
            what = f"{host(self.endpoint)} answers nothing that can be used"
            raise self._halted(EndpointError(what, value=why))
        return Refused(status, why)

    def _pause(self, tried: int, failed: Failed) -> float:
        """Seconds to wait, after what the endpoint asks for."""
        grown = jittered(tried + failed.limited, self._random)
        return failed.after + (min(grown, 1.0) if failed.after else grown)

    async def _once(self, key: str, request: Request) -> Answer:
        most = self._price.most(request.body)
        await self._room(most)
        cost = Decimal(0)
        try:
            while True:
                async with self._circuit.passage() as probing:
                    if not await self._may_go(key, request, most, probing=probing):
                        continue
                    cost = most
                    try:
                        answer, cost = await self._sent(key, request, most)
                    except (Failed, RequestRefused) as error:
                        billed = isinstance(error, Failed) and error.billed
                        cost = most if billed else Decimal(0)
                        raise
                    break
        except Down:
            raise self._halted(self._away()) from None
        finally:
            self.budget.settle(most, cost)
            self._settled.set()
        self.tally.came += 1
        self.tally.tokens += answer.tokens
        self.tally.prompt_tokens += answer.prompt_tokens
        if cost > most:
            what = f"{host(self.endpoint)} counts more tokens than a request can have"
            raise self._halted(EndpointError(what, value=f"${cost} instead of at most ${most}"))
        return answer

    async def _may_go(self, key: str, request: Request, most: Decimal, *, probing: bool) -> bool:
        """Wait for the limits and write down that it goes; not if the endpoint went down by then.

        Its place in the limits comes last: what waits elsewhere behind it would go out later.
        """
        tokens = most_tokens(request.body), likely_tokens(request.body)
        await self._limits.acquire(*tokens)
        if self._circuit.open() and not probing:
            return False
        if self._stop:
            raise stopped_by(self._stop)
        began = self._clock()
        await self._scribe.write(sent(key, most, tokens[0], self._ledger.purpose))
        try:
            while self._clock() - began > _STALE:
                began = self._clock()
                await self._limits.acquire(*tokens)
            if self._stop:
                raise stopped_by(self._stop)
        except (EndpointError, TooLarge):
            # It never left.
            await self._scribe.write(Row("void", key, {}))
            raise
        return True

    async def _sent(self, key: str, request: Request, most: Decimal) -> tuple[Answer, Decimal]:
        """Send it, and write down what came of it."""
        left = self._clock()
        try:
            response, headers = await self._wire.send(request)
        except RequestRefused:
            self._answered()
            await self._scribe.write(Row("void", key, {}))
            raise
        except Failed as error:
            await self._note_failure(key, error, left)
            raise
        self._answered()
        answer = read(response)
        cost = self._price.of(answer, most)
        row = {
            "sample": request.sample, "path": request.path, "request": request.body,
            "response": response, "cost": str(cost),
        }  # fmt: skip
        await self._scribe.write(Row("came", key, row))
        self._limits.learn(headers)
        return answer, cost

    def _answered(self) -> None:
        self._circuit.answered()
        if self._limits.refused > 1:
            self._say("")
        self._limits.answered()

    async def _note_failure(self, key: str, failed: Failed, left: float) -> None:
        await self._scribe.write(failed.row(key))
        self._limits.learn(failed.headers)
        if failed.after > CROWDED:
            raise self._halted(
                EndpointError(
                    f"{host(self.endpoint)} asks to wait for {failed.after / 60:,.0f} minutes",
                    value=str(failed),
                    fix="run the same command again then",
                )
            )
        if failed.limited:
            waited = self._limits.limited(left, failed.after, self._random)
            self._crowded(failed, self._limits.refused, waited)
        if failed.limited or failed.whole or failed.status == 200:
            self._circuit.answered()
        else:
            self._circuit.failed(key, str(failed))

    def _crowded(self, failed: Failed, often: int, waited: float) -> None:
        """Tell that there were too many requests so often; raises where that has no end."""
        if waited > CROWDED:
            raise self._halted(
                EndpointError(
                    f"{host(self.endpoint)} has said for {waited / 60:.0f} minutes that there are "
                    "too many requests",
                    value=str(failed),
                    fix="all that came is kept; run the same command again later",
                )
            )
        if often > 1:
            self._say(f"too many requests {often} times in a row, asking slowly: {failed}")

    async def _room(self, most: Decimal) -> None:
        """Wait until the budget has room; what is in flight mostly costs less than its worst."""
        while not self._stop:
            if self.budget.fits(most):
                self.budget.take(most)
                return
            if not self.budget.in_flight:
                self._halted(self.budget.reached(most, *self._ledger.told))
                break
            self._settled.clear()
            await self._settled.wait()
        assert self._stop
        raise stopped_by(self._stop)

    def _away(self) -> EndpointError:
        return EndpointError(
            f"{host(self.endpoint)} has not answered for {PATIENCE / 60:.0f} minutes",
            value=self.note,
            fix="all that came is kept; run the same command again later",
        )

    def _halted(self, error: EndpointError) -> EndpointError:
        """Send nothing more; what is in flight may still come."""
        self._stop = self._stop or error
        self._stopping.set()
        self._settled.set()
        return stopped_by(self._stop)

    async def finish(self) -> None:
        """Send nothing more, and wait for what is in flight and for the ledger."""
        self._halted(EndpointError("stopped", fix="run the same command again to go on"))
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        await self._scribe.close()


def stopped_by(error: EndpointError) -> EndpointError:
    """The same error for another task: one object would gather the tracebacks of all."""
    new = error.__class__.__new__(error.__class__, *error.args)
    new.__dict__.update(error.__dict__)
    return new


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

    `budget` counts all that was asked for the ledger's purpose: what answers cost, and what
    requests without one may have. At its end what is in flight is waited for.
    """
    wire = Wire(endpoint, concurrency)
    per_minute = requests_per_minute, tokens_per_minute
    asker = Asker(wire, ledger, price, budget, concurrency, per_minute)
    try:
        yield asker
    finally:
        try:
            await asker.finish()
        finally:
            await wire.close()
