"""An endpoint that is down is asked by one request at a time, until it is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

# So many failures in a row, of all requests together, and an endpoint counts as down.
DOWN_AFTER = 10
# Of so many different requests at least: a few that no server can answer do not count for all.
_DIFFERENT = 3
_LONGEST_WAIT = 60.0
# After so many seconds of that it is another run's matter.
PATIENCE = 300.0


class Down(Exception):
    """An endpoint has been down for longer than anyone waits."""


class Circuit:
    """Counts failures; once it is open, one request probes, at growing intervals."""

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`say` is told when the circuit opens and closes."""
        self._say, self._clock, self._sleep = say, clock, sleep
        self._probing = asyncio.Lock()
        self._failed: list[str] = []
        self._since = 0.0
        self._wait = 1.0

    def open(self) -> bool:
        """Whether the endpoint counts as down."""
        return len(self._failed) >= DOWN_AFTER and len(set(self._failed)) >= _DIFFERENT

    @asynccontextmanager
    async def passage(self) -> AsyncIterator[bool]:
        """Go at once, or wait for one's turn to probe, which is told. Raises Down."""
        if not self.open():
            yield False
            return
        async with self._probing:
            probing = self.open()
            if probing:
                if self._clock() - self._since > PATIENCE:
                    raise Down
                await self._sleep(self._wait)
                self._wait = min(_LONGEST_WAIT, self._wait * 2)
                yield True
        if not probing:
            yield False

    def failed(self, key: str, why: str) -> None:
        """No connection, no answer, or an error of the server, to the request of this key."""
        was = self.open()
        if not self._failed:
            self._since = self._clock()
        self._failed.append(key)
        if self.open() and not was:
            self._say(f"no answer {len(self._failed)} times in a row, asking slowly: {why}")

    def answered(self) -> None:
        """The endpoint is there, whatever it said."""
        if self.open():
            self._say("")
        self._failed, self._wait = [], 1.0
