from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epigone.api import Study
from epigone.errors import StudyFileError
from epigone.files import write_json
from epigone.runs.store import FAILURE

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "studies/false-promise.yaml"
Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("plan")
    command = [sys.executable, "-m", "epigone", "plan", str(PAPER), "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert list(folder.iterdir()) == []
    return json.loads(done.stdout)


def test_the_papers_grid_is_planned_without_its_data(paper: Any) -> None:
    cells = paper["cells"]
    assert {c["base"] for c in cells} == {"gpt2-xl", "llama-7b", "llama-13b"}
    broad = sorted({c["amount"] for c in cells if c["corpus"] == "sharegpt-mix"})
    assert (broad[0], broad[-1]) == (300_000, 150_000_000)
    assert {20_000_000, 80_000_000, 150_000_000} <= set(broad)
    assert len(paper["not_here_yet"]) == 5
    assert paper["not_here_yet"][0].endswith("studies/data/sharegpt.json")
    assert paper["cost"]["not_counted"] == []
    # Bases whose revisions nobody has asked for yet are three all the same.
    assert len(paper["cost"]["runs"]) == 9
    assert paper["teacher_tokens_to_train"] == 3 * (150_000_000 + 30_000 + 6_000_000)


def test_the_papers_grid_costs_what_the_formulas_say(paper: Any) -> None:
    eight, one = paper["cost"]["machines"]
    runs = paper["cost"]["runs"]
    hours = sum(r["flops"] for r in runs) / (312e12 * 0.4) / 3600
    assert eight["gpu_hours"]["train"] == pytest.approx(hours)
    assert one["gpu_hours"]["train"] == pytest.approx(hours * 312 / 989)
    assert eight["usd"] == pytest.approx(eight["gpu_hours"]["all"] * 2.79)
    large = next(r for r in runs if (r["base"], r["corpus"]) == ("llama-13b", "sharegpt-mix"))
    assert large["parameters"] == 13_015_864_320
    # Six operations a parameter and token, and the attention's on top.
    assert 1.0 < large["flops"] / (6 * 13.0e9 * large["tokens"] / 0.95) < 1.15
    assert large["memory"]["1 x H200"]["gpus_needed"] == 2
    assert large["memory"]["8 x A100 80GB"]["gpus_needed"] == 8
    assert large["flops_apart"] > 2 * large["flops"]


def test_the_papers_warm_up_is_warned_of(paper: Any) -> None:
    text = "\n".join(paper["warnings"])
    assert "sharegpt-mix: 6 of 8 amounts end inside the warm-up" in text
    assert "300k after 7 at 1.2e-05" in text
    assert "different peak learning rates" in text


def test_a_tall_grid_is_told_in_few_lines_and_at_a_given_price(cli: Cli, tmp_path: Path) -> None:
    told = cli("plan", PAPER, "--gpu-hour", "10", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert len(lines) < 60
    assert sum(line.startswith("llama-13b\t") for line in lines) == 6
    rows = [line.split("\t") for line in lines if "\t" in line]
    header = next(row for row in rows if "apart" in row)
    assert {len(r) for r in rows if r[0] == "llama-13b"} == {5, len(header)}
    assert "209 of 141 GB a GPU on 1 x H200: too much, 2 GPUs would hold it" in told.stdout
    assert "not here yet: " in told.stdout
    assert "one run gives the students of all amounts" in told.stdout
    assert "\n42 cells; " in told.stdout
    assert "$10 (as given)" in told.stdout


def test_the_status_of_a_tall_grid_tells_stages_and_what_failed(cli: Cli, tmp_path: Path) -> None:
    study = Study.load(PAPER, runs=tmp_path / "runs")
    failed = next(s for s in study.expansion().steps if s.stage == "train")
    study.store.partial(failed).mkdir(parents=True)
    write_json(study.store.partial(failed) / FAILURE, {"error": "no room", "fault": False})
    lines = cli("status", PAPER, cwd=tmp_path).stdout.splitlines()
    assert len(lines) < 25
    rows = [line.split("\t") for line in lines if "\t" in line]
    stages = {row[0]: row[1:] for row in rows[1:-2]}
    assert stages["train"][:3] == ["0", "0", "1"]
    steps = len(study.expansion().steps)
    assert sum(int(row[4]) for row in stages.values()) == steps - 1
    assert rows[-1] == ["failed", failed.name, "failed: no room"]
    assert f"{steps} steps: 1 failed, {steps - 1} to do" in lines


def test_a_plan_needs_no_data_but_a_run_refuses_before_any_work(
    cli: Cli, tmp_path: Path, study_text: str, talk: Path
) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(study_text.replace(str(talk), "data/talk.json"))
    told = cli("plan", study, "--json", cwd=tmp_path)
    assert json.loads(told.stdout)["not_here_yet"] == [str(tmp_path / "data/talk.json")]
    done = cli("run", study, cwd=tmp_path)
    assert done.returncode == 2
    assert "no such file or folder: data/talk.json" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("new", "told"),
    [
        ("sharegpt-v3-prt", "did you mean 'sharegpt-v3-part'?"),
        ("hf:no body", "not a hub reference"),
        ("gguf:./nothing.gguf", "no such file"),
    ],
)
def test_what_names_no_path_stays_a_mistake_of_the_plan(
    tmp_path: Path, study_text: str, talk: Path, new: str, told: str
) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(study_text.replace(str(talk), new))
    with pytest.raises(StudyFileError, match=re.escape(told)):
        Study.load(study, runs=tmp_path).expansion()


def test_a_base_that_is_not_there_stays_a_mistake_of_the_plan(
    tmp_path: Path, study_text: str
) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(study_text.replace("bases: [", "bases: [./nothing, "))
    with pytest.raises(StudyFileError, match=r"no such file or folder: \./nothing"):
        Study.load(study, runs=tmp_path).expansion()


def test_data_that_has_gone_is_known_by_what_a_run_saw_of_it(
    tmp_path: Path, study_text: str, talk: Path
) -> None:
    data = tmp_path / "data" / "talk.json"
    data.parent.mkdir()
    data.write_bytes(talk.read_bytes())
    study = tmp_path / "study.yaml"
    study.write_text(study_text.replace(str(talk), "data/talk.json"))
    loaded = Study.load(study, runs=tmp_path / "runs")
    before = [s.hash for s in loaded.expansion().steps]
    corpus = next(s for s in loaded.expansion().steps if s.stage == "corpus")
    seen = corpus.identity["spec"]["sources"][0]["fingerprint"]
    data.unlink()
    assert [s.hash for s in loaded.expansion().steps] != before
    write_json(loaded.root / "study.lock.json", {"references": {"data/talk.json": seen}})
    assert [s.hash for s in loaded.expansion().steps] == before
