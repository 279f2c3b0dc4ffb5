"""The local executor: steps in worker processes of their own, side by side where they fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, Protocol

from epigone.errors import StepFailed, Stopped, UserError
from epigone.processes import cores
from epigone.runs.perform import task_of
from epigone.runs.plan import Planned, asks_endpoint, check_data, learn_speed, memory, work
from epigone.runs.store import LOG, Damaged, Store
from epigone.runs.worker import GRACE_SECONDS
from epigone.schema import Record
from epigone.study.step import Step
from epigone.study.steps import Expansion
from epigone.study.terms import Use
from epigone.teachers.money import BUDGET, LEDGERS, PURPOSE

# Steps run side by side only while they are expected to fit into this many bytes together.
_ROOM = 7_000_000_000

# Stages whose steps have the machine to themselves, the more urgent first: data that cannot be
# used must be told before any other work is done.
_ALONE = ("items", "ask", "select", "corpus", "train", "feedback")

Outcome = Literal["done", "failed", "blocked", "left"]


class Watcher(Protocol):
    """Who is told how a run goes."""

    def started(self, step: Step, number: int, of: int) -> None:
        """A step begins; it is the `number`th of the `of` steps to do."""

    def progress(self, step: Step, done: float, total: float, note: str) -> None:
        """A step has done a part of its work."""

    def finished(self, step: Step, record: Record) -> None:
        """A step is sealed."""

    def failed(self, step: Step, error: str, log: Path) -> None:
        """A step failed; its output is in `log`."""

    def blocked(self, step: Step, by: Step) -> None:
        """A step cannot run because one that it needs failed."""


@dataclass(slots=True)
class Result:
    """What became of every step of a run."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @property
    def failed(self) -> list[str]:
        """Names of the steps that failed or were blocked."""
        return [name for name, o in self.outcomes.items() if o in ("failed", "blocked")]


def execute(
    expansion: Expansion,
    store: Store,
    watcher: Watcher,
    *,
    only: str | None = None,
    use: Use = "research",
    budget: Decimal | None = None,
) -> Result:
    """Run every step that is not done; `only` names one stage, `budget` is what answers may cost.

    Corpora come first; they and all training have the machine to themselves. Other steps run side
    by side as `lanes()` says.

    A failed step blocks only its descendants. A user's mistake found by a step ends the run with
    its UserError, because every later step of the study would build on it.
    """
    run = _Run(expansion, store, watcher, only, use)
    check_data(expansion, store, use)
    count, threads = lanes()
    worker = Worker(
        {
            LEDGERS: str(store.root.parent / "ledger"),
            PURPOSE: store.root.name,
            BUDGET: "" if budget is None else str(budget),
        }
    )
    with ThreadPoolExecutor(count) as pool:
        busy: dict[Future[Record], Step] = {}
        try:
            while True:
                while len(busy) < count and (step := run.next([*busy.values()])):
                    watcher.started(step, *run.count())
                    width = threads * count if step.stage in _ALONE else threads
                    busy[pool.submit(worker.run, step, store, watcher.progress, width)] = step
                if not busy:
                    break
                for future in wait(busy, return_when=FIRST_COMPLETED).done:
                    run.ended(busy.pop(future), future)
        finally:
            worker.stop()
    run.close()
    return run.result


