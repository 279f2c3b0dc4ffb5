"""The commands of docs/teachers.md run, and what docs/asked-study.md shows is a study."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.study.test_teacher import Asking
from tests.teachers.conftest import running
from tests.teachers.test_synthesis import TASK, task_folder

from epigone.study.declare import Declaration
from epigone.study.file import parse
from epigone.study.rounds import lonely
from epigone.study.steps import expand

ROOT = Path(__file__).parents[2]
Cli = Callable[..., subprocess.CompletedProcess[str]]


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(page: str) -> list[list[str]]:
    lines = "".join(blocks(page, "sh")).splitlines()
    return [shlex.split(line) for line in lines if line.startswith("epigone")]


def test_the_commands_about_teachers_run(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("Tell me of bread.\nTell me of rivers.\n")
    posts = [{"post": " ".join(f"w{i}{j}" for j in range(40))} for i in range(5)]
    (tmp_path / "posts.jsonl").write_text("\n".join(map(json.dumps, posts)))
    (tmp_path / "NQ-open.dev.jsonl").write_text('{"question": "who", "answer": ["it"]}\n')
    task = TASK.replace("validator: validate.py:check\n", "").replace("answer: Sum\n", "")
    task_folder(tmp_path / "my-task", task)
    told = commands("teachers.md")
    assert [words[2] for words in told] == ["ask", "cancel", *["synthesize"] * 3, "serve"]
    for words in told:
        if words[2] in ("serve", "cancel"):
            # These have tests of their own; what they are called with must exist.
            helped = cli(*words[1:3], "--help", cwd=tmp_path)
            assert all(w in helped.stdout for w in words if w.startswith("--"))
            continue
        says = "pairs" if words[2] == "synthesize" and "tldr" not in words else ""
        with running(says=says) as server:
            words = [server.ref if w.startswith("https://host") else w for w in words]
            if "--size" in words:
                words[words.index("--size") + 1] = "4"
            if "--budget" in words:
                words += ["--price", "2,8"]
            done = cli(*words[1:], cwd=tmp_path)
            assert done.returncode == 0, (words, done.stderr)


def test_what_the_page_shows_is_a_study() -> None:
    first, rounds = blocks("asked-study.md", "yaml")
    declared = yaml.safe_load(first)
    declared["corpora"] |= yaml.safe_load(rounds)
    amounts = {name: ["1k"] for name in declared["corpora"]}
    rest = {
        "name": "page", "bases": ["one"], "amounts": amounts,
        "evaluate": {"benchmarks": ["nq_open"]},
    }  # fmt: skip
    study = parse(yaml.safe_dump(declared | rest))
    assert lonely(study.corpora, study.amounts) == []
    stages = [s.stage for s in expand(study, Asking()).steps]
    # Six corpora, one of them in four rounds.
    assert stages.count("ask") == 6 + 3
    assert stages.count("select") == 3


@pytest.mark.parametrize("name", ["select", "task"])
def test_every_setting_is_on_the_page(name: str) -> None:
    page = (ROOT / "docs" / "asked-study.md").read_text()
    field = Declaration.model_fields["corpora"].annotation
    assert field is not None
    from epigone.study.specs import SELECTED
    from epigone.study.teacher import Synthesis

    wanted = SELECTED if name == "select" else tuple(Synthesis.model_fields)
    assert all(f"`{value}`" in page for value in wanted)
