from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import epigone
from epigone.runs.lease import Watch
from epigone.runs.store import Store, read_record
from epigone.study.step import Step

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(whole: Path) -> epigone.Study:
    """The tiny study, run to its end without interruption."""
    return epigone.Study.load(whole, runs=whole / "runs")


def hashes(study: epigone.Study) -> dict[str, dict[str, str]]:
    """Every output's hash of every step."""
    found = {}
    for step in study.expansion().steps:
        record = study.store.record(step)
        assert record is not None, step.name
        found[step.name] = dict(record.outputs)
    return found


def test_every_step_is_done_with_verified_outputs(finished: epigone.Study) -> None:
    from epigone.runs.store import verify

    planned = finished.plan()
    assert {p.state for p in planned} == {"done"}
    for p in planned:
        assert verify(finished.store.folder(p.step)) == []
    assert not list(finished.root.rglob("*.partial"))


def test_running_again_does_nothing(finished: epigone.Study) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.root.rglob("record.json")}
    assert finished.run().failed == []
    assert {p: p.stat().st_mtime_ns for p in finished.root.rglob("record.json")} == before


def test_the_report_is_one_page_with_tables(finished: epigone.Study) -> None:
    page = finished.report()
    assert page == finished.root / "report" / "index.html"
    text = page.read_text()
    assert "not known" in text
    assert {p.name for p in (page.parent / "tables").glob("*.csv")} >= {"scores.csv", "gaps.csv"}


