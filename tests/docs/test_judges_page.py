"""What docs/judges.md says can be said: options, a rubric, a study."""

from __future__ import annotations

import re
from pathlib import Path

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
