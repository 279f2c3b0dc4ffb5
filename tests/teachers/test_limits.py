"""No window of 60 seconds ever holds more than the limits, whatever is asked and however late."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epigone.teachers.limits import Bucket, Limits, TooLarge, seconds


class Time:
    """A clock that goes on by what is slept."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, wait: float) -> None:
        self.now += wait
        await asyncio.sleep(0)


def most_in_a_window(came: list[tuple[float, float]]) -> float:
    """Of any 60 seconds that end with an arrival, the sum of what arrived."""
    most, total, first = 0.0, 0.0, 0
    came = sorted(came)
    for at, amount in came:
        total += amount
        while came[first][0] <= at - 60:
            total -= came[first][1]
            first += 1
        most = max(most, total)
    return most


@settings(max_examples=100, deadline=None)
@given(
    limit=st.integers(1, 300),
    amounts=st.lists(st.floats(0.01, 1), min_size=1, max_size=80),
    pauses=st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.5, 29.0, 61.0, 200.0]), max_size=80),
    seed=st.integers(0, 99),
)
def test_tokens_of_any_size(
    limit: int, amounts: list[float], pauses: list[float], seed: int
) -> None:
    time, late = Time(), random.Random(seed)
    limits = Limits(tokens=limit, clock=time, sleep=time.sleep)
    arrived = []

    async def go() -> None:
        for share, pause in itertools.zip_longest(amounts, pauses[: len(amounts)], fillvalue=0.0):
            time.now += pause
            await limits.acquire(share * limit)
            arrived.append((time.now + late.random(), share * limit))

    asyncio.run(go())
    assert most_in_a_window(arrived) <= limit * (1 + 1e-6)


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 100, 3000])
def test_requests_go_nearly_as_fast_as_they_may(limit: int) -> None:
    time = Time()
    limits = Limits(requests=limit, clock=time, sleep=time.sleep)
    arrived = []

    async def go() -> None:
        for _ in range(3 * limit + 1):
            await limits.acquire(5)
            arrived.append((time.now, 1.0))

    asyncio.run(go())
    assert most_in_a_window(arrived) <= limit
    # Three minutes of work, and what a request may be late by.
    assert arrived[-1][0] - arrived[0][0] <= 3 * 62


def test_a_request_that_no_minute_has_room_for_is_refused() -> None:
    time = Time()
    limits = Limits(tokens=100, clock=time, sleep=time.sleep)
    with pytest.raises(TooLarge, match="more than the 100 of a minute"):
        asyncio.run(limits.acquire(101))
    asyncio.run(limits.acquire(100))


def test_headers_teach_lower_limits_and_pauses() -> None:
    time = Time()
    limits = Limits(requests=50, clock=time, sleep=time.sleep)
    limits.learn({"x-ratelimit-limit-requests": "500", "x-ratelimit-limit-tokens": "9000"})
    assert {n: b.limit for n, b in limits.buckets.items()} == {"requests": 50, "tokens": 9000}
    limits.learn({"x-ratelimit-limit-requests": "20", "x-ratelimit-limit-tokens": "many"})
    assert limits.buckets["requests"].limit == 20
    limits.learn({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"})
    before = time.now
    asyncio.run(limits.acquire(1))
    # Nothing of a minute's limit is held back for longer than a minute.
    assert time.now - before == pytest.approx(60, abs=0.1)
    limits.pause(7)
    before = time.now
    asyncio.run(limits.acquire(1))
    assert time.now - before == pytest.approx(7, abs=0.1)


@pytest.mark.parametrize(
    ("told", "want"),
    [("1s", 1), ("6m0s", 360), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("17", 17), ("", 0),
     ("soon", 0), ("-5", 0), ("1d", 86400)],
)  # fmt: skip
def test_durations(told: str, want: float) -> None:
    assert seconds(told) == pytest.approx(want)


def test_limits_that_are_learnt_count_what_went_before_them() -> None:
    time = Time()
    limits = Limits(clock=time, sleep=time.sleep)

    async def go() -> None:
        for _ in range(30):
            await limits.acquire(5)
        limits.learn({"x-ratelimit-limit-requests": "40"})
        for _ in range(20):
            await limits.acquire(5)
            arrived.append((time.now, 1.0))

    arrived = [(time.now, 1.0)] * 30
    asyncio.run(go())
    assert most_in_a_window(arrived) <= 40


def test_what_another_run_sent_counts() -> None:
    time = Time()
    recent = [(50.0, 10.0)] * 3
    limits = Limits(requests=4, tokens=100, clock=time, sleep=time.sleep, recent=recent)
    arrived = [(time.now - 50, 1.0)] * 3

    async def go() -> None:
        for _ in range(4):
            await limits.acquire(5)
            arrived.append((time.now, 1.0))

    asyncio.run(go())
    assert most_in_a_window(arrived) <= 4


@pytest.mark.parametrize("told", ["1750000000", "30d", "1e400", "nan"])
def test_a_header_makes_nobody_wait_for_years(told: str) -> None:
    time = Time()
    limits = Limits(clock=time, sleep=time.sleep)
    limits.learn({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": told})
    limits.learn({"x-ratelimit-limit-requests": "0.001"})
    before = time.now
    asyncio.run(limits.acquire(1))
    assert time.now - before <= 61


def test_first_come_first_served() -> None:
    time = Time()
    limits = Limits(requests=2, clock=time, sleep=time.sleep)
    order: list[int] = []

    async def one(i: int) -> None:
        await limits.acquire(1)
        order.append(i)

    async def go() -> None:
        await asyncio.gather(*(one(i) for i in range(6)))

    asyncio.run(go())
    assert order == list(range(6))


def test_a_lower_limit_counts_what_went_before() -> None:
    bucket = Bucket(100, 0.0)
    bucket.take(60, 0.0)
    bucket.change(50)
    wait: Any = bucket.wait(10, 1.0)
    assert wait > 59


def test_what_is_too_large_by_its_bytes_alone_goes_alone() -> None:
    time = Time()
    limits = Limits(tokens=100, clock=time, sleep=time.sleep)
    left = []

    async def go() -> None:
        for tokens, likely in ((50, 20), (250, 90), (50, 20)):
            await limits.acquire(tokens, likely)
            left.append(time.now)

    asyncio.run(go())
    assert left[1] - left[0] > 60
    assert left[2] - left[1] > 60
    with pytest.raises(TooLarge):
        asyncio.run(limits.acquire(250, 101))


def test_too_many_requests_make_all_wait_longer_each_time() -> None:
    time, draw = Time(), random.Random(0)
    limits = Limits(clock=time, sleep=time.sleep)
    longest: list[float] = []
    for _ in range(12):
        left = time.now
        # Those that are on their way together count once.
        for _ in range(32):
            limits.limited(left, 0.0, draw)
            left -= 1e-3
        asyncio.run(limits.acquire(1))
        longest.append(time.now - left)
        time.now += 0.1
    assert limits.refused == 12
    assert longest[0] < 1
    assert 10 < max(longest) <= 61
    limits.answered()
    before = time.now
    limits.limited(before, 3.0, draw)
    asyncio.run(limits.acquire(1))
    assert time.now - before == pytest.approx(3, abs=0.1)
