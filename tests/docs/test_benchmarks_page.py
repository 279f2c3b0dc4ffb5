"""The study on docs/benchmarks.md is one, and its command's options exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import yaml
from typer.testing import CliRunner

from epigone.cli import app
from epigone.study.declare import Evaluate, Teacher

PAGE = (Path(__file__).parents[2] / "docs/benchmarks.md").read_text()


def test_the_study_is_one() -> None:
    block, teacher, other = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    asked = Teacher.model_validate(yaml.safe_load(teacher)["teacher"])
    assert asked.endpoint.ref.startswith("endpoint:https://")
    toxicity = Evaluate.model_validate(yaml.safe_load(other)["evaluate"]).toxicity
    assert toxicity is not None
    assert [s.name for s in toxicity.scorers] == ["proxy", "classifier"]
    found = Evaluate.model_validate(yaml.safe_load(block)["evaluate"])
    assert [b.label for b in found.benchmarks] == [
        "facts", "mmlu", "mmlu:chat", "nq_open", "humaneval", "humaneval:t0.8", "hellaswag", "mine",
    ]  # fmt: skip


def test_the_commands_options_exist() -> None:
    (block,) = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    help_text = CliRunner().invoke(app, ["benchmark", "--help"], env={"COLUMNS": "200"}).output
    named = {w for w in shlex.split(block) if w.startswith("--")}
    named |= set(re.findall(r"`(--[a-z-]+)", PAGE)) - {"--security-opt", "--scorer"}
    assert {"--data", "--unsafe-local", "--limit"} <= named
    assert not [option for option in named if option not in help_text]
