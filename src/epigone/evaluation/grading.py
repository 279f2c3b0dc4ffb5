"""Programs that models wrote, put to their tests."""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from epigone.evaluation.sandbox import LIMITS, Gone, Limits, Process, probe
from epigone.schema import Progress, silent

Status = Literal["passed", "failed", "error", "timeout", "ended", "flood"]
_REASONS: dict[str, Status] = {
    "it ended": "ended",
    "it took too long": "timeout",
    "its answer is too long": "flood",
}
# Bytes of what a program says of itself before it is tested.
_READY = 1 << 16
_OUT_OF_TURN = "it speaks out of turn"


@dataclass(frozen=True, slots=True)
class Problem:
    """A program and its test.

    The test is trusted. It runs in a process of its own, behind `setup` (the prompt, for what it
    defines beside the function), and calls the program's function `entry`, or without one any
    function of the program that it names. Only plain data passes between the two, so that no
    program can answer for the test.
    """

    program: str
    test: str
    entry: str = ""
    setup: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a program: `detail` is one short line, of hostile text."""

    status: Status
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether every assertion of the test held."""
        return self.status == "passed"


def grade(
    problems: Sequence[Problem],
    *,
    limits: Limits = LIMITS,
    unsafe: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
) -> list[Verdict]:
    """Run each program against its test, each in a sandbox of its own.

    `unsafe` runs them as ordinary processes, which may read, write and send what you may. Raises
    SandboxError before anything is run where the machine cannot isolate them.
    """
    if not unsafe:
        probe()
    # One more than cores: starting a sandbox is waiting, too.
    count = min(len(problems), workers or (os.cpu_count() or 1) + 1)
    if not count:
        return []
    graders: queue.SimpleQueue[_Grader] = queue.SimpleQueue()
    made = [_Grader(limits, unsafe) for _ in range(count)]
    for grader in made:
        graders.put(grader)
    finished = 0
    lock = threading.Lock()

    def one(problem: Problem) -> Verdict:
        nonlocal finished
        grader = graders.get()
        try:
            return grader.grade(problem)
        finally:
            graders.put(grader)
            with lock:
                finished += 1
                progress(finished, len(problems))

    try:
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(one, problems))
    finally:
        for grader in made:
            grader.end()


class _Grader:
    """A process that runs tests, and beside it for each test one that runs the program."""

    def __init__(self, limits: Limits, unsafe: bool) -> None:
        self._limits = limits
        self._unsafe = unsafe
        self._tests: Process | None = None

    def grade(self, problem: Problem) -> Verdict:
        deadline = time.monotonic() + self._limits.wall_seconds
        with Process("candidate", unsafe=self._unsafe, limits=self._limits) as program:
            try:
                program.send(
                    json.dumps([{"dict": [*map(list, self._limits.settings().items())]},
                                problem.program]),
                    deadline,
                )  # fmt: skip
                told = program.receive(deadline)
                # It is read in Epigone's own process, where nothing limits what it unfolds to.
                names = _names(json.loads(told)) if len(told) <= _READY else _OUT_OF_TURN
            except Gone as gone:
                return Verdict(_REASONS[str(gone)])
            except (ValueError, RecursionError):
                return Verdict("error", _OUT_OF_TURN)
            if isinstance(names, str):
                return Verdict("error", names)
            if self._tests is None:
                self._tests = Process("grader", unsafe=self._unsafe, limits=self._limits)
                # It lives for many tests, whose time adds up.
                settings = {k: v for k, v in self._limits.settings().items() if k != "RLIMIT_CPU"}
                self._tests.send(json.dumps({"dict": [*map(list, settings.items())]}), deadline)
            try:
                return self._relay(problem, names, self._tests, program, deadline)
            except Gone as gone:
                # The test itself hangs or died of what it was told: another process for the next.
                self.end()
                return Verdict(_REASONS[str(gone)])

    def end(self) -> None:
        if self._tests is not None:
            self._tests.end()
            self._tests = None

    def _relay(
        self, problem: Problem, names: list[str], tests: Process, program: Process, deadline: float
    ) -> Verdict:
        """Carry calls and answers to and fro until the verdict; raises Gone for the tests."""
        tests.send(json.dumps([problem.setup, names, problem.test, problem.entry]), deadline)
        gone: Status | None = None
        while True:
            # The test has a little more time than the program: to say what it makes of its end.
            line = tests.receive(deadline + 2)
            ((kind, held),) = json.loads(line)["dict"]
            if kind == "verdict":
                return Verdict(gone or held[0], "" if gone else _line(held[1]))
            try:
                if gone is not None:
                    raise Gone
                program.send(json.dumps(held), deadline)
                answer = program.receive(deadline)
            except Gone as reason:
                gone = gone or _REASONS[str(reason)]
                answer = '{"dict": [["gone", true]]}'
            tests.send(answer, deadline + 2)


def _names(told: object) -> list[str] | str:
    """The functions of a program that has started, or why it did not start."""
    match told:
        case {"dict": [["ready", [*names]]]}:
            return [n for n in names if isinstance(n, str)]
        case {"dict": [["raised", {"dict": [*_, ["name", str(name)], ["text", str(text)]]}]]}:
            return _line(f"{name}: {text}"[:200])
    return _OUT_OF_TURN


def _line(text: str) -> str:
    """Hostile text without what breaks a line, a terminal, or UTF-8."""
    return "".join(c if c.isprintable() else " " for c in text)
