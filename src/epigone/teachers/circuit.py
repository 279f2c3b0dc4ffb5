"""An endpoint that is down is asked by one request at a time, until it is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

# So many failures in a row, of all requests together, and an endpoint counts as down.
DOWN_AFTER = 10
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
        self._failures = 0
        self._since = 0.0
        self._wait = 1.0

    def open(self) -> bool:
        """Whether the endpoint counts as down."""
        return self._failures >= DOWN_AFTER

    @asynccontextmanager
    async def passage(self) -> AsyncIterator[None]:
        """Go at once, or wait for one's turn to probe. Raises Down."""
        if not self.open():
            yield
            return
        async with self._probing:
            probing = self.open()
            if probing:
                if self._clock() - self._since > PATIENCE:
                    raise Down
                await self._sleep(self._wait)
                self._wait = min(_LONGEST_WAIT, self._wait * 2)
                yield
        if not probing:
            yield

    def failed(self, why: str) -> None:
        """No connection, no answer, or an error of the server."""
        if not self._failures:
            self._since = self._clock()
        self._failures += 1
        if self._failures == DOWN_AFTER:
            self._say(f"no answer {DOWN_AFTER} times in a row, asking slowly: {why}")

    def answered(self) -> None:
        """The endpoint is there."""
        if self.open():
            self._say("the endpoint answers again")
        self._failures, self._wait = 0, 1.0
