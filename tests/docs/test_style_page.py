"""The table on docs/style.md names every metric, its study is one, its options exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from epigone.cli import app
from epigone.evaluation.distinguish import LEAST, NAME
from epigone.evaluation.style_metrics import METRICS
from epigone.files import write_jsonl
from epigone.study.declare import Evaluate
from epigone.study.style import ALL_STYLE_METRICS
from epigone.study.teacher import Teacher

PAGE = (Path(__file__).parents[2] / "docs/style.md").read_text()


def test_every_metric_is_told_with_what_identical_answers_get() -> None:
    told: dict[str, float] = {}
    for line in re.findall(r"^\| (`.*)$", PAGE, re.MULTILINE):
        names, _, identical = re.split(r"(?<!\\)\|", line)[:3]
        told |= dict.fromkeys(re.findall(r"`(\w+)`", names), float(identical))
    assert told == {name: metric.ceiling for name, metric in METRICS.items()} | {NAME: 0.5}
    assert set(told) == set(ALL_STYLE_METRICS)
    assert f"It needs {LEAST} items" in PAGE


def test_the_study_and_the_command_are_ones() -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    found = yaml.safe_load(block)
    assert Teacher.model_validate(found["teacher"]).second == "teacher-again.jsonl"
    style = Evaluate.model_validate(found["evaluate"]).style
    assert style is not None
    assert "distinguishable" in style.metrics
    text = CliRunner().invoke(app, ["style", "--help"], env={"COLUMNS": "200"}).output
    assert all(option in text for option in ("--ceiling", "--metric", "-o", "--json"))


def test_the_example_of_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, output in (("teacher", "- a\n- b"), ("student", "plain")):
        rows = ({"item": f"{i}", "output": output} for i in range(3))
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(block, "docs/style.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == [
        "list 0.0 {'0': 0.0, '1': 0.0, '2': 0.0}",
        "distinguishable None {}",  # it needs more items
    ]
