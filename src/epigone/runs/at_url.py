"""Steps whose store is at a URL: what they need comes from there, what they made goes there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from epigone.errors import EpigoneError, HeldElsewhere, StepFailed, UserError
from epigone.models import references
from epigone.runs.driver import Driver, newest, tell
from epigone.runs.needs import Machine, Needs, needs_of
from epigone.runs.objects import LOOK_PATIENCE, WORK_PATIENCE, Objects, StoreError
from epigone.runs.perform import Task
from epigone.runs.remote import Remote
from epigone.runs.roles import Executor
from epigone.runs.segments import Segments
from epigone.schema import Progress, Record
from epigone.study.specs import TrainSpec
from epigone.study.step import Step
from epigone.training.layout import processes_asked

# How a run tells the machines of a cluster where the steps are, and which driver asks.
STORE, DRIVER = "EPIGONE_STORE", "EPIGONE_STORE_DRIVER"
_WAITING = 512


@dataclass(frozen=True, slots=True)
class Opened:
    """A store at a URL while this process runs its study."""

    remote: Remote
    driver: Driver
    ledgers: Segments

    def environment(self) -> dict[str, str]:
        """What the machines of a cluster have to know."""
        return {STORE: self.remote.objects.url, DRIVER: str(self.driver.number)}


def mirrored(runs: str, study: str) -> Remote:
    """A study's steps below a URL, with what is known of them here; raises UserError."""
    remote = Remote(runs, study)
    remote.pull()
    tell(remote.objects, remote.root, remote.lock_file)
    return remote


@contextmanager
def opened(remote: Remote | None) -> Iterator[Opened | None]:
    """Have the store at a URL for this process, with all that is there and was left here.

    Raises HeldElsewhere while another process runs its study. A folder needs nothing.
    """
    if remote is None:
        yield None
        return
    remote.objects.patience = WORK_PATIENCE
    at = Objects(f"{remote.runs}/ledger", WORK_PATIENCE)
    ledgers = Segments(at, remote.root.parent / "ledger")
    lock = remote.lock_file
    try:
        with Driver(remote.objects, lock, also=ledgers.push) as driver:
            remote.check = driver.check_now
            tell(remote.objects, remote.root, lock)
            remote.pull()
            remote.push_left()
            remote.bring_small()
            ledgers.pull()
            try:
                yield Opened(remote, driver, ledgers)
            except BaseException:
                # What cannot go there now is here, and goes with the next run.
                at.ended.set()
                with suppress(StoreError):
                    ledgers.push()
                raise
            ledgers.push()
    finally:
        ledgers.close()
        remote.objects.ended.clear()
        remote.objects.patience = LOOK_PATIENCE


class AtUrl:
    """An executor whose steps count when they are at the URL."""

    def __init__(
        self, inner: Executor, store: Opened, stays: Callable[[Task, Needs], bool]
    ) -> None:
        """Steps for which `stays` holds are performed in this machine's folders."""
        self._inner, self._store, self._stays = inner, store, stays
        self.learns, self.growing_seconds = inner.learns, inner.growing_seconds
        self._threads = ThreadPoolExecutor(_WAITING)

    def machines(self) -> Sequence[Machine]:
        """The machines as they are now; raises HeldElsewhere once another one runs the study."""
        self._store.driver.check()
        return self._inner.machines()

    def submit(
        self, task: Task, needs: Needs, places: Sequence[int], tell: Progress
    ) -> Future[Record]:
        """Begin a step; its result is at the URL when the future has it."""
        if needs.parts > 1 and not self._stays(task, needs):
            raise _no_parts(self._store.remote.runs)
        return self._threads.submit(self._work, task, needs, places, tell)

    def end(self, task: Task) -> None:
        """End a step; training saves before."""
        self._inner.end(task)

    def stop(self) -> None:
        """End all steps; what is made and not yet at the URL goes there with the next run."""
        self._inner.stop()
        self._store.remote.objects.ended.set()
        self._threads.shutdown()

    def _work(self, task: Task, needs: Needs, places: Sequence[int], tell: Progress) -> Record:
        remote, name = self._store.remote, name_of(task.folder)
        self._store.driver.steps.add(name)
        try:
            if not self._stays(task, needs):
                return self._elsewhere(name, self._inner.submit(task, needs, places, tell))
            for folder in task.inputs.values():
                remote.bring(name_of(folder))
            record = there(remote, name, lambda: self._inner.submit(task, needs, places, tell))
            if not needs.cpus:
                self._store.ledgers.push()
            return record
        finally:
            self._store.driver.steps.discard(name)

    def _elsewhere(self, name: str, future: Future[Record]) -> Record:
        remote = self._store.remote
        try:
            record = future.result()
        except StepFailed:
            remote.bring_failure(name, newer=True)
            raise
        remote.bring(name, large=False)
        return record


def check_parts(steps: Iterable[Step], machines: Sequence[Machine], runs: str) -> None:
    """Raise UserError for steps that a cluster would spread and that have no folder in common.

    Nothing is asked and paid before that could be of no use; machines that come later may be
    smaller.
    """
    processes, count = processes_asked() or 0, cache(references.parameters)
    for step in steps:
        if isinstance(step.spec, TrainSpec) and (
            processes > 1 or needs_of(step, machines, processes, count).parts > 1
        ):
            raise _no_parts(runs)


def _no_parts(runs: str) -> UserError:
    return UserError(
        "training in several processes on Ray needs a folder that all machines share",
        value=runs,
        fix="--runs FOLDER, or --processes 1",
    )


def there(remote: Remote, name: str, submit: Callable[[], Future[Record]]) -> Record:
    """Perform a step here, and put there what comes of it."""
    try:
        submit().result()
    except StepFailed:
        remote.push_failure(name)
        raise
    return remote.push(name)


def performed(task: Task, environment: Mapping[str, str], run: Callable[[Task], Record]) -> Record:
    """Perform a step on a machine of a cluster, which need not see the folders of the driver.

    Where the store is at a URL, inputs come from there and the result goes there, once, from the
    driver's last try.
    """
    if not (url := environment.get(STORE)):
        return run(task)
    remote, number = remote_of(url), int(environment[DRIVER])

    def check() -> None:
        if newest(remote.objects)[0] != number:
            raise HeldElsewhere("another process runs the study at this URL", value=url)

    remote.check = check
    remote.objects.patience = WORK_PATIENCE
    name = name_of(task.folder)
    remote.sync(name, None)  # one that was deleted there is made again
    inputs = {role: name_of(folder) for role, folder in task.inputs.items()}
    for needed in inputs.values():
        remote.bring(needed)
    here = {role: str(remote.folder(needed)) for role, needed in inputs.items()}
    own = replace(task, folder=str(remote.folder(name)), inputs=here, lease="")

    def begin() -> Future[Record]:
        future: Future[Record] = Future()
        future.set_result(run(own))
        return future

    return there(remote, name, begin)


def sees(place: str) -> bool:
    """Whether this machine sees the study in a folder or at a URL."""
    if "://" not in place:
        return (Path(place) / "study.lock.json").exists()
    try:
        return remote_of(place).objects.about("study.lock.json") is not None
    except EpigoneError:
        return False


def remote_of(url: str) -> Remote:
    """The store of one study, by its own URL."""
    runs, _, study = url.rpartition("/")
    return Remote(runs, study)


def name_of(folder: str) -> str:
    """A step's stage and folder, of a path to it on any machine."""
    return "/".join(Path(folder).parts[-2:])