def lanes() -> tuple[int, int]:
    """How many steps other than training run side by side, and the threads of each.

    Two on a CPU: small products use two cores better as two processes than as two threads
    (docs/decisions/0005). One where there is a GPU, which a step then has to itself.
    """
    count = 1 if cores() < 2 or Path("/dev/nvidiactl").exists() else 2
    return count, max(1, cores() // count)


def expected(planned: Sequence[Planned]) -> float:
    """Seconds until all is done: what works alone one after another, the rest by the lanes."""
    alone = sum(p.seconds for p in planned if p.step.stage in _ALONE)
    rest = [p.seconds for p in planned if p.step.stage not in _ALONE]
    return alone + max(sum(rest) / lanes()[0], max(rest, default=0.0))


class _Run:
    """Which steps are done, running, broken; what may run next."""

    def __init__(
        self, expansion: Expansion, store: Store, watcher: Watcher, only: str | None, use: Use
    ) -> None:
        self._expansion, self._store, self._watcher = expansion, store, watcher
        self._use: Use = use
        self._done = {s.name for s in expansion.steps if _is_done(store, s)}
        asked = [s for s in expansion.steps if only in (None, s.stage)]
        # What must not be in a corpus is no stage that anybody asks for by itself.
        needed = {i.name for s in asked for i in s.inputs.values() if i.stage == "items"}
        self._left = [
            s
            for s in expansion.steps
            if s.name not in self._done and (s in asked or s.name in needed)
        ]
        self._of, self._number = len(self._left), 0
        self._broken: dict[str, Step] = {}
        self.result = Result({s.name: "done" for s in expansion.steps if s.name in self._done})

    def count(self) -> tuple[int, int]:
        """The number of the step that begins now, and how many there are."""
        self._number += 1
        return self._number, self._of

    def next(self, running: Sequence[Step]) -> Step | None:
        """The longest step that may begin beside the running ones; it leaves the list."""
        ready = [s for s in self._left if all(i.name in self._done for i in s.inputs.values())]
        for stage in _ALONE:
            # The lanes run dry for such a step that is ready, and stay so while it works.
            if running and any(s.stage == stage for s in (*ready, *running)):
                return None
        for stage in _ALONE:
            ready = [s for s in ready if s.stage == stage] or ready
        room = _ROOM - sum(memory(s) for s in running)
        # A step too large for any company still runs, alone.
        fit = [s for s in ready if not running or memory(s) <= room]
        # An endpoint's limits and its ledger are those of one process.
        if any(map(asks_endpoint, running)):
            fit = [s for s in fit if not asks_endpoint(s)]
        if not fit:
            return None
        step = max(fit, key=work)
        self._left.remove(step)
        return step

    def ended(self, step: Step, future: Future[Record]) -> None:
        """Take a step's result; a UserError passes through."""
        try:
            record = future.result()
        except StepFailed as error:
            self._fail(step, str(error))
            return
        self._done.add(step.name)
        self.result.outcomes[step.name] = "done"
        # How long an endpoint takes says nothing of this machine.
        if not asks_endpoint(step):
            learn_speed(step, record.seconds)
        self._watcher.finished(step, record)
        if step.stage == "corpus":
            check_data(self._expansion, self._store, self._use)

    def _fail(self, step: Step, error: str) -> None:
        self._broken[step.name] = step
        self.result.outcomes[step.name] = "failed"
        self._watcher.failed(step, error, self._store.partial(step) / LOG)
        for other in list(self._left):
            by = next(
                (self._broken[i.name] for i in other.inputs.values() if i.name in self._broken),
                None,
            )
            if by is not None:
                self._broken[other.name] = by
                self._left.remove(other)
                self.result.outcomes[other.name] = "blocked"
                self._watcher.blocked(other, by)

    def close(self) -> None:
        """Name what could not run because its inputs were not asked for."""
        for step in self._left:
            self.result.outcomes[step.name] = "left"


class Worker:
    """The `epigone.runs.worker` process; started with the first step, it serves every lane."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Start nothing yet; steps see `environment` beside this process's own."""
        self._environment = environment or {}
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False
        self._lock = threading.Lock()
        # Who waits for the events of which folder's task.
        self._waiting: dict[str, SimpleQueue[dict[str, Any]]] = {}

    def run(
        self,
        step: Step,
        store: Store,
        progress: Callable[[Step, float, float, str], None],
        threads: int,
    ) -> Record:
        """Perform one step; raises StepFailed, or UserError for a mistake that only work shows.

        Raises Stopped where the step's process was asked to end by somebody else.
        """
        inputs = {role: store.folder(i) for role, i in step.inputs.items()}
        task = task_of(step, store.folder(step), inputs)
        events: SimpleQueue[dict[str, Any]] = SimpleQueue()
        with self._lock:
            if self._stopped:
                raise StepFailed("the run has ended")
            process = self._process or self._start()
            self._waiting[task.folder] = events
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # told below: the worker's output has ended
                process.stdin.write(f"{threads} {task.to_json()}\n")
                process.stdin.flush()
        while (event := events.get())["event"] == "progress":
            progress(step, event["done"], event["total"], event["note"])
        if event["event"] == "finished":
            return Record.from_json(event["record"])
        if event["event"] == "stopped":
            raise Stopped(event["error"])
        if event["user"]:
            raise _Told(event["error"])
        raise StepFailed(event["error"])

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "epigone.runs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # A library that starts threads when it is imported must find one to be enough.
            env={
                **os.environ,
                **self._environment,
                "OMP_NUM_THREADS": "1",
                "TOKENIZERS_PARALLELISM": "true",
            },
            # An interrupt at the terminal is the runner's to act on.
            start_new_session=True,
        )
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()
        return self._process

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                event: dict[str, Any] = json.loads(line)
            except ValueError:
                continue  # empty, or cut off by a kill
            # A process may have told how its step ended before it ended badly itself.
            if (waiting := self._waiting.get(event["folder"])) is not None:
                if event["event"] != "progress":
                    del self._waiting[event["folder"]]
                waiting.put(event)
        code = process.wait()
        error = f"the worker process ended with exit code {code}"
        with self._lock:
            if self._process is process:
                self._process = None
            for waiting in self._waiting.values():
                waiting.put({"event": "failed", "error": error, "user": False})
            self._waiting.clear()

    def stop(self) -> None:
        """End the process, and with it the steps that it works on; training is saved before."""
        with self._lock:
            self._stopped, process = True, self._process
        if process is None:
            return
        with suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        try:
            process.wait(timeout=GRACE_SECONDS + 5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Told(UserError):
    """A user's mistake that a worker has already put into one line."""

    def __init__(self, line: str) -> None:
        super().__init__(line)


def _is_done(store: Store, step: Step) -> bool:
    try:
        return store.record(step) is not None
    except Damaged as error:
        raise UserError(str(error)) from None
