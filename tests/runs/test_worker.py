from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests import warm

from epigone.errors import StepFailed, UserError
from epigone.evaluation.catalogue import known_tasks
from epigone.runs import worker as module
from epigone.runs.local import Worker
from epigone.runs.local import _lines as lines_of
from epigone.runs.perform import Task, task_of
from epigone.runs.store import LOG, Store, verify
from epigone.schema import Record
from epigone.study.specs import BenchmarkSpec, ItemsSpec, ModelSpec, StyleSpec
from epigone.study.step import Step


def items(task: str = "facts") -> Step:
    return Step("items", (task,), ItemsSpec(task=task, task_version=known_tasks().get(task, 1)))


def quiet(*_: object) -> None: ...


def run(worker: Worker, step: Step, store: Store, threads: int = 1, **more: Any) -> Record:
    inputs = {role: store.folder(i) for role, i in step.inputs.items()}
    return worker.run(task_of(step, store.folder(step), inputs), quiet, threads, **more)


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.stop()


def test_steps_side_by_side_in_one_process(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", warm.Cold)  # a worker as it is started for users
    store = Store(tmp_path)
    steps = [items("facts"), items("choices")]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda s: run(worker, s, store), steps))
    assert [r.slug for r in done] == ["facts", "choices"]
    assert all(verify(store.folder(s)) == [] for s in steps)


def test_each_step_has_its_own_number_of_threads(worker: Worker, tmp_path: Path) -> None:
    for number, task in ((3, "facts"), (1, "choices")):
        record = run(worker, items(task), Store(tmp_path), number)
        assert record.environment["threads"] == str(number)


def test_a_mistake_and_a_failure_are_told_and_the_next_step_works(
    worker: Worker, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    with pytest.raises(UserError, match="unknown benchmark"):
        run(worker, items("fact"), store)
    style = Step("style", ("x",), StyleSpec(model="m", metrics=("list",)))
    with pytest.raises(StepFailed, match="KeyError"):
        run(worker, style, store)
    # People are shown the end of it.
    log = (store.partial(style) / LOG).read_text()
    assert log.startswith("Traceback") and log.splitlines()[-1].startswith("KeyError: ")
    assert run(worker, items(), store).stage == "items"


def test_a_model_that_does_not_do_fails_its_step_and_not_the_study(
    worker: Worker, tmp_path: Path
) -> None:
    (tmp_path / "bert").mkdir()
    model = ModelSpec(kind="base", name="bert", ref=str(tmp_path / "bert"), fingerprint="x")
    spec = BenchmarkSpec(model=model, task="facts", task_version=1, label="facts")
    step = Step("benchmark", ("bert", "facts"), spec, {"items": items()})
    store = Store(tmp_path)
    run(worker, items(), store)
    with pytest.raises(StepFailed, match="bert"):
        run(worker, step, store)


def test_a_worker_that_is_killed_fails_the_step_and_another_one_starts(
    worker: Worker, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    assert run(worker, items("choices"), store).stage == "items"
    process = worker._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)  # so that the task is still in the pipe at the kill
    with ThreadPoolExecutor(1) as pool:
        failing = pool.submit(run, worker, items(), store)
        while not worker._waiting:
            pass
        process.kill()
        with pytest.raises(StepFailed, match="killed by signal 9"):
            failing.result()
    assert run(worker, items(), store).stage == "items"


def test_a_stopped_worker_starts_no_more(tmp_path: Path) -> None:
    worker = Worker()
    worker.stop()
    with pytest.raises(StepFailed, match="ended"):
        run(worker, items(), Store(tmp_path))
    assert worker._process is None


def test_a_step_that_exits_by_itself_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(*_: object) -> None:
        sys.exit(0)

    out, into = os.pipe()
    children = module._Children(module.Events(into))
    for name, act in (("said", leave), ("unsaid", lambda *_: os._exit(0))):
        monkeypatch.setattr(module, "perform", act)
        task = Task("items", "s", "h", {}, {}, {}, str(tmp_path / name))
        if (child := os.fork()) == 0:
            module._child(task, 1, None, children._events)
        children.tasks[child] = task
    while children.tasks:
        children.reap()
    os.close(into)
    with os.fdopen(out) as read:
        told = [json.loads(line) for line in read if line.strip()]
    assert {(Path(e["folder"]).name, e["event"], e["error"]) for e in told} == {
        ("said", "failed", "the step ended by SystemExit: 0"),
        ("unsaid", "failed", "the step's process ended with exit code 0"),
    }


def test_a_killed_worker_is_told_though_what_it_started_lives_on(tmp_path: Path) -> None:
    # As code of the user's own may leave a process behind that has the worker's output.
    script = "import os, time; os.fork() or time.sleep(60); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        process.kill()
        assert [*lines_of(process)] == []
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_long_events_of_many_writers_arrive_whole_though_one_is_cut_off() -> None:
    def task(number: int) -> Task:
        return Task("items", "s", "h", {}, {}, {}, str(number))

    out, into = os.pipe()
    events = module.Events(into)
    os.write(into, b'\n{"folder": "9", "record": "cut o')
    children = []
    for number in range(4):
        if (child := os.fork()) == 0:
            try:
                for _ in range(20):
                    events.tell(task(number), event="finished", record=str(number) * 20_000)
            finally:
                os._exit(0)
        children.append(child)
    os.close(into)
    lines: list[str] = []
    with os.fdopen(out) as read:
        reader = threading.Thread(target=lambda: lines.extend(read))
        reader.start()
        for child in children:
            os.waitpid(child, 0)
        reader.join()
    whole = [line for line in lines if len(line) > 20_000]
    assert len(whole) == 80
    for line in whole:
        number = line[12]
        assert line == (
            f'{{"folder": "{number}", "event": "finished", "record": "{number * 20_000}"}}\n'
        )


def test_the_end_of_the_runner_ends_the_worker(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "epigone.runs.worker"], stdin=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_what_a_worker_imports_before_it_forks_starts_no_thread_and_asks_no_gpu() -> None:
    code = """
import gc
gc.disable()
import importlib, os, torch
from epigone.study.step import STAGES

def refuse(*_, **__):
    raise SystemExit("the GPU was asked: no fork could use it")

for name in ("is_available", "device_count", "init", "_lazy_init"):
    setattr(torch.cuda, name, refuse)
for stage in STAGES.values():
    for module in stage.preload:
        importlib.import_module(module)
print(len(os.listdir("/proc/self/task")), flush=True)
os._exit(0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1"
