"""How a step's process ends when it is asked to, and what the runner makes of it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import epigone
from epigone.errors import Stopped
from epigone.runs import worker
from epigone.runs.perform import Task

STUDY = """
import os, signal, sys
from epigone.cli import common, main

def progress(self, step, done, total, note):
    if step.stage == "train" and note.startswith("loss"):
        os.kill(os.getpid(), signal.SIGTERM)

common.Teller.progress = progress
sys.argv[0] = "epigone"
main()
"""


def child(how: str) -> tuple[int, int]:
    """A process that ends as told by SIGTERM, once it listens; and the pipe that it writes to."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:

        def save(*_: object) -> None:
            os.write(write, b"saved")
            os._exit(0)

        handler = {"saves": save, "is deaf": signal.SIG_IGN, "as it is": signal.SIG_DFL}[how]
        signal.signal(signal.SIGTERM, handler)  # type: ignore[arg-type]
        os.write(write, b"!")
        while True:
            time.sleep(1)
    os.close(write)
    assert os.read(read, 1) == b"!"
    return pid, read


@pytest.mark.parametrize(
    ("how", "said"), [("saves", b"saved"), ("is deaf", b""), ("as it is", b"")]
)
def test_a_step_may_save_before_it_is_killed(
    how: str, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "GRACE_SECONDS", 0.5 if how == "is deaf" else 60.0)
    pid, pipe = child(how)
    worker._end([pid])
    assert os.read(pipe, 9) == said
    os.close(pipe)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


@pytest.mark.parametrize("reader", ["listens", "is gone"])
def test_a_stopped_step_has_not_failed(
    reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task("train", "s", "0" * 64, {}, {}, {}, str(tmp_path / "s"))

    def perform(task: Task, progress: object) -> None:
        assert callable(progress)
        progress(1, 2, "on its way")
        raise Stopped("stopped by SIGTERM; run the same command again to continue")

    monkeypatch.setattr(worker, "perform", perform)
    read, write = os.pipe()
    if reader == "is gone":
        os.close(read)
    pid = os.fork()
    if pid == 0:
        worker._child(task, 1, None, worker.Events(write))
    os.close(write)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == worker._TOLD
    if reader == "listens":
        events = [json.loads(line) for line in io.FileIO(read) if line.strip()]
        assert [e["event"] for e in events] == ["progress", "stopped"]
        assert events[1]["error"].startswith("stopped by SIGTERM")
    assert [p.name for p in (tmp_path / "s.partial").iterdir()] == ["log.txt"]


def test_a_study_ended_by_sigterm_has_saved_its_training(study_text: str, tmp_path: Path) -> None:
    text = study_text.replace("[600, 2k]", "[7k]").replace(
        "batch: 2, block: 128", "batch: 1, block: 64"
    )
    (tmp_path / "study.yaml").write_text(text)
    study = epigone.Study.load(tmp_path, runs=tmp_path / "runs")
    study.run(only="corpus")
    words = ["run", "study.yaml", "--only", "train"]
    ended = subprocess.run(
        [sys.executable, "-c", STUDY, *words],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 143, ended.stderr
    assert ended.stderr.splitlines()[-1] == (
        "epigone: stopped by SIGTERM; run the same command again to continue"
    )
    (planned,) = [p for p in study.plan() if p.step.stage == "train"]
    assert planned.state == "to do"
    partial = study.store.partial(planned.step)
    assert not (partial / "failure.json").exists()
    assert [p for p in (partial / ".scratch/checkpoint").iterdir() if p.name.isdigit()]
