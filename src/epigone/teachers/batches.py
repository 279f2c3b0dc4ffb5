"""Batches at an endpoint that are open: found again after a kill, looked at, collected, ended."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import IO, Any, TypeVar

from epigone.errors import EndpointError, RequestRefused
from epigone.models.endpoint import host
from epigone.models.received import Answer
from epigone.teachers.ask import Asker, stopped_by
from epigone.teachers.batch_wire import ENDED, BatchWire, Job, Outcome, Result, Unwritten
from epigone.teachers.ledger import Ledger, Row, lost
from epigone.teachers.limits import jittered
from epigone.teachers.money import Price
from epigone.teachers.scribe import Scribe
from epigone.teachers.wire import Failed

Found = TypeVar("Found")
# Seconds between looks at a batch, first and at the longest.
POLL = (5.0, 60.0)
# So often it is looked for a batch that may have been made, and for answers that it tells of.
LOOKS = 3
# Tries of a call, some five minutes of them.
ATTEMPTS = 16
_LONGEST_ASKED = 600.0
_DAY = 86_400.0
# How an endpoint says that too much waits at it.
_CROWDED = "token_limit_exceeded"
# Statuses of what is not there, or not any more.
GONE = (404, 410)
# Rows of a file that are written down together.
_TOGETHER = 500


class Crowded(Failed):
    """Nothing is wrong with the request: its batch was too much for the endpoint's queue."""


@dataclass(slots=True)
class Collection:
    """What came of a batch: outcomes by key; rows that are doubled, unknown or not readable.

    `answered` are the keys that it has answers to, those that were known already among them.
    """

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    odd: int = 0
    damaged: bool = False
    dearer: str = ""


