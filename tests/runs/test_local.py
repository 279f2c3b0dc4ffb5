"""What steps need of a machine, and how the local executor gives it to them."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from epigone.runs import local, worker
from epigone.runs.execute import claim_of
from epigone.runs.local import Local
from epigone.runs.machine import Here, gpu_names
from epigone.runs.needs import Machine, Needs, needs_of
from epigone.runs.perform import Task
from epigone.runs.plan import memory
from epigone.runs.resolve import World
from epigone.runs.schedule import fit
from epigone.schema import Progress, Record, silent
from epigone.study.file import parse
from epigone.study.step import Step
from epigone.study.steps import expand

TEXT = """\
name: tiny
teacher: {name: t}
bases: [smollm2-135m-instruct]
corpora:
  talk: {kind: broad, from: [sharegpt-v3-part]}
amounts: {talk: [8k]}
evaluate:
  benchmarks: [facts]
  style: {n: 32}
  judge: {endpoint: {url: "http://127.0.0.1:9/v1", model: j}}
"""
LAPTOP = Machine("laptop", Needs(2, 0, 20e9))
SERVER = Machine("server", Needs(64, 8, 500e9), 80e9)


@pytest.fixture(scope="module")
def steps() -> dict[str, Step]:
    """One step of each stage, of a student where a model has a part in it."""
    expansion = expand(parse(TEXT, Path("study.yaml")), World(online=False))
    return {s.stage: s for s in expansion.steps}


def test_on_a_laptop_training_has_all_cores_and_two_others_share_them(
    steps: dict[str, Step],
) -> None:
    for stage in ("train", "corpus"):
        assert needs_of(steps[stage], [LAPTOP]).cpus == 2
    for stage in ("generate", "benchmark", "style"):
        assert needs_of(steps[stage], [LAPTOP]).cpus == 1
    assert all(needs_of(s, [LAPTOP]).gpus == 0 for s in steps.values())


def test_on_a_server_each_step_that_loads_a_model_has_a_gpu(steps: dict[str, Step]) -> None:
    for stage in ("train", "generate", "benchmark"):
        assert needs_of(steps[stage], [SERVER]).gpus == 1
        assert needs_of(steps[stage], [SERVER]).cpus == 8
    for stage in ("corpus", "style", "items"):
        assert needs_of(steps[stage], [SERVER]).gpus == 0


def test_a_base_too_large_for_one_gpu_is_trained_on_as_many_as_hold_it(
    steps: dict[str, Step],
) -> None:
    train = steps["train"]
    small = replace(SERVER, gpu_bytes=memory(train) / 0.9 / 3)
    assert (needs_of(train, [small]).gpus, needs_of(train, [small]).parts) == (4, 4)
    tiny = replace(SERVER, gpu_bytes=memory(train) / 1000)
    assert needs_of(train, [tiny]).gpus == 8  # no more than there are
    assert needs_of(train, [SERVER], processes=2).gpus == 2
    assert needs_of(train, [LAPTOP], processes=2).parts == 2


def test_what_asks_an_endpoint_takes_no_core_and_claims_the_endpoint(
    steps: dict[str, Step],
) -> None:
    judge = steps["judge"]
    assert needs_of(judge, [LAPTOP]).cpus == 0
    assert claim_of(judge).startswith("endpoint/")
    assert "127.0.0.1" not in claim_of(judge)
    assert claim_of(steps["train"]) == ""


def test_the_smallest_machine_decides_the_number_of_threads(steps: dict[str, Step]) -> None:
    large = Machine("large", Needs(32, 0, 100e9))
    assert needs_of(steps["train"], [LAPTOP, large]).cpus == 2
    assert needs_of(steps["train"], [large]).cpus == 8
    gone = Machine("gone", Needs(0, 0, 0.0))
    assert needs_of(steps["train"], [large, gone]).cpus == 8


def test_a_step_larger_than_the_machine_still_fits_it_alone(steps: dict[str, Step]) -> None:
    poor = Machine("poor", Needs(1, 0, 1e6))
    for step in steps.values():
        assert step.stage == "judge" or needs_of(step, [poor]).within(poor.has)


@pytest.mark.parametrize(
    "machines",
    [
        [replace(SERVER, has=Needs(32, 4, 32e9)), replace(SERVER, has=Needs(32, 4, 256e9))],
        [replace(SERVER, has=Needs(64, 8, 64e9)), Machine("cpu", Needs(64, 0, 512e9))],
        [Machine("odd", Needs(5, 0, 7e5)), Machine("even", Needs(2, 0, 3e5))],
    ],
)
def test_the_parts_of_a_training_run_fit_machines_that_are_not_equal(
    steps: dict[str, Step], machines: list[Machine]
) -> None:
    small = [replace(m, gpu_bytes=memory(steps["train"]) / 6) for m in machines]
    for asked in (0, 3, 4, 7):
        needs = needs_of(steps["train"], small, asked)
        assert fit(needs, [m.has for m in small]) is not None
    assert fit(needs_of(steps["train"], [LAPTOP], 3), [LAPTOP.has]) is None


class FakeWorker:
    """Waits with each task until it is let go, and keeps the GPUs that it was given."""

    def __init__(self, environment: object) -> None:
        self.given: dict[str, list[str]] = {}
        self.go = threading.Event()
        self.begun = threading.Semaphore(0)

    def run(self, task: Task, tell: Progress, threads: int, gpus: Sequence[str]) -> Record:
        self.given[task.slug] = [*gpus]
        self.begun.release()
        self.go.wait(60)
        return Record.__new__(Record)

    def stop(self) -> None:
        self.go.set()


def test_no_gpu_is_given_to_two_steps_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, 5,7")
    monkeypatch.setattr(local, "Worker", FakeWorker)
    monkeypatch.setattr(local, "here", lambda: Here(10**11, (("H200", 10**11),) * 3))
    executor = Local()
    fake = executor._worker
    assert isinstance(fake, FakeWorker)
    assert executor.machines()[0].has.gpus == 3
    one = [Task("s", name, "", {}, {}, {}, name) for name in "ab"]
    futures = [executor.submit(t, Needs(1, n, 0.0), [0], silent) for n, t in enumerate(one, 1)]
    for _ in one:
        assert fake.begun.acquire(timeout=60)
    assert fake.given == {"a": ["GPU-a"], "b": ["5", "7"]}
    fake.go.set()
    for future in futures:
        future.result(60)
    again = executor.submit(Task("s", "c", "", {}, {}, {}, "c"), Needs(1, 3, 0.0), [0], silent)
    again.result(60)
    assert sorted(fake.given["c"]) == ["5", "7", "GPU-a"]
    executor.stop()


def test_a_step_sees_its_gpus_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    monkeypatch.setenv("RAYON_NUM_THREADS", "9")
    monkeypatch.setitem(worker.sys.modules, "torch", None)  # type: ignore[arg-type]
    worker._use(3, ["1"])
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"]) == ("1", "3")
    worker._use(3, None)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    worker._use(3, [])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_gpus_are_called_as_they_are_made_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu_names(2) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_names(2) == []
