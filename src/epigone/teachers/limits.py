"""Limits of an endpoint: requests and tokens a minute, kept in every window of 60 seconds."""

from __future__ import annotations

import asyncio
import math
import random
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping

WINDOW = 60.0
# How much longer what went out is counted: a request may take longer to arrive than later ones.
_LATE = 1.5
# How much of a minute's limit may go out at once; endpoints limit shorter times as well.
_BURST = 1 / 30
_LONGEST_WAIT = 60.0


class TooLarge(Exception):
    """A request that no minute has room for."""


class Bucket:
    """A token bucket that lets no window of 60 seconds pass its limit.

    A bucket alone lets its burst go beside a minute's refill; what went out in the last minute is
    therefore counted as well.
    """

    def __init__(self, limit: float, now: float) -> None:
        """A full bucket."""
        self.limit = limit
        self._burst = max(limit * _BURST, 1.0)
        self._level, self._at = self._burst, now
        self._out: deque[tuple[float, float]] = deque()
        self._total = 0.0

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount`, at most the limit, may go."""
        self._pass(now)
        if math.isinf(self.limit):
            return 0.0
        # What is larger than a burst goes out of a full bucket, and leaves a debt.
        filled = (min(amount, self._burst) - self._level) / (self.limit / WINDOW)
        excess, free = self._total + amount - self.limit, 0.0
        for at, gone in self._out:
            if excess <= 0:
                break
            excess -= gone
            free = at + WINDOW + _LATE - now
        # A few microseconds more, so that rounding makes nobody wait twice.
        return max(0.0, filled, free) + 1e-5 if max(filled, free) > 1e-9 else 0.0

    def take(self, amount: float, now: float) -> None:
        """Let `amount` go, after its wait."""
        self._pass(now)
        if not math.isinf(self.limit):
            self._level -= amount
        self._out.append((now, amount))
        self._total += amount

    def change(self, limit: float) -> None:
        """Another limit from now on; what went out still counts."""
        self.limit = limit
        self._burst = max(limit * _BURST, 1.0)
        self._level = min(self._level, self._burst)

    def _pass(self, now: float) -> None:
        if now > self._at and not math.isinf(self.limit):
            self._level = min(self._burst, self._level + (now - self._at) * self.limit / WINDOW)
        self._at = now
        while self._out and self._out[0][0] + WINDOW + _LATE <= now:
            self._total -= self._out.popleft()[1]
        if not self._out:
            self._total = 0.0


class Limits:
    """Both limits of one endpoint, those it tells of included, and the times it asks to wait."""

    def __init__(
        self,
        requests: float = 0,
        tokens: float = 0,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        recent: Iterable[tuple[float, float]] = (),
    ) -> None:
        """Requests and tokens a minute; 0 for what is not limited, or not known yet.

        `recent` are seconds since requests left that another run sent, and their tokens.
        """
        self._clock, self._sleep = clock, sleep
        self._turn = asyncio.Lock()
        self._until = 0.0
        # How often in a row there were too many requests, since when, and when it was said last.
        self.refused, self._since, self._last = 0, 0.0, -math.inf
        # Without a limit they only count: one may be told later.
        self.buckets = {
            "requests": Bucket(requests or math.inf, clock()),
            "tokens": Bucket(tokens or math.inf, clock()),
        }
        for ago, amount in sorted(recent, reverse=True):
            self.buckets["requests"].take(1.0, clock() - ago)
            self.buckets["tokens"].take(amount, clock() - ago)

    async def acquire(self, tokens: float, likely: float = math.inf) -> None:
        """Wait until a request may go, as in `take`; first come, first served."""
        async with self._turn:
            while (wait := self.take(tokens, likely)) > 0:
                await self._sleep(wait)

    def take(self, tokens: float, likely: float = math.inf) -> float:
        """Seconds until a request of so many tokens may go; with 0 it has its place, and goes.

        One that at its worst is larger than a minute's limit, but not with its `likely` tokens,
        goes alone. Raises TooLarge for one that no minute has room for.
        """
        now, limit = self._clock(), self.buckets["tokens"].limit
        if min(tokens, likely) > limit:
            raise TooLarge(f"may take {tokens:,.0f} tokens, more than the {limit:,.0f} of a minute")
        amounts = {"requests": 1.0, "tokens": min(tokens, limit)}
        waits = [b.wait(amounts[name], now) for name, b in self.buckets.items()]
        wait = max([self._until - now, *waits])
        if wait > 0:
            return wait
        for name, bucket in self.buckets.items():
            bucket.take(amounts[name], now)
        return 0.0

    def pause(self, seconds: float) -> None:
        """Let nothing go for a while, as an endpoint asked."""
        self._until = max(self._until, self._clock() + seconds)

    def limited(self, left: float, after: float, draw: random.Random) -> float:
        """There were too many requests: let nothing go for longer each time that this is said.

        `left` is when the request did that was told so, `after` how many seconds the endpoint asks
        to wait. Returns for how many seconds nothing else has been said.
        """
        now = self._clock()
        # Of those that were on their way together one counts.
        if left >= self._last:
            self.refused, self._last = self.refused + 1, now
            if self.refused == 1:
                self._since = now
            else:
                self.pause(jittered(self.refused, draw))
        self.pause(after)
        return now - self._since

    def answered(self) -> None:
        """Something else was said."""
        self.refused = 0

    def learn(self, headers: Mapping[str, str]) -> None:
        """Take limits that the endpoint tells of, where they are lower than those that are known.

        The names are OpenAI's (https://platform.openai.com/docs/guides/rate-limits), which many
        servers use.
        """
        for name, bucket in self.buckets.items():
            limit = _number(headers.get(f"x-ratelimit-limit-{name}"))
            if limit is not None and 1 <= limit < bucket.limit:
                bucket.change(limit)
            left = _number(headers.get(f"x-ratelimit-remaining-{name}"))
            if left is not None and left <= 0:
                # What a minute's limit holds back is free again after a minute.
                self.pause(min(WINDOW, seconds(headers.get(f"x-ratelimit-reset-{name}", ""))))


def jittered(often: int, draw: random.Random) -> float:
    """Seconds to wait after so many failures: full jitter (Brooker 2015)."""
    return draw.uniform(0, min(_LONGEST_WAIT, 2.0 ** min(often, 99)))


def seconds(told: str) -> float:
    """Seconds of a duration as "6m0s", "1.5s" or "20ms"; 0 for what is none."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", told.strip())
    if not parts or "".join(n + u for n, u in parts) != told.strip():
        return max(0.0, _number(told) or 0.0)
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    return sum(float(n) * units[u] for n, u in parts)


def _number(told: str | None) -> float | None:
    try:
        found = float(told) if told is not None else math.nan
    except ValueError:
        return None
    return found if math.isfinite(found) else None
