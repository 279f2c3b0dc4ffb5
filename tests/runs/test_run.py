"""The loop of a run, over an executor that does as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from epigone.errors import MachineLost, StepFailed, Stopped, UserError
from epigone.files import write_json
from epigone.runs import execute as module
from epigone.runs.execute import execute
from epigone.runs.lease import Runner
from epigone.runs.needs import Machine, Needs
from epigone.runs.perform import Task
from epigone.runs.roles import Asked, Result
from epigone.runs.store import FAILURE, RECORD, Store, outputs
from epigone.schema import Progress, Record
from epigone.study.specs import ItemsSpec
from epigone.study.step import Step
from epigone.study.steps import Expansion

End = Callable[[Task], None]


def step(name: str, *inputs: Step) -> Step:
    spec = ItemsSpec(task=name, task_version=1)
    return Step("items", (name,), spec, {i.slug: i for i in inputs})


def seal(task: Task) -> Record:
    folder = Path(task.folder)
    folder.mkdir(parents=True)
    (folder / "out.txt").write_text(task.slug)
    record = Record(
        stage=task.stage,
        slug=task.slug,
        hash=task.hash,
        identity=task.identity,
        inputs={},
        outputs=outputs(folder),
        facts={},
        started="",
        finished="",
        seconds=1.0,
        peak_bytes=1,
        environment={},
    )
    write_json(folder / RECORD, record.to_json())
    return record


class Fake:
    """Performs steps at once, or does what the next of `script`'s acts for a step says."""

    learns = False
    growing_seconds = 0.0

    def __init__(self, **script: Exception | str) -> None:
        self.script: dict[str, list[Exception | str]] = {n: [a] for n, a in script.items()}
        self.asked: list[str] = []
        self.hanging: dict[str, Future[Record]] = {}
        self.stopped = False

    def machines(self) -> Sequence[Machine]:
        return (Machine("m", Needs(2, 0, 1e11)),)

    def submit(
        self, task: Task, needs: Needs, places: Sequence[int], tell: Progress
    ) -> Future[Record]:
        self.asked.append(task.slug)
        future: Future[Record] = Future()
        acts = self.script.get(task.slug, [])
        act = acts.pop(0) if acts else "done"
        if isinstance(act, Exception):
            future.set_exception(act)
        elif act == "queued":
            threading.Timer(0.3, lambda: future.set_result(seal(task))).start()
        elif act == "hangs":
            tell(0, 0)
            self.hanging[task.folder] = future
        elif act == "stops":
            future.set_exception(Stopped("stopped by SIGTERM"))
        else:
            future.set_result(seal(task))
        return future

    def end(self, task: Task) -> None:
        self.hanging.pop(task.folder).set_exception(StepFailed("killed by signal 15"))

    def stop(self) -> None:
        self.stopped = True


class Watcher:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []

    def started(self, step: Step, number: int, of: int) -> None:
        self.told.append(("started", step.slug, f"{number}/{of}"))

    def progress(self, step: Step, done: float, total: float, note: str) -> None: ...

    def finished(self, step: Step, record: Record) -> None:
        self.told.append(("finished", step.slug))

    def failed(self, step: Step, error: str, log: Path) -> None:
        self.told.append(("failed", step.slug, error))

    def blocked(self, steps: Sequence[Step], by: Step) -> None:
        self.told += [("blocked", step.slug, by.slug) for step in steps]

    def remaining(self, done: int, of: int, seconds: float) -> None:
        assert 0 <= done <= of and seconds >= 0


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.01)


A = step("a")
B = step("b", A)
C = step("c", B)
D = step("d")


class Study:
    """A folder and the steps of a study."""

    def __init__(self, root: Path, *steps: Step) -> None:
        self.store = Store(root)
        self.expansion = Expansion(steps, (), "teacher")
        self.watcher = Watcher()

    def run(self, fake: Fake, **asked: object) -> dict[str, str]:
        with Runner(self.store.root, "s") as runner:
            return self.run_as(runner, fake, **asked)

    def run_as(self, runner: Runner, fake: Fake, **asked: object) -> dict[str, str]:
        told = Asked(**asked)  # type: ignore[arg-type]
        result = execute(self.expansion, self.store, self.watcher, fake, runner, told)
        assert fake.stopped
        return {name.split("/")[1].rpartition("-")[0]: o for name, o in result.outcomes.items()}

    def failure(self, step: Step) -> object:
        return json.loads((self.store.partial(step) / FAILURE).read_text())["error"]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path, A, B, C, D)