def test_the_small_student_is_the_one_of_a_run_stopped_there(
    finished: epigone.Study, study_text: str, tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text(study_text.replace("[600, 2k]", "[600]"))
    study = epigone.Study.load(tmp_path, runs=tmp_path / "runs")
    (long,) = (s for s in finished.expansion().steps if s.stage == "train")
    (short,) = (s for s in study.expansion().steps if s.stage == "train")
    assert short.hash != long.hash
    corpus = finished.store.folder(long.inputs["corpus"])
    shutil.copytree(corpus, study.store.folder(short.inputs["corpus"]))
    assert study.run(only="train").outcomes[short.name] == "done"
    weights = [
        (s.store.folder(step) / "amount-600/model.safetensors").read_bytes()
        for s, step in ((study, short), (finished, long))
    ]
    assert weights[0] == weights[1]


def launched(folder: Path) -> subprocess.Popen[str]:
    # Whoever waits for the right moment to kill it comes first, on a machine that is busy, too.
    return subprocess.Popen(
        ["nice", "-n", "10", sys.executable, "-m", "epigone", "run", "study.yaml", "--json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def workers_of(pid: int) -> Iterator[int]:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            yield int(entry.name)
            yield from workers_of(int(entry.name))


def wait_for(process: subprocess.Popen[str], folder: Path, pattern: str) -> None:
    """Wait until a file is there; fail if the process ends before."""
    while not any(folder.glob(pattern)):
        assert process.poll() is None, f"ended before {pattern} was there"
        time.sleep(0.005)


def at_work(process: subprocess.Popen[str], name: str) -> int:
    """Wait for a process of a run whose output goes to the log of a step so called."""
    while True:
        assert process.poll() is None, f"ended before a step {name} was at work"
        for pid in workers_of(process.pid):
            with contextlib.suppress(OSError):
                if re.search(f"/steps/{name}.*partial/log.txt", os.readlink(f"/proc/{pid}/fd/1")):
                    return pid


# At which stage a run is killed, and who: the runner, its worker, the process of the step.
KILLS = (
    ("corpus", ("runner",)),
    ("train", ("step", "runner")),
    ("benchmark", ("worker", "runner")),
    ("generate|benchmark", ("step",)),
)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_kill_9_at_any_moment_and_again_gives_the_same_bytes(
    finished: epigone.Study, study_text: str, tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text(study_text)
    rng = random.Random(7)
    for stage, victims in KILLS:
        steps = tmp_path / "runs/tiny/steps"
        for log in steps.rglob("*.partial/log.txt"):
            log.unlink()  # the next one is of this attempt
        process = launched(tmp_path)
        if "step" in victims:
            # Not the recorded teacher's, which takes no time: what has ended cannot be killed.
            pids = {"step": at_work(process, rf"({stage})/\w*tiny")}
        else:
            wait_for(process, steps / stage, "*.partial/log.txt")
            pids = {"worker": next(workers_of(process.pid))}
        pids["runner"] = process.pid
        if "runner" in victims:
            time.sleep(rng.uniform(0, 0.1))
        for victim in victims:
            os.kill(pids[victim], signal.SIGKILL)
        _, err = process.communicate(timeout=600)
        assert process.returncode == (-signal.SIGKILL if "runner" in victims else 1)
        assert "Traceback" not in err, err
    study = epigone.Study.load(tmp_path, runs=tmp_path / "runs")
    assert study.run().failed == []
    assert hashes(study) == hashes(finished)
    assert not list(study.root.rglob("*.partial"))


def test_a_failed_step_blocks_only_its_descendants(
    finished: epigone.Study, study_text: str, tiny_base: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "broken"
    shutil.copytree(tiny_base, bad)
    data = bytearray((bad / "model.safetensors").read_bytes())
    (bad / "model.safetensors").write_bytes(bytes(data[: len(data) // 2]))
    text = study_text.replace(f"[{tiny_base}]", f"[{bad}, {tiny_base}]")
    (tmp_path / "study.yaml").write_text(text)
    study = epigone.Study.load(tmp_path, runs=tmp_path / "runs")
    # What the whole study has done already need not be done again here, but for a little.
    shutil.copytree(finished.root / "steps", study.root / "steps")
    shutil.rmtree(study.root / "steps/style")
    result = study.run()
    assert sum(o == "done" for n, o in result.outcomes.items() if n.startswith("style/tiny")) == 3
    broken = {n for n, o in result.outcomes.items() if o in ("failed", "blocked")}
    assert broken
    assert all("broken" in name for name in broken)
    assert any(o == "blocked" for o in result.outcomes.values())
    assert "broken" in study.report().read_text()


def test_the_lock_file_maps_cells_to_steps(finished: epigone.Study) -> None:
    lock = json.loads((finished.root / "study.lock.json").read_text())
    names = {row["step"] for row in lock["steps"]}
    assert names == {s.name for s in finished.expansion().steps}
    for cell in lock["cells"]:
        stages = {name.partition("/")[0] for name in cell["steps"]}
        assert stages >= {"generate", "style", "benchmark"}
        assert ("train" in stages) == ("amount" in cell)
    assert {n for cell in lock["cells"] for n in cell["steps"]} >= {
        s.name for s in finished.expansion().steps if s.stage == "train"
    }
    assert all(v.startswith("sha256:") for v in lock["references"].values())


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_two_runners_share_the_steps_and_one_takes_over_from_the_other(
    finished: epigone.Study, study_text: str, tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text(study_text)
    study = epigone.Study.load(tmp_path, runs=tmp_path / "runs")
    shutil.copytree(finished.root / "steps", study.root / "steps")
    for stage in ("train", "generate", "style", "benchmark"):
        shutil.rmtree(study.root / "steps" / stage)
    first, second = launched(tmp_path), launched(tmp_path)
    wait_for(first, study.root / "steps/train", "*.partial/log.txt")
    (step,) = (s for s in finished.expansion().steps if s.stage == "train")
    watch = Watch(study.root)
    while len(runners := {r.id: int(r.pid) for r in watch.runners()}) < 2:
        time.sleep(0.01)
    assert sorted(runners.values()) == sorted((first.pid, second.pid))
    victim = first if runners[watch.holder(step.name)] == first.pid else second
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    heir = second if victim is first else first
    out, err = heir.communicate(timeout=600)
    assert heir.returncode == 0, err
    assert set(json.loads(out)["outcomes"].values()) == {"done"}
    assert hashes(study) == hashes(finished)
    assert watch.holders() == {}


def step_of(store: Store, steps: tuple[Step, ...], stage: str) -> Path:
    step = next(s for s in steps if s.stage == stage)
    assert read_record(store.folder(step)) is not None
    return store.folder(step)


def test_training_says_what_it_did(finished: epigone.Study) -> None:
    folder = step_of(finished.store, finished.expansion().steps, "train")
    record = read_record(folder)
    assert record is not None
    facts = record.facts
    assert facts["master_weights"] == "fp32"
    assert facts["compute"] in ("float32", "bfloat16")
    assert facts["supervised"] == sum(
        row["supervised"]
        for row in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    )
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(log) == facts["steps"]
    assert log[0]["lr"] == 0.0
    assert log[-1]["loss"] < log[0]["loss"]
