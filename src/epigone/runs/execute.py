"""A run: which step begins when, what became of it, and whose it is."""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epigone.errors import MachineLost, StepFailed, Stopped, UserError
from epigone.files import write_json
from epigone.models import references
from epigone.runs.lease import Runner
from epigone.runs.needs import Machine, Needs, needs_of
from epigone.runs.objects import StoreError
from epigone.runs.perform import Task, task_of
from epigone.runs.plan import asks_endpoint, check_data, expectation, learn_speed
from epigone.runs.remaining import Remaining
from epigone.runs.roles import Asked, Executor, Result, Watcher
from epigone.runs.schedule import Schedule, fit
from epigone.runs.store import FAILURE, LOG, Damaged, Store, missing, remake, verify
from epigone.schema import Record
from epigone.study.specs import asked_model
from epigone.study.step import Step
from epigone.study.steps import Expansion
from epigone.training.layout import processes_asked

# How often a run looks at leases, at steps of other runners, and at what hangs.
_LOOK_SECONDS = 1.0
# How often a step may lose its machine in one run.
_AGAIN = 3


def execute(
    expansion: Expansion,
    store: Store,
    watcher: Watcher,
    executor: Executor,
    runner: Runner,
    asked: Asked,
) -> Result:
    """Run every step that is not done and that no other runner works on.

    A failed step blocks only its descendants. A user's mistake found by a step ends the run with
    its UserError, because every later step of the study would build on it.
    """
    try:
        check_data(expansion, store, asked.use)
        run = _Run(expansion, store, watcher, executor, runner, asked)
        run.work()
    finally:
        executor.stop()
    return run.result


def claim_of(step: Step) -> str:
    """What only one step at a time may use: an endpoint, whose limits count for all who ask it."""
    model = asked_model(step.spec)
    if model is None:
        return ""
    url = str(references.parse(model.ref).value).partition("#")[0]
    return f"endpoint/{hashlib.sha256(url.encode()).hexdigest()[:12]}"


@dataclass(slots=True)
class _Working:
    """A step that is being performed here."""

    step: Step
    task: Task
    needs: Needs
    places: Sequence[int]
    heard: float
    # Why this run has asked it to end.
    ended: str = ""


