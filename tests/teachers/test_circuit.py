"""While an endpoint is down one request at a time asks whether it is back."""

from __future__ import annotations

import asyncio

import pytest

from epigone.teachers.circuit import DOWN_AFTER, PATIENCE, Circuit, Down


class Time:
    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def opened(time: Time, told: list[str]) -> Circuit:
    circuit = Circuit(told.append, clock=time, sleep=time.sleep)
    for i in range(DOWN_AFTER):
        assert not circuit.open()
        circuit.failed(f"key {i % 3}", "no connection")
    assert circuit.open()
    return circuit


def test_one_at_a_time_until_one_is_answered() -> None:
    time, told = Time(), list[str]()
    inside, most, probes = 0, 0, list[bool]()

    async def go() -> None:
        circuit = opened(time, told)

        async def one(i: int) -> None:
            nonlocal inside, most
            async with circuit.passage() as probing:
                inside += probing
                most = max(most, inside)
                probes.append(probing)
                await asyncio.sleep(0)
                if i == 5:
                    circuit.answered()
                elif probing:
                    circuit.failed(f"key {i}", "no connection")
                inside -= probing

        await asyncio.gather(*(one(i) for i in range(20)))

    asyncio.run(go())
    assert most == 1
    assert probes == [True] * 6 + [False] * 14
    assert time.slept == [1, 2, 4, 8, 16, 32]
    assert told[0].startswith(f"no answer {DOWN_AFTER} times in a row")
    assert told[-1] == ""


def test_after_some_time_it_is_another_runs_matter() -> None:
    time, told = Time(), list[str]()

    async def go() -> int:
        circuit = opened(time, told)
        for i in range(100):
            async with circuit.passage():
                circuit.failed(f"key {i}", "no connection")
        return 100

    with pytest.raises(Down):
        asyncio.run(go())
    assert PATIENCE < time.now < PATIENCE + 61


def test_a_few_requests_that_no_server_answers_do_not_open_it() -> None:
    circuit = Circuit(lambda _: None, clock=lambda: 0.0)
    for i in range(50):
        circuit.failed(f"key {i % 2}", "HTTP 500")
    assert not circuit.open()
    circuit.failed("another", "HTTP 500")
    assert circuit.open()
