from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import epigone
from epigone.runs.store import Store, read_record
from epigone.study.steps import Step

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, study_text: str) -> epigone.Study:
    """The tiny study, run to its end without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "study.yaml").write_text(study_text)
    study = epigone.Study.load(folder, runs=folder / "runs")
    assert study.run().failed == []
    return study


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
    (tmp_path / "study.yaml").write_text(
        study_text.replace("[600, 2k]", "[600]").replace("warmup: 0.1", "warmup: 2")
    )
    (tmp_path / "long.yaml").write_text(study_text.replace("warmup: 0.1", "warmup: 2"))
    weights = []
    for name in ("study.yaml", "long.yaml"):
        study = epigone.Study.load(tmp_path / name, runs=tmp_path / name.removesuffix(".yaml"))
        study.run(only="corpus")
        study.run(only="train")
        step = next(s for s in study.expansion().steps if s.stage == "train")
        weights.append((study.store.folder(step) / "amount-600/model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def launched(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "epigone", "run", "study.yaml", "--json"],
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


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_kill_9_at_any_moment_and_again_gives_the_same_bytes(
    finished: epigone.Study, study_text: str, tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text(study_text)
    rng = random.Random(7)
    kills = 0
    for attempt in range(40):
        process = launched(tmp_path)
        # Some kills hit the runner, some the worker, some the step itself.
        deadline = time.monotonic() + rng.uniform(0.5, 4.0 + 2 * attempt)
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        if process.poll() is None and kills < 5:
            family = [process.pid, *workers_of(process.pid)]
            os.kill(rng.choice(family), signal.SIGKILL)
            kills += 1
            if process.poll() is None and rng.random() < 0.5:
                process.kill()
        out, err = process.communicate(timeout=600)
        assert "Traceback" not in err, err
        if process.returncode == 0:
            break
    else:
        pytest.fail(f"never finished: {out} {err}")
    assert kills >= 4
    study = epigone.Study.load(tmp_path, runs=tmp_path / "runs")
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
    (tmp_path / "study.yaml").write_text(text.replace("choices", "").replace("facts, ", "facts"))
    study = epigone.Study.load(tmp_path, runs=tmp_path / "runs")
    # What the whole study has done already need not be done again here.
    shutil.copytree(finished.root / "steps", study.root / "steps")
    result = study.run()
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


def test_a_second_process_is_told_who_holds_the_study(study_text: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(study_text)
    first = launched(tmp_path)
    try:
        lease = tmp_path / "runs/tiny/lease.json"
        while not (lease.exists() and lease.read_text()) and first.poll() is None:
            time.sleep(0.02)
        second = subprocess.run(
            [sys.executable, "-m", "epigone", "run", "study.yaml"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
    assert second.returncode == 2
    assert f"pid {first.pid}" in second.stderr
    assert len(second.stderr.splitlines()) == 1


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
        for row in map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    )
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert len(log) == facts["steps"]
    assert log[0]["lr"] == 0.0
    assert log[-1]["loss"] < log[0]["loss"]
