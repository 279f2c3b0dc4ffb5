"""A study whose teacher is asked: collected, selected, measured, within a budget, and once."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ASKS, SUBJECTS
from tests.teachers.conftest import Running, running

from epigone.files import read_json, read_jsonl

pytestmark = pytest.mark.slow
Cli = Callable[..., subprocess.CompletedProcess[str]]
KEY = "sk-planted-9f31c2"
STUDY = """\
name: asked
teacher:
  name: teacher
  terms: openai
  endpoint:
    url: {url}
    model: teacher
    key_env: A_KEY
    price: [2, 8]
    concurrency: 4
bases: [{base}]
corpora:
  picked:
    kind: broad
    synthesize:
      {{task: answers, prompts: prompts.jsonl, turns: 1, max_tokens: 64, select: loss, rounds: 2}}
    size: 40
    held_out: 4
amounts: {{picked: [200]}}
recipe: {{batch: 2, block: 128, warmup: 2}}
evaluate:
  benchmarks: [facts]
  limit: 4
  style: {{n: 4, max_new_tokens: 48, metrics: [unigram, length_ratio]}}
"""


@pytest.fixture
def study(tmp_path: Path, tiny_base: Path) -> Callable[[Running], Path]:
    def write(server: Running) -> Path:
        folder = tmp_path / "study"
        folder.mkdir()
        texts = [ask.format(subject) for ask in ASKS for subject in SUBJECTS]
        lines = [json.dumps({"prompt": text}) for text in texts]
        (folder / "prompts.jsonl").write_text("\n".join(lines))
        (folder / "study.yaml").write_text(STUDY.format(url=server.url, base=tiny_base))
        return folder

    return write


def folder_of(study: Path, step: str) -> Path:
    (found,) = (study / "runs" / "asked" / "steps").glob(f"{step}-????????")
    return found


def test_a_teacher_is_asked_once_for_all_that_a_study_needs(
    study: Callable[[Running], Path], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", KEY)
    with running(key=KEY) as server:
        folder = study(server)

        def epigone(*words: str) -> subprocess.CompletedProcess[str]:
            return cli(*words, cwd=folder)

        plan = json.loads(epigone("plan", "study.yaml", "--json").stdout)
        asks = {a["step"].partition("-")[0]: a for a in plan["asking"]}
        assert {s["stage"] for s in plan["steps"]} >= {"ask", "select", "corpus", "train"}
        # Forty prompts in two rounds, and the benchmark's four items.
        assert [asks[f"ask/picked_round{i}"]["requests"] for i in (1, 2)] == [20, 20]
        assert server.told()["billed"] == {}

        poor = epigone("run", "study.yaml", "--only", "ask", "--budget", "0.002")
        assert poor.returncode != 0
        assert "of the budget of $0.002" in poor.stderr + poor.stdout
        first = server.told()
        assert 0 < first["cost"] <= 0.002

        done = epigone("run", "study.yaml", "--budget", "1")
        assert done.returncode == 0, done.stderr
        told = server.told()
        assert set(told["billed"].values()) == {1}, "nothing is paid for twice"
        assert [m for m in told["mistakes"] if "logprobs" not in m] == []
        _check_rounds(folder)
        _check_costs(folder, told)
        _check_second(folder)

        # Steps that are lost are made again from the ledger.
        shutil.rmtree(folder_of(folder, "ask/picked_round2"))
        again = epigone("run", "study.yaml", "--only", "ask")
        assert again.returncode == 0, again.stderr
        assert server.told()["billed"] == told["billed"]
        # Another study of the same questions pays for none of them.
        text = (folder / "study.yaml").read_text().replace("name: asked", "name: other")
        (folder / "other.yaml").write_text(text)
        assert epigone("run", "other.yaml", "--only", "ask").returncode == 0
        assert server.told()["billed"] == told["billed"]
    for path in [*folder.rglob("*")]:
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path


def _check_rounds(folder: Path) -> None:
    steps = folder / "runs" / "asked" / "steps"
    rounds = [folder_of(folder, f"ask/picked_round{i}") for i in (1, 2)]
    asked = [[r["id"] for r in read_jsonl(r / "chosen.jsonl")] for r in rounds]
    assert [len(ids) for ids in asked] == [20, 20]
    assert not set(asked[0]) & set(asked[1])
    select = folder_of(folder, "select/picked_round2")
    scores = {r["id"]: r["score"] for r in read_jsonl(select / "scores.jsonl")}
    # All that are left are looked at; the highest losses are asked.
    assert len(scores) == len(ASKS) * len(SUBJECTS) - 20
    rest = [scores[i] for i in set(scores) - set(asked[1])]
    assert min(scores[i] for i in asked[1]) >= max(rest)
    audit = read_json(folder_of(folder, "corpus/picked") / "audit.json")
    assert len(audit["sources"]) == 2
    # The snapshot that answered, as the endpoint names it.
    assert audit["final"]["by_teacher"].keys() == {"teacher-2025-06-15"}
    assert audit["final"]["by_terms"].keys() == {"openai"}
    assert any(steps.glob("train/*before*"))


def _check_second(folder: Path) -> None:
    """Its second answers are others than the first, and what style is measured against."""
    first, second = (
        {r["item"]: r["output"] for r in read_jsonl(folder_of(folder, step) / "samples.jsonl")}
        for step in ("generate/teacher", "second/teacher")
    )
    assert first.keys() == second.keys()
    assert len(first) == 4
    assert not set(first.values()) & set(second.values())
    scores = read_jsonl(folder_of(folder, "style/teacher") / "scores.jsonl")
    unigram = next(s for s in scores if s["metric"] == "unigram")
    assert 0 <= unigram["value"] < 100
    gaps = (folder / "runs" / "asked" / "report" / "tables" / "gaps.csv").read_text()
    rows = list(csv.DictReader(gaps.splitlines()))
    own = next(r for r in rows if r["metric"] == "unigram")
    assert own["teacher_source"] == "measured"
    assert float(own["teacher"]) == pytest.approx(unigram["value"], rel=1e-3)


def _check_costs(folder: Path, told: dict[str, Any]) -> None:
    """What the ledger counted is what the endpoint billed."""
    (ledger,) = (folder / "runs" / "ledger").glob("*.jsonl")
    rows = [row["row"] for row in read_jsonl(ledger)]
    spent = sum(Decimal(row["cost"]) for row in rows if row["kind"] == "came")
    assert float(spent) == pytest.approx(told["cost"], abs=1e-12)
    measured = folder_of(folder, "benchmark/facts_teacher")
    assert (measured / "record.json").is_file()
