"""Completion as a shell does it: bash runs what `--show-completion` prints."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from epigone.cli import completion

STUDY = "name: talk\nteacher: {name: t}\nbases: [b]\n"
# Which shell it is, the program reads off its own parents.
ASK = """
epigone --show-completion > completion.sh
source completion.sh
ask() {
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    _epigone_completion epigone
    (IFS='|'; echo "${COMPREPLY[*]}")
}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with studies, of which one has run, and other files."""
    (tmp_path / "studies" / "deep").mkdir(parents=True)
    (tmp_path / "studies" / "talk.yaml").write_text(STUDY)
    (tmp_path / "studies" / "recipes.yaml").write_text("lr: 1\n")
    (tmp_path / "studies" / "my talk.yaml").write_text(STUDY)
    (tmp_path / "studies" / "deep" / "study.yaml").write_text(STUDY)
    (tmp_path / "steps.yml").write_text(STUDY)
    root = tmp_path / "runs" / "talk"
    (root / "steps" / "train" / "b_talk-12ab34cd").mkdir(parents=True)
    (root / "steps" / "train" / "b_talk-12ab34cd" / "record.json").touch()
    names = ["train/b_talk-12ab34cd", "style/b-56ef78ab"]
    (root / "study.lock.json").write_text(
        json.dumps(
            {
                "steps": [{"step": name} for name in names],
                "cells": [{"model": "b"}, {"model": "b:talk:8k:s0"}],
            }
        )
    )
    return tmp_path


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_verbs_studies_stages_and_steps(place: Path) -> None:
    program = place / "epigone"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.argv[0] = 'epigone'\n"
        "from epigone.cli import main\nmain()\n"
    )
    program.chmod(0o755)
    asked = {
        "epigone plan --wh": "--why",
        "epigone run st": "steps.yml|studies/deep|studies/talk.yaml",
        "epigone run studies/talk.yaml --only t": "train|toxicity",
        "epigone show studies/talk.yaml ''": "train/b_talk-12ab34cd|b",
    }
    script = ASK + "".join(f"ask {words}\n" for words in asked)
    env = {**os.environ, "PATH": f"{place}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        cwd=place, env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == list(asked.values())


def test_a_path_goes_on_to_studies_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)

    def found(incomplete: str) -> list[str]:
        return list(completion._studies({}, incomplete))

    assert found("") == ["steps.yml", "studies/deep", "studies/talk.yaml"]
    assert found("studies/t") == ["studies/talk.yaml"]
    assert found(f"{place}/ste") == [f"{place}/steps.yml"]
    # What has to be quoted is left to the shell, as is what is not there.
    assert found("studies/my") == found("nowhere/x") == found("runs") == []


@pytest.mark.parametrize("lock", ["", "[]", '{"steps": 3}', '{"steps": [], "cells": [{}]}'])
def test_a_run_that_cannot_be_read_has_no_steps(place: Path, lock: str) -> None:
    (place / "runs/talk/study.lock.json").write_text(lock)
    given = {"study": place / "studies/talk.yaml", "runs": place / "runs"}
    assert list(completion._steps(given, "")) == []
    assert list(completion._steps({}, "")) == []