def test_a_failure_blocks_its_descendants_and_the_same_again_continues(study: Study) -> None:
    first = study.run(Fake(b=StepFailed("the disk is full")))
    assert first == {"a": "done", "b": "failed", "c": "blocked", "d": "done"}
    assert ("blocked", "c", "b") in study.watcher.told
    assert study.failure(B) == "the disk is full"
    again = Fake()
    assert set(study.run(again).values()) == {"done"}
    assert again.asked == ["b", "c"]
    assert study.run(Fake()) == dict.fromkeys("abcd", "done")


def test_what_failed_by_an_error_of_its_own_is_tried_again_when_told(study: Study) -> None:
    partial = study.store.partial(B)
    partial.mkdir(parents=True)
    write_json(partial / FAILURE, {"error": "ZeroDivisionError: by zero", "fault": True})
    left = Fake()
    assert study.run(left) == {"a": "done", "b": "failed", "c": "blocked", "d": "done"}
    assert "b" not in left.asked
    (told,) = (t for t in study.watcher.told if t[0] == "failed")
    assert told[2] == "ZeroDivisionError: by zero (failed before; --retry-failed tries it again)"
    assert set(study.run(Fake(), retry_failed=True).values()) == {"done"}


def test_a_users_mistake_ends_the_run_unless_told_to_keep_going(study: Study) -> None:
    with pytest.raises(UserError, match=r"^items a: no such corpus$"):
        study.run(Fake(a=UserError("no such corpus")))
    going = study.run(Fake(a=UserError("no such corpus")), keep_going=True)
    assert going == {"a": "failed", "b": "blocked", "c": "blocked", "d": "done"}


def test_a_step_that_lost_its_machine_begins_again_under_another_lease(study: Study) -> None:
    fake = Fake()
    fake.script["a"] = [MachineLost("the node died")] * 3
    leases = []
    submit = fake.submit

    def keep(task: Task, *more: object) -> Future[Record]:
        leases.append(task.lease)
        return submit(task, *more)  # type: ignore[arg-type]

    fake.submit = keep  # type: ignore[method-assign]
    assert set(study.run(fake).values()) == {"done"}
    assert fake.asked.count("a") == 4
    assert len({lease for lease in leases if "/a-" in lease}) == 4


def test_a_step_that_loses_every_machine_fails(study: Study) -> None:
    fake = Fake()
    fake.script["a"] = [MachineLost("the node died")] * 9
    assert study.run(fake)["a"] == "failed"
    assert fake.asked.count("a") == 4


def test_a_hanging_step_is_ended_and_fails(study: Study) -> None:
    fake = Fake(a="hangs")
    told = study.run(fake, patience_minutes=0.001)
    assert told == {"a": "failed", "b": "blocked", "c": "blocked", "d": "done"}
    assert study.failure(A) == "the step told nothing for 0.001 minutes and was ended"


def test_a_step_that_waits_in_a_queue_does_not_hang(study: Study) -> None:
    assert set(study.run(Fake(a="queued"), patience_minutes=0.001).values()) == {"done"}


def test_what_fits_no_machine_is_refused_before_any_work(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "needs_of", lambda *_: Needs(3, 0, 3.0, 3))
    fake = Fake()
    line = r"items a fits no machine .* 3 processes with 3 cores \(ask for fewer --processes"
    with pytest.raises(UserError, match=line):
        study.run(fake)
    assert (fake.asked, fake.stopped) == ([], True)
    growing = Fake()
    growing.growing_seconds = 0.05  # a cluster, to which nobody comes
    with pytest.raises(UserError, match=line):
        study.run(growing)


def test_a_step_stopped_from_outside_ends_the_run(study: Study) -> None:
    with pytest.raises(Stopped):
        study.run(Fake(a="stops"))
    assert not (study.store.partial(A) / FAILURE).exists()


