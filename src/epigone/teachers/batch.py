"""The same requests in batches: half the price, within a day, collected by whoever comes back."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import IO

from epigone.errors import RequestRefused
from epigone.models.endpoint import Endpoint
from epigone.models.received import Answer, read
from epigone.teachers.ask import NotHad, Refused, stopped_by
from epigone.teachers.batch_wire import BatchWire, Job, line_of
from epigone.teachers.batches import Batches, Crowded, fail
from epigone.teachers.ledger import Ledger, Row, sent
from epigone.teachers.limits import TooLarge
from epigone.teachers.money import FREE, Price
from epigone.teachers.wire import Failed, Request

# What a file may hold (https://platform.openai.com/docs/guides/batch).
ROWS, BYTES = 50_000, 200_000_000
# Callers that may wait at once: some full batches of them.
CALLERS = 4 * ROWS
# Seconds without a new request after which a batch goes; callers that wait ask no more.
QUIET = 0.5
# Batches that a request goes into before it is given up for this run.
_TRIES = 4
_CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request that waits to be put into a batch."""

    key: str
    request: Request
    future: asyncio.Future[Answer]


class BatchAsker(Batches):
    """Asks one endpoint by batches; what is in an open one is waited for, and not asked again.

    A request waits until no other one comes for a moment, or a file is full. Batches that are open
    at the end stay open at the endpoint: the same command collects them.
    """

    def __init__(
        self, wire: BatchWire, ledger: Ledger, price: Price, budget: Decimal | None
    ) -> None:
        """See `batching`."""
        super().__init__(wire, ledger, price, budget)
        self.largest = ROWS
        self._queue: deque[_Waiting] = deque()
        self._arrivals = 0
        self._submitting = self._resumed = False

    async def _answer(self, key: str, request: Request) -> Answer | Refused:
        if not self._resumed:
            self._resumed = True
            for own in list(self._ledger.batches):
                self._spawn(self.resume(own))
        tried = 0
        while True:
            try:
                return await self._in_a_batch(key, request)
            except TooLarge as error:
                return Refused(0, str(error), "larger than a batch's file")
            except RequestRefused as error:
                return self._refusal(error)
            except Failed as error:
                if error.whole:
                    return self._refused(200, str(error))
                tried += not isinstance(error, Crowded)
                if tried == _TRIES:
                    raise NotHad(str(error)) from None
                self.tally.retries += 1

    async def _in_a_batch(self, key: str, request: Request) -> Answer:
        if self._stop:
            raise stopped_by(self._stop)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        # In this order: what leaves a batch meanwhile is in the ledger before.
        if own := self._ledger.batch_of(key):
            self._futures.setdefault(own, {})[key] = future
        elif row := self._ledger.get(key):
            return read(row["response"])
        else:
            self._queue.append(_Waiting(key, request, future))
            self._arrivals += 1
            if not self._submitting:
                self._submitting = True
                self._spawn(self._submit_all())
        return await future

    async def _submit_all(self) -> None:
        try:
            while self._queue:
                await self._quiet()
                # An endpoint that could not take all at once takes one after the other.
                while self.alone and self._ledger.batches:
                    await self._change()
                with self._scratch() as file:
                    if rows := await self._fill(file):
                        await self._submit(rows, file)
        finally:
            self._submitting = False

    async def _quiet(self) -> None:
        """Wait until every caller waits, or a file is full."""
        seen = -1
        while len(self._queue) < self.largest and seen != self._arrivals:
            seen = self._arrivals
            await self._sleep(QUIET)
            for _ in range(3):
                # Whoever was answered meanwhile is about to ask.
                await asyncio.sleep(0)

    async def _change(self) -> None:
        self._settled.clear()
        await self._settled.wait()
        if self._stop:
            raise stopped_by(self._stop)

    async def _fill(self, file: IO[bytes]) -> dict[str, tuple[_Waiting, Decimal]]:
        """Take from the queue what a file and the budget have room for, with what it may cost."""
        rows: dict[str, tuple[_Waiting, Decimal]] = {}
        size, path = 0, self._queue[0].request.path
        while self._queue and len(rows) < self.largest:
            waiting = self._queue[0]
            line = line_of(waiting.key, waiting.request)
            if len(line) > BYTES:
                self._queue.popleft()
                waiting.future.set_exception(TooLarge(f"has {len(line):,} bytes"))
                continue
            if waiting.request.path != path or size + len(line) > BYTES:
                break
            most = self._price.most(waiting.request.body)
            if rows and not self.budget.fits(most):
                break
            # It waits for the first one only.
            await self._room(most)
            self._queue.popleft()
            rows[waiting.key] = waiting, most
            try:
                size += file.write(line)
            except OSError:
                # Nobody may wait for them.
                self._queue.extend(waiting for waiting, _ in rows.values())
                raise
        return rows

    async def _submit(self, rows: dict[str, tuple[_Waiting, Decimal]], file: IO[bytes]) -> None:
        """Write down what goes before it does, so that no kill makes anyone send it again."""
        own = secrets.token_hex(8)
        self._futures[own] = {key: waiting.future for key, (waiting, _) in rows.items()}
        path = next(iter(rows.values()))[0].request.path
        await self._scribe.write(
            *(
                sent(
                    key, most, 0, self._ledger.purpose, batch=own, path=path,
                    sample=waiting.request.sample, request=waiting.request.body,
                )
                for key, (waiting, most) in rows.items()
            )
        )  # fmt: skip
        self._tell(own, f"{len(rows):,} requests on their way")
        try:
            name = await self._patiently(lambda: self._upload(file, own))
            if self._stop:
                # A file of which no batch is made costs nothing.
                raise stopped_by(self._stop)
            told = {
                "state": "uploaded", "file": name, "path": path, "rows": len(rows),
                "price": [str(self._price.prompt), str(self._price.answer)],
                "at": round(time.time(), 3),
            }  # fmt: skip
            await self._scribe.write(Row("batch", own, told))
            job = await self._create(own, name, path)
        except RequestRefused as error:
            await self._drop(own, error)
            raise
        await self._made(own, job)
        self._spawn(self._watch(own, fresh=True))

    async def _upload(self, file: IO[bytes], own: str) -> str:
        file.seek(0)
        # What sends it closes it.
        with os.fdopen(os.dup(file.fileno()), "rb") as again:
            return await self._api.upload(again, f"{own}.jsonl")

    async def _create(self, own: str, file: str, path: str) -> Job:
        tried = 0

        async def create() -> Job:
            nonlocal tried
            tried += 1
            # An earlier try may have come through without saying so.
            found = await self._found(own) if tried > 1 else None
            return found or await self._api.create(file, path, own)

        return await self._patiently(create)

    def _release(self, error: Exception) -> None:
        super()._release(error)
        while self._queue:
            fail(self._queue.popleft().future, error)


@asynccontextmanager
async def batching(
    endpoint: Endpoint, ledger: Ledger, *, price: Price = FREE, budget: Decimal | None = None
) -> AsyncIterator[BatchAsker]:
    """An asker like that of `ask.asking`, whose requests go in batches; `price` is that of batches.

    `budget` counts what is in open batches at its worst.
    """
    wire = BatchWire(endpoint, _CONNECTIONS)
    asker = BatchAsker(wire, ledger, price, budget)
    try:
        yield asker
    finally:
        try:
            await asker.finish()
        finally:
            await wire.close()
