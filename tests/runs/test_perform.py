from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from epigone.errors import StepFailed, Stopped, UserError
from epigone.runs import perform as module
from epigone.runs import store
from epigone.runs.perform import Task, perform, task_alone
from epigone.runs.store import partial_of, verify
from epigone.schema import Progress, silent
from epigone.study.specs import StyleSpec

calls: list[str] = []


def stage(spec: StyleSpec, inputs: Mapping[str, Path], out: Path, progress: Progress) -> Any:
    calls.append(spec.model)
    if spec.model == "user":
        raise UserError("no good", value="x")
    if spec.model == "bug":
        raise ValueError("first line\nlast line")
    (out / ".scratch").mkdir(exist_ok=True)
    (out / ".scratch" / "state").write_text("state")
    (out / "x.txt").write_text(spec.model)
    progress(1, 1)
    return {"n": 1}


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    calls.clear()
    monkeypatch.setattr(module, "stage_function", lambda _: stage)


def task(folder: Path, model: str = "m") -> Task:
    return task_alone("style", StyleSpec(model=model, metrics=("list",)), {}, folder)


def test_a_task_is_done_once_and_its_result_verifies(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    first = perform(task(folder), silent)
    assert verify(folder) == []
    assert perform(task(folder), silent) == first
    assert calls == ["m"]
    assert sorted(p.name for p in folder.iterdir()) == ["record.json", "x.txt"]


def test_a_folder_of_another_request_or_of_something_else_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    perform(task(folder), silent)
    with pytest.raises(UserError, match="another request"):
        perform(task(folder, "other"), silent)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="something else"):
        perform(task(tmp_path / "mine"), silent)
    assert calls == ["m"]
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "mine"


def test_failures_keep_what_is_known_of_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no good: x"):
        perform(task(tmp_path / "a", "user"), silent)
    with pytest.raises(StepFailed, match="ValueError: last line"):
        perform(task(tmp_path / "b", "bug"), silent)
    failure = json.loads((partial_of(tmp_path / "b") / "failure.json").read_text())
    assert "first line" in failure["traceback"]
    assert failure["fault"] is True


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("Error while serializing: I/O error: File too large (os error 27)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] can't allocate memory: you tried to"),
        RuntimeError("can't start new thread"),
        ImportError("libarrow_substrait.so.2600: failed to map segment from shared object"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB."),
        BrokenProcessPool("A process in the process pool was terminated abruptly while"),
        MemoryError(),
        OSError(28, "No space left on device"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_the_machine_lacked_is_tried_again_without_asking(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(module, "stage_function", lambda _: fails)
    with pytest.raises(StepFailed):
        perform(task(tmp_path / "a"), silent)
    failure = json.loads((partial_of(tmp_path / "a") / "failure.json").read_text())
    assert failure["fault"] is False


def test_a_kill_between_record_and_rename_does_not_repeat_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "s"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(store, "publish", killed)
        with pytest.raises(KeyboardInterrupt):
            perform(task(folder), silent)
    assert not folder.exists()
    assert (partial_of(folder) / ".scratch" / "state").exists()
    perform(task(folder), silent)
    assert calls == ["m"]
    assert verify(folder) == []
    assert not (folder / ".scratch").exists()


def test_what_a_killed_attempt_wrote_aside_is_no_output(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    partial = partial_of(folder)
    partial.mkdir()
    (partial / ".x.txt.99.tmp").write_text("torn")
    (partial / "amount-1.tmp").mkdir()
    (partial / "amount-1.tmp" / "y").write_text("torn")
    record = perform(task(folder), silent)
    assert sorted(record.outputs) == ["x.txt"]


def test_seconds_count_every_attempt(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    scratch = partial_of(folder) / ".scratch"
    scratch.mkdir(parents=True)
    (scratch / "seconds").write_text("1000.0")
    (scratch / "asked").write_text(task(folder).hash)
    assert perform(task(folder), silent).seconds > 1000


def test_what_another_request_left_in_a_folder_is_no_start_for_this_one(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    scratch = partial_of(folder) / ".scratch"
    scratch.mkdir(parents=True)
    (scratch / "seconds").write_text("1000.0")
    (scratch / "asked").write_text("another hash")
    (partial_of(folder) / "amount-600").mkdir()
    record = perform(task(folder), silent)
    assert record.seconds < 1000
    assert not (folder / "amount-600").exists()


def test_a_step_that_was_lost_over_a_disk_that_hung_is_not_sealed(tmp_path: Path) -> None:
    made = perform(task(tmp_path / "other"), silent)
    partial, folder = partial_of(tmp_path / "s"), tmp_path / "s"
    partial.mkdir()
    (partial / "x.txt").write_text("m")
    looks: list[bool] = []

    def lost() -> None:
        looks.append((partial / store.RECORD).exists())
        if looks[-1]:
            raise Stopped("another runner has taken the step over")

    with pytest.raises(Stopped):
        store.seal(partial, folder, made, lost)
    assert (looks, folder.exists()) == ([False, True], False)
    # The one that took it over may have written half of it: that record is of no use to it.
    (partial / "x.txt").write_text("hal")
    assert perform(task(folder), silent).outputs == made.outputs
    assert verify(folder) == []
