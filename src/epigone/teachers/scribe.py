"""Writes what happens into the ledger while requests go on."""

from __future__ import annotations

import asyncio

from epigone.errors import EndpointError
from epigone.teachers.ledger import Ledger, Row


class Scribe:
    """Writes rows into the ledger, those that gather in the meantime together."""

    def __init__(self, ledger: Ledger, *, sync: bool) -> None:
        """Write nothing yet; `sync` puts every row on the disk, not only answers."""
        self._ledger = ledger
        self._sync = sync
        self._rows: list[tuple[tuple[Row, ...], asyncio.Future[None]]] = []
        self._work: asyncio.Task[None] | None = None

    async def write(self, *rows: Row) -> None:
        """Return once the rows are in the ledger. Raises EndpointError where they cannot be."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rows.append((rows, future))
        if self._work is None or self._work.done():
            self._work = asyncio.ensure_future(self._all())
        await future

    async def _all(self) -> None:
        while self._rows:
            rows, self._rows = self._rows, []
            try:
                written = [row for together, _ in rows for row in together]
                await asyncio.to_thread(self._ledger.write, written, sync=self._sync)
            except (OSError, ValueError, RecursionError) as error:
                wrong = EndpointError(
                    "the ledger cannot be written", value=str(self._ledger.path), fix=str(error)
                )
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