class _Run:
    """The loop of a run, and what it knows."""

    def __init__(
        self,
        expansion: Expansion,
        store: Store,
        watcher: Watcher,
        executor: Executor,
        runner: Runner,
        asked: Asked,
    ) -> None:
        self._expansion, self._store, self._watcher = expansion, store, watcher
        self._executor, self._runner, self._asked = executor, runner, asked
        steps = expansion.steps
        done = {s.name for s in steps if _record(store, s) is not None}
        wanted = [s for s in steps if asked.only in (None, s.stage)]
        # What must not be in a corpus is no stage that anybody asks for by itself.
        needed = {i.name for s in wanted for i in s.inputs.values() if i.stage == "items"}
        pace = expectation()
        self._schedule = Schedule(
            steps,
            done=done,
            asked=needed.union(s.name for s in wanted),
            seconds=pace,
            needs=self._needs,
            claims=claim_of,
        )
        # Of one look at the machines, which come and go; what steps need depends on them.
        self._machines: Sequence[Machine] = ()
        self._needed: dict[str, Needs] = {}
        self._stuck_since: float | None = None
        self._remaining = Remaining({s.name: pace(s) for s in self._schedule.left})
        self._numbers: dict[str, int] = {}
        self._of = len(self._remaining)
        self._busy: dict[Future[Record], _Working] = {}
        # Ready steps that another runner works on, and how they had failed before that.
        self._elsewhere: dict[str, tuple[Step, Mapping[str, Any] | None]] = {}
        self._lost: Counter[str] = Counter()
        self.result = Result({s.name: "done" for s in steps if s.name in done})

    def work(self) -> None:
        """Until nothing is left that can be done."""
        if not self._asked.retry_failed:
            self._leave_faults()
        self._look_at_machines()
        if not self._executor.growing_seconds:
            self._refuse_what_fits_nowhere(self._schedule.left)
        self._tell_remaining()
        while True:
            self._begin()
            if not self._busy and not self._schedule.ready:
                break
            self._see_whether_stuck()
            if self._busy:
                ended = wait(self._busy, _LOOK_SECONDS, FIRST_COMPLETED).done
                for future in ended:
                    self._ended(future)
            else:
                time.sleep(_LOOK_SECONDS)
            self._look_at_own()
            self._look_elsewhere()
        for step in self._schedule.left:
            self.result.outcomes[step.name] = "left"  # its inputs were not asked for

    def _look_at_machines(self) -> None:
        machines = tuple(self._executor.machines())
        if machines != self._machines:
            self._machines, self._needed = machines, {}

    def _needs(self, step: Step) -> Needs:
        if step.name not in self._needed:
            self._needed[step.name] = needs_of(step, self._machines, processes_asked() or 0)
        return self._needed[step.name]

    def _see_whether_stuck(self) -> None:
        """Raises UserError where nothing works and what is ready fits no machine that is free."""
        fits = self._busy or any(s.name in self._elsewhere for s in self._schedule.ready)
        if fits or not any(m.has.cpus for m in self._machines):
            self._stuck_since = None
            return
        now = time.monotonic()
        self._stuck_since = self._stuck_since or now
        if now - self._stuck_since >= self._executor.growing_seconds:
            self._refuse_what_fits_nowhere(self._schedule.ready)

    def _refuse_what_fits_nowhere(self, steps: Iterable[Step]) -> None:
        empty = [m.has for m in self._machines]
        known: set[Needs] = set()
        for step in steps:
            needs = self._needs(step)
            if needs in known or fit(needs, empty) is not None:
                known.add(needs)
                continue
            asked = f"{needs.parts} processes with {needs.cpus} cores"
            raise UserError(
                f"{step.stage} {step.slug} fits no machine that there is",
                value=f"{asked} and {needs.gpus} GPUs" if needs.gpus else asked,
                fix="ask for fewer --processes, or work on more machines",
            )

    def _leave_faults(self) -> None:
        for step in self._schedule.left:
            failure = self._store.failure(step)
            if failure and failure.get("fault") and step.name not in self.result.outcomes:
                self._schedule.leave(step)
                error = f"{failure['error']} (failed before; --retry-failed tries it again)"
                self._fail(step, error, told=True)

    def _begin(self) -> None:
        """Begin all that fits."""
        while True:
            self._look_at_machines()
            free = [m.has for m in self._machines]
            for w in self._busy.values():
                for at in w.places:
                    if at < len(free):  # a machine may have left meanwhile
                        free[at] = free[at].less(w.needs.part())
            running = [w.step for w in self._busy.values()]
            whole = [m.has for m in self._machines]
            placed = self._schedule.place(free, running, self._elsewhere, whole)
            if placed is None:
                return
            step, places = placed
            if self._take(step):
                self._schedule.begin(step)
                self._start(step, places)

    def _take(self, step: Step) -> bool:
        """Have a step for this runner; one that another has, or has done, is looked at later."""
        claim = claim_of(step)
        failure = self._store.failure(step)
        if not self._runner.take(step.name):
            self._elsewhere[step.name] = step, failure
            return False
        if claim and not self._runner.take(claim):
            self._runner.free(step.name)
            self._elsewhere[step.name] = step, failure
            return False
        # It may have been done since it was last looked at.
        if (record := _record(self._store, step)) is not None:
            self._let_go(step, done=True)
            self._schedule.begin(step)
            self._done(step, record)
            return False
        return True

    def _let_go(self, step: Step, *, done: bool = False) -> None:
        if claim := claim_of(step):
            self._runner.free(claim)
        (self._runner.done if done else self._runner.free)(step.name)

    def _start(self, step: Step, places: Sequence[int]) -> None:
        number = self._numbers.setdefault(step.name, len(self._numbers) + 1)
        self._watcher.started(step, number, self._of)
        folders = {role: self._store.folder(i) for role, i in step.inputs.items()}
        for role, folder in folders.items():
            lost = _lost(folder, _record(self._store, step.inputs[role]))
            if lost and not self._store.mirror:
                self._fail(step, lost)
                self._let_go(step)
                return
        lease = str(self._runner.lease(step.name))
        task = task_of(step, self._store.folder(step), folders, lease)
        # What waits in a cluster's queue tells nothing, and does not hang.
        working = _Working(step, task, self._needs(step), places, math.inf)

        def tell(done: float, total: float, note: str = "") -> None:
            working.heard = time.monotonic()
            self._watcher.progress(step, done, total, note)

        self._busy[self._executor.submit(task, working.needs, places, tell)] = working

    def _ended(self, future: Future[Record]) -> None:
        """Take a step's result; a UserError passes through."""
        working = self._busy.pop(future)
        step = working.step
        try:
            record = future.result()
        except (StepFailed, Stopped, UserError) as error:
            if step.name in self._runner.lost():
                self._let_go(step)
                self._schedule.give_back(step)
                self._elsewhere[step.name] = step, self._store.failure(step)
                return
            if isinstance(error, MachineLost) and not working.ended and self._again(step):
                return
            if isinstance(error, Stopped) and not working.ended:
                raise
            if isinstance(error, StoreError):
                raise  # of the place where all steps lie
            if isinstance(error, UserError) and not self._asked.keep_going:
                raise UserError(f"{step.stage} {step.slug}: {error}") from error
            self._fail(step, working.ended or str(error))
            self._let_go(step)
            return
        self._let_go(step, done=True)
        # How long an endpoint takes says nothing of this machine.
        if not asks_endpoint(step):
            self._remaining.learn(step, record.seconds)
            if self._executor.learns:
                learn_speed(step, record.seconds)
        self._done(step, record)

    def _again(self, step: Step) -> bool:
        """Begin a step again that lost its machine, under a new lease; False: that was too often.

        What may live on of its process sees that the lease is no longer its own.
        """
        self._lost[step.name] += 1
        if self._lost[step.name] > _AGAIN:
            return False
        self._let_go(step)
        self._schedule.give_back(step)
        return True

    def _done(self, step: Step, record: Record) -> None:
        self.result.outcomes[step.name] = "done"
        self._schedule.finish(step)
        self._elsewhere.pop(step.name, None)
        self._watcher.finished(step, record)
        self._remaining.settle(step)
        self._tell_remaining()
        if step.stage == "corpus":
            check_data(self._expansion, self._store, self._asked.use)

    def _tell_remaining(self) -> None:
        steps = (*self._schedule.left, *(w.step for w in self._busy.values()))
        left = self._remaining.seconds(self._machines, steps, self._needs)
        self._watcher.remaining(self._of - len(self._remaining), self._of, left)

    def _fail(self, step: Step, error: str, told: bool = False) -> None:
        self.result.outcomes[step.name] = "failed"
        partial = self._store.partial(step)
        if not told:
            damaged = self._damaged_input(step)
            error = damaged or error
            if damaged or not (partial / FAILURE).exists():
                with suppress(OSError):  # on a full disk the run still tells it
                    write_json(partial / FAILURE, {"error": error, "fault": False})
        self._watcher.failed(step, error, partial / LOG)
        if blocked := self._schedule.drop(step):
            for other in blocked:
                self.result.outcomes[other.name] = "blocked"
                self._remaining.settle(other)
            self._watcher.blocked(blocked, step)
        self._remaining.settle(step)
        self._tell_remaining()

    def _damaged_input(self, step: Step) -> str:
        """The line for an input that is not what its record says: then its step is to blame."""
        for needed in () if self._store.mirror else step.inputs.values():
            folder = self._store.folder(needed)
            with suppress(OSError, Damaged):
                if wrong := verify(folder):
                    return remake(folder, wrong[0])
        return ""

    def _look_at_own(self) -> None:
        """End what hangs, and what another runner has taken over."""
        lost = self._runner.lost()
        limit = 60 * self._asked.patience_minutes
        for working in self._busy.values():
            if working.ended:
                continue
            if working.step.name in lost:
                working.ended = "another runner has taken the step over"
            elif time.monotonic() - working.heard > limit:
                minutes = self._asked.patience_minutes
                working.ended = f"the step told nothing for {minutes:g} minutes and was ended"
            else:
                continue
            self._executor.end(working.task)

    def _look_elsewhere(self) -> None:
        """See what became of the steps that other runners worked on."""
        for name, (step, before) in [*self._elsewhere.items()]:
            if (record := _record(self._store, step)) is not None:
                self._schedule.begin(step)
                self._done(step, record)
                continue
            names = filter(None, (name, claim_of(step)))
            holders = [h for h in map(self._runner.holder, names) if h]
            if any(map(self._runner.lives, holders)):
                continue
            del self._elsewhere[name]
            failure = self._store.failure(step)
            if failure and failure != before and not holders and _record(self._store, step) is None:
                self._schedule.begin(step)
                self._fail(step, str(failure.get("error", "")), told=True)


def _record(store: Store, step: Step) -> Record | None:
    try:
        return store.record(step)
    except Damaged as error:
        raise UserError(str(error)) from None


def _lost(folder: Path, record: Record | None) -> str:
    """The line for a file of an input that is not there any more, or was cut."""
    gone = missing(folder, record) if record else []
    return remake(folder, gone[0]) if gone else ""
