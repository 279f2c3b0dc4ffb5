"""What docs/judges.md says can be said: options, a rubric, a study."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from epigone.cli import app
from epigone.evaluation.judge.rubrics import rubrics
from epigone.study.declare import Evaluate
from epigone.study.judge import PROTOCOLS

PAGE = (Path(__file__).parents[2] / "docs/judges.md").read_text()


def test_the_options_and_protocols_exist() -> None:
    told = CliRunner().invoke(app, ["judge", "--help"], env={"COLUMNS": "200"}).output
    words = set(re.findall(r"--[a-z][a-z-]*", PAGE))
    assert {"--judge", "--rubric", "--references", "--estimate", "--all-pairs"} <= words
    assert [option for option in words if option not in told] == []
    assert tuple(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == PROTOCOLS


def test_the_rubric_and_the_study_are_valid(tmp_path: Path) -> None:
    rubric, study = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "mine.yaml").write_text(rubric)
    assert "physician" in rubrics(tmp_path / "mine.yaml", ["pairwise"])["pairwise"]
    judge = Evaluate.model_validate(yaml.safe_load(study)["evaluate"]).judge
    assert judge is not None
    assert (judge.called, judge.against) == ("my-judge", "teacher")


def test_our_rubrics_are_shown_as_a_file_of_ones_own(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["judge", "--show-rubric"])
    assert told.exit_code == 0
    (tmp_path / "ours.yaml").write_text(told.output)
    assert rubrics(tmp_path / "ours.yaml", PROTOCOLS) == rubrics(None, PROTOCOLS)


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Any
) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for name in ("teacher", "student"):
        row = {"item": "1", "prompt": "Who?", "output": f"A {name}."}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
    server.answer = lambda body: '{"reason": "r", "verdict": "equal"}'
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(code.replace("https://host/v1", server.url), found)
    assert found["told"]["pairs"][0]["win_rate"]["value"] == 0.5
    assert len(server.requests) >= 2
