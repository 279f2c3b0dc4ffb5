"""Who takes part in a run: who asks for it, who performs its steps, who is told."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from epigone.runs.needs import Machine, Needs
from epigone.runs.perform import Task
from epigone.schema import Progress, Record
from epigone.study.step import Step
from epigone.study.terms import Use

# A step that tells nothing for so many minutes is taken to hang.
PATIENCE_MINUTES = 120.0
Outcome = Literal["done", "failed", "blocked", "left"]


class Watcher(Protocol):
    """Who is told how a run goes."""

    def started(self, step: Step, number: int, of: int) -> None:
        """A step begins; it is the `number`th of the `of` steps to do."""

    def progress(self, step: Step, done: float, total: float, note: str) -> None:
        """A step has done a part of its work."""

    def finished(self, step: Step, record: Record) -> None:
        """A step is sealed, here or by another runner."""

    def failed(self, step: Step, error: str, log: Path) -> None:
        """A step failed; its output is in `log`."""

    def blocked(self, steps: Sequence[Step], by: Step) -> None:
        """Steps cannot run because `by` failed, which they need."""

    def remaining(self, done: int, of: int, seconds: float) -> None:
        """So many of the steps to do are done, and the others are expected to take so long."""


class Executor(Protocol):
    """Where steps are performed."""

    learns: bool
    # How long a step that fits no machine waits for one that may come.
    growing_seconds: float

    def machines(self) -> Sequence[Machine]:
        """The machines as they are now."""

    def submit(
        self, task: Task, needs: Needs, places: Sequence[int], tell: Progress
    ) -> Future[Record]:
        """Begin a step, each of its parts on one of the machines.

        The future raises StepFailed, UserError for a mistake that only work shows, and Stopped.
        """

    def end(self, task: Task) -> None:
        """End a step; training saves before."""

    def stop(self) -> None:
        """End all steps; training saves before."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run is to do.

    `only` names one stage. With `retry_failed` steps are tried again whose failure would come
    again; with `keep_going` a user's mistake that only work shows fails its step, not the run.
    """

    only: str | None = None
    use: Use = "research"
    retry_failed: bool = False
    keep_going: bool = False
    patience_minutes: float = PATIENCE_MINUTES


@dataclass(slots=True)
class Result:
    """What became of every step of a run."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @property
    def failed(self) -> list[str]:
        """Names of the steps that failed or were blocked."""
        return [name for name, o in self.outcomes.items() if o in ("failed", "blocked")]