def test_the_steps_of_another_runner_are_waited_for(study: Study) -> None:
    with Runner(study.store.root, "s") as other:
        assert other.take(A.name)
        fake = Fake()
        looks = 0

        def look(step: str, holder: Callable[[str], str] = other.holder) -> str:
            nonlocal looks
            looks += step == A.name
            if looks == 3 and study.store.record(A) is None:
                seal(Task("items", "a", A.hash, A.identity, {}, {}, str(study.store.folder(A))))
                other.done(A.name)
            return holder(step)

        with Runner(study.store.root, "s") as runner:
            runner.holder = look  # type: ignore[method-assign]
            assert set(study.run_as(runner, fake).values()) == {"done"}
    assert sorted(fake.asked) == ["b", "c", "d"]
    assert ("finished", "a") in study.watcher.told


def test_what_failed_at_another_runner_is_not_tried_here(study: Study) -> None:
    with Runner(study.store.root, "s") as other:
        assert other.take(A.name)
        looks = 0

        def look(step: str, holder: Callable[[str], str] = other.holder) -> str:
            nonlocal looks
            looks += step == A.name
            if looks == 3:
                study.store.partial(A).mkdir(parents=True)
                write_json(study.store.partial(A) / FAILURE, {"error": "it broke there"})
                other.free(A.name)
            return holder(step)

        with Runner(study.store.root, "s") as runner:
            runner.holder = look  # type: ignore[method-assign]
            told = study.run_as(runner, Fake())
    assert told == {"a": "failed", "b": "blocked", "c": "blocked", "d": "done"}
    assert ("failed", "a", "it broke there") in study.watcher.told


def test_an_old_failure_of_a_step_that_others_kept_from_being_tried_is_not_told(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "claim_of", lambda step: "endpoint/e" if step is A else "")
    study.store.partial(A).mkdir(parents=True)
    write_json(study.store.partial(A) / FAILURE, {"error": "it was away yesterday"})
    with Runner(study.store.root, "s") as other, Runner(study.store.root, "s") as runner:
        assert other.take("endpoint/e")
        threading.Timer(0.2, lambda: other.free("endpoint/e")).start()
        assert set(study.run_as(runner, Fake()).values()) == {"done"}


def test_a_step_that_was_taken_over_is_let_go(study: Study) -> None:
    fake = Fake(a="hangs")
    with Runner(study.store.root, "s") as runner:
        calls = 0

        def lost(real: Callable[[], list[str]] = runner.lost) -> list[str]:
            nonlocal calls
            calls += 1
            if calls == 2:
                taken = runner.lease(A.name)
                taken.with_name("000002").write_text("another")
            if calls == 8:
                seal(Task("items", "a", A.hash, A.identity, {}, {}, str(study.store.folder(A))))
            return real()

        runner.lost = lost  # type: ignore[method-assign]
        assert set(study.run_as(runner, fake).values()) == {"done"}
    assert fake.asked.count("a") == 1


def test_an_input_whose_file_is_gone_is_told_before_any_work(study: Study) -> None:
    study.run(Fake())
    for done in (B, C):
        folder = study.store.folder(done)
        (folder / RECORD).unlink()
        (folder / "out.txt").unlink()
        folder.rmdir()
    (study.store.folder(A) / "out.txt").unlink()
    fake = Fake()
    assert study.run(fake) == {"a": "done", "b": "failed", "c": "blocked", "d": "done"}
    assert fake.asked == []
    assert "out.txt is damaged or missing; delete the folder" in str(study.failure(B))


def test_a_failure_over_a_damaged_input_names_the_input(study: Study) -> None:
    study.run(Fake(b=StepFailed("the disk is full")))
    (study.store.folder(A) / "out.txt").write_text("x")
    study.run(Fake(b=StepFailed("ArrowInvalid: not Parquet")))
    assert f"{study.store.folder(A) / 'out.txt'} is damaged" in str(study.failure(B))


def test_only_one_stages_steps_are_done(tmp_path: Path) -> None:
    other = Step("style", ("x",), ItemsSpec(task="x", task_version=1), {"a": A})
    study = Study(tmp_path, A, other)
    assert study.run(Fake(), only="style") == {"a": "done", "x": "done"}
    assert Result().failed == []
