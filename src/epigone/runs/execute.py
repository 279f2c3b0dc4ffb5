"""The local executor: steps one after another in a worker process of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from epigone.errors import StepFailed, UserError
from epigone.runs.perform import task_of
from epigone.runs.plan import check_amounts, learn_speed
from epigone.runs.store import Damaged, Store
from epigone.schema import Record
from epigone.study.steps import Expansion, Step

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
    expansion: Expansion, store: Store, watcher: Watcher, *, only: str | None = None
) -> Result:
    """Run every step that is not done, in order; `only` names the one stage that may run.

    A failed step blocks only its descendants. A user's mistake found by a step ends the run with
    its UserError, because every later step of the study would build on it.
    """
    result = Result()
    done = {s.hash for s in expansion.steps if _is_done(store, s)}
    todo = [s for s in expansion.steps if s.hash not in done and only in (None, s.stage)]
    broken: dict[str, Step] = {}
    for step in expansion.steps:
        if step.hash in done:
            result.outcomes[step.name] = "done"
    check_amounts(expansion, store)
    with Worker() as worker:
        for number, step in enumerate(todo, 1):
            by = next((broken[i.hash] for i in step.inputs.values() if i.hash in broken), None)
            if by is not None:
                broken[step.hash] = by
                result.outcomes[step.name] = "blocked"
                watcher.blocked(step, by)
                continue
            if any(i.hash not in done for i in step.inputs.values()):
                result.outcomes[step.name] = "left"
                continue
            watcher.started(step, number, len(todo))
            try:
                record = worker.run(step, store, watcher.progress)
            except StepFailed as error:
                broken[step.hash] = step
                result.outcomes[step.name] = "failed"
                watcher.failed(step, str(error), store.partial(step) / "log.txt")
                continue
            done.add(step.hash)
            result.outcomes[step.name] = "done"
            learn_speed(step, record.seconds)
            watcher.finished(step, record)
            if step.stage == "corpus":
                check_amounts(expansion, store)
    return result


class Worker:
    """One `epigone.runs.worker` process; it is started with the first step."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._stop(self._process)

    def run(
        self, step: Step, store: Store, progress: Callable[[Step, float, float, str], None]
    ) -> Record:
        """Perform one step; raises StepFailed, or UserError for a mistake that only work shows."""
        process = self._process or self._start()
        inputs = {role: store.folder(i) for role, i in step.inputs.items()}
        task = task_of(step, store.folder(step), inputs)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(task.to_json() + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # told below: the worker's output has ended
        for line in process.stdout:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == "progress":
                progress(step, event["done"], event["total"], event["note"])
            elif event["event"] == "finished":
                return Record.from_json(event["record"])
            elif event["user"]:
                raise _Told(event["error"])
            else:
                raise StepFailed(event["error"])
        self._process = None
        raise StepFailed(f"the worker process ended with exit code {process.wait()}")

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "epigone.runs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "true", "PYTHONUNBUFFERED": "1"},
        )
        return self._process

    @staticmethod
    def _stop(process: subprocess.Popen[str]) -> None:
        with suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()


class _Told(UserError):
    """A user's mistake that a worker has already put into one line."""

    def __init__(self, line: str) -> None:
        super().__init__(line)


def incomplete(expansion: Expansion, store: Store) -> Sequence[Step]:
    """Steps of the expansion that are not done."""
    return [s for s in expansion.steps if not _is_done(store, s)]


def _is_done(store: Store, step: Step) -> bool:
    try:
        return store.record(step) is not None
    except Damaged as error:
        raise UserError(str(error)) from None