class Batches(Asker):
    """The open batches of a ledger; every method belongs to the event loop."""

    def __init__(
        self, wire: BatchWire, ledger: Ledger, price: Price, budget: Decimal | None
    ) -> None:
        """Nothing is asked yet."""
        super().__init__(wire, ledger, price, budget, 1, (0, 0))
        self._api = wire
        # What is uploaded has to be on the disk before.
        self._scribe = Scribe(ledger, sync=True)
        # What is in open batches may cost less yet than its worst.
        self.budget.settle(Decimal(0), -ledger.in_batches)
        self.budget.take(ledger.in_batches)
        self._futures: dict[str, dict[str, asyncio.Future[Answer]]] = {}
        self._states: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Rows of the largest batch that the endpoint takes, and whether it takes one at a time.
        self.largest, self.alone = 0, False

    async def cancel_all(self) -> list[str]:
        """End the open batches, and collect what they finished; their names are returned."""
        owns = list(self._ledger.batches)
        batches = [self._ledger.batches[own] for own in owns]
        for own in owns:
            self._spawn(self.resume(own, cancel=True))
        await asyncio.gather(*self._tasks)
        if self._stop:
            raise stopped_by(self._stop)
        return [batch.name for batch in batches if batch.name]

    async def resume(self, own: str, *, cancel: bool = False) -> None:
        """Go on with a batch that an earlier run left."""
        batch = self._ledger.batches[own]
        if not batch.name:
            job = await self._found(own)
            if job is None:
                await self._drop(own, Failed("its batch was never made"))
                return
            await self._made(own, job)
        if cancel:
            try:
                await self._patiently(lambda: self._api.cancel(batch.name))
            except RequestRefused as error:
                if error.status in GONE:
                    # Nobody will ever tell what became of it.
                    await self._drop(own, error, billed=True)
                    return
                # It has ended by itself; looking at it tells.
                self._say(str(error))
        await self._watch(own, fresh=False, ending=cancel)

    async def _found(self, own: str) -> Job | None:
        """The batch that a kill or a lost connection left in doubt."""
        told = self._ledger.batches[own].told
        for look in range(LOOKS):
            if look:
                # What was asked for a moment ago may take one to be there.
                await self._sleep(POLL[0])
            after, more = "", True
            while more:
                jobs, more = await self._patiently(partial(self._api.page, after))
                for job in jobs:
                    if job.own == own or job.source == told["file"]:
                        return job
                # A clock may be wrong by a day; what is older is none of ours.
                more = more and bool(jobs) and jobs[-1].created > told["at"] - _DAY
                after = jobs[-1].name if jobs else ""
        return None

    async def _made(self, own: str, job: Job) -> None:
        await self._scribe.write(Row("batch", own, {"state": "made", "name": job.name}))

    async def _drop(self, own: str, why: Failed | RequestRefused, *, billed: bool = False) -> None:
        """A batch that never was, or is no more; it costs nothing unless it is `billed`."""
        found = Collection()
        await self._leave(own, why, found, billed=billed)
        self._resolve(own, found)

    async def _watch(self, own: str, *, fresh: bool, ending: bool = False) -> None:
        """Look at a batch until it ends, and collect it.

        A fresh one has only begun, and one that is `ending` we cancelled ourselves.
        """
        name = self._ledger.batches[own].name
        wait, longest = POLL
        first, ran, looks = not fresh, fresh, LOOKS
        while True:
            if not first:
                await self._sleep(wait)
                wait = min(longest, wait * 1.5)
            first = False
            job = await self._patiently(lambda: self._known(name))
            done = job.completed + job.failed
            self._tell(own, f"{name}: {job.status} {done:,}/{job.total:,}")
            if job.status in ENDED and not (job.lags and looks):
                break
            looks -= job.lags
            ran = ran or job.status not in (*ENDED, "cancelling")
        await self._ended(own, job, cancelled=ran and not ending and job.status == "cancelled")

    async def _known(self, name: str) -> Job:
        try:
            return await self._api.look(name)
        except RequestRefused as error:
            if error.status not in GONE:
                raise
            what = f"{host(self.endpoint)} knows no batch {name}: HTTP {error.status}"
            fix = "end it with epigone teacher cancel"
            raise EndpointError(what, value=error.value, fix=fix) from None

    async def _ended(self, own: str, job: Job, *, cancelled: bool) -> None:
        """Collect a batch; raises EndpointError for what ends all, as a `cancelled` one does."""
        rows = len(self._ledger.batches[own].places)
        why = Failed(f"the batch {job.name} is {job.status} without it")
        crowded = job.status == "failed" and any(code == _CROWDED for code, _ in job.errors)
        # A batch that is refused alone has to be smaller; other ones may only have to wait.
        if crowded and (rows > 1 or len(self._ledger.batches) > 1):
            why = Crowded(str(why))
            self.alone = True
            if len(self._ledger.batches) == 1:
                self.largest = rows // 2
        found = await self._collect(own, job, why)
        unanswered = any(not isinstance(o, Answer) for o in found.outcomes.values())
        self._resolve(own, found)
        if job.status == "failed" and not isinstance(why, Crowded):
            told = "; ".join(f"{code}: {message}" for code, message in job.errors)
            raise EndpointError(
                f"{host(self.endpoint)} refuses the batch {job.name}",
                value=self._api.told(told) or "it does not say why", fix="nothing of it is billed",
            )  # fmt: skip
        if cancelled and unanswered:
            raise EndpointError(
                f"the batch was cancelled at {host(self.endpoint)}", value=job.name,
                fix="what it finished is kept; the same command asks for the rest",
            )  # fmt: skip
        if found.dearer:
            what = f"{host(self.endpoint)} counts more tokens than a request can have"
            raise EndpointError(what, value=found.dearer)

    async def _collect(self, own: str, job: Job, why: Failed) -> Collection:
        """Write down every row of a batch's files, and that nothing came of the others."""
        found = Collection()
        for name in (job.answers, job.failures):
            if name and job.status != "failed":
                with self._scratch() as file:
                    await self._download(name, file, found)
                    results = iter(self._api.results(file))
                    while some := list(islice(results, _TOGETHER)):
                        await self._take(own, some, found)
        # Of what cannot be read, or was told of and is not there, no one knows what it cost.
        doubtful = found.damaged or job.completed > len(found.answered)
        await self._leave(own, why, found, billed=doubtful)
        self.tally.odd += found.odd
        return found

    @contextmanager
    def _scratch(self) -> Iterator[IO[bytes]]:
        """A file beside the ledger, for a while; raises EndpointError where it has no room."""
        folder = self._ledger.path.parent
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                yield file
        except (OSError, Unwritten) as error:
            why = getattr(error, "strerror", "") or str(error)
            what = "the file of a batch cannot be written"
            raise EndpointError(what, value=str(folder), fix=why) from None

    async def _download(self, name: str, file: IO[bytes], found: Collection) -> None:
        async def whole() -> None:
            file.seek(0)
            file.truncate()
            await self._api.download(name, file)
            file.seek(0)

        try:
            for _ in range(LOOKS):
                await self._patiently(whole)
                # Not a row that can be read: it may be a gateway's page.
                if any(self._api.results(file)) or not file.tell():
                    break
        except RequestRefused as error:
            if error.status not in GONE:
                raise
            # It is deleted; its answers are paid for all the same.
            found.damaged = True
            file.truncate(0)
        file.seek(0)

    async def _take(self, own: str, results: Sequence[Result | None], found: Collection) -> None:
        """Write down rows of a file; the first one of a request counts."""
        batch = self._ledger.batches[own]
        rows: list[Row] = []
        ends: list[tuple[str, Outcome, dict[str, Any], Decimal]] = []
        for result in results:
            if result is None:
                found.odd, found.damaged = found.odd + 1, True
                continue
            key, outcome = result.key, result.outcome
            if key not in batch.places or key in found.outcomes:
                # A collection that was killed had it already.
                again = key in self._ledger and key not in found.outcomes
                found.odd += not again
                if again and isinstance(outcome, Answer):
                    found.answered.add(key)
                continue
            asked = self._ledger.asked(own, key)
            row, cost = self._row(result, asked, batch.told.get("price"))
            found.outcomes[key] = outcome
            rows.append(row)
            ends.append((key, outcome, asked, cost))
        await self._scribe.write(*rows)
        for key, outcome, asked, cost in ends:
            self._settle(asked, cost)
            if isinstance(outcome, Answer) or getattr(outcome, "billed", False):
                found.answered.add(key)
            if isinstance(outcome, Answer) and cost > Decimal(asked["most"]):
                found.dearer = f"${cost} instead of at most ${asked['most']}"

    def _row(
        self, result: Result, asked: Mapping[str, Any], price: Sequence[str] | None
    ) -> tuple[Row, Decimal]:
        """A request's end as the ledger tells it, and what it cost, at the price it went for."""
        key, outcome, most = result.key, result.outcome, Decimal(asked["most"])
        if isinstance(outcome, Answer):
            own = Price(*map(Decimal, price)) if price else self._price
            cost = own.of(outcome, most)
            told = {name: asked[name] for name in ("sample", "path", "request", "batch")}
            came = {**told, "response": result.response, "cost": str(cost)}
            return Row("came", key, came), cost
        if isinstance(outcome, Failed):
            return outcome.row(key, batch=asked["batch"]), most if outcome.billed else Decimal(0)
        return Row("void", key, {"batch": asked["batch"]}), Decimal(0)

    async def _leave(
        self, own: str, why: Failed | RequestRefused, found: Collection, *, billed: bool
    ) -> None:
        """A batch is done with; nothing came of the requests that are left in it."""
        left = {key: self._ledger.asked(own, key) for key in list(self._ledger.batches[own].places)}
        why_lost = "no row of its batch is its"
        ends = [
            lost(key, why_lost, batch=own) if billed else Row("void", key, {"batch": own})
            for key in left
        ]
        await self._scribe.write(*ends, Row("batch", own, {"state": "done"}))
        for key, asked in left.items():
            self._settle(asked, Decimal(asked["most"]) if billed else Decimal(0))
            found.outcomes[key] = why

    def _settle(self, asked: Mapping[str, Any], cost: Decimal) -> None:
        if asked["for"] == self._ledger.purpose:
            self.budget.settle(Decimal(asked["most"]), cost)

    def _resolve(self, own: str, found: Collection) -> None:
        """Tell those who wait."""
        for key, future in self._futures.pop(own, {}).items():
            outcome = found.outcomes.get(key) or Failed("it was in no batch")
            if future.done():
                continue
            if isinstance(outcome, Answer):
                self.tally.came += 1
                self.tally.tokens += outcome.tokens
                self.tally.prompt_tokens += outcome.prompt_tokens
                future.set_result(outcome)
            else:
                future.set_exception(outcome)
        self._tell(own, "")
        self._settled.set()

    async def _patiently(self, call: Callable[[], Awaitable[Found]]) -> Found:
        """What a call gives, tried again while that may help. Raises RequestRefused."""
        tried, limited, since = 0, 0, 0.0
        while True:
            try:
                return await call()
            except Failed as error:
                tried += not error.limited
                limited = limited + 1 if error.limited else 0
                since = self._clock() if limited == 1 else since
                if limited:
                    self._crowded(error, limited, self._clock() - since)
                if tried == ATTEMPTS or error.after > _LONGEST_ASKED:
                    raise self._halted(
                        EndpointError(
                            f"{host(self.endpoint)} does not answer", value=str(error),
                            fix="open batches go on; run the same command again later",
                        )
                    ) from None  # fmt: skip
                grown = jittered(limited, self._random) if limited > 1 else 0.0
                await self._sleep(max(grown, self._pause(tried, error)))

    def _tell(self, own: str, what: str) -> None:
        """How a batch stands, beside the others; nothing where it is done."""
        self._states[own] = what
        self._say(", ".join(filter(None, self._states.values())))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except EndpointError as error:
            self._halted(error)
        except Exception as error:
            # A mistake in here: nobody may wait for its end.
            self._release(error)
            raise

    def _release(self, error: Exception) -> None:
        """Let nobody wait any more."""
        for futures in self._futures.values():
            for future in futures.values():
                fail(future, error)

    def _halted(self, error: EndpointError) -> EndpointError:
        told = super()._halted(error)
        self._release(told)
        return told

    async def finish(self) -> None:
        """Ask nothing more; what is open stays open at the endpoint."""
        self._halted(EndpointError("stopped", fix="run the same command again to go on"))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await super().finish()


def fail(future: asyncio.Future[Answer], error: Exception) -> None:
    """Tell one who waits that there is no answer."""
    if not future.done():
        future.set_exception(stopped_by(error) if isinstance(error, EndpointError) else error)
