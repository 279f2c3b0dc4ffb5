"""The commands of docs/feedback.md that ask a teacher run, and their files are of its formats."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.teachers.conftest import running
from typer.testing import CliRunner

from epigone.cli import app
from epigone.training.preferences import read

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
PAGE = (Path(__file__).parents[2] / "docs/feedback.md").read_text()


@pytest.mark.slow
def test_what_the_commands_write_can_be_trained_on(cli: Cli, tmp_path: Path) -> None:
    for name, more in (("a", 3), ("b", 1)):
        lines = [json.dumps({"prompt": f"Q{i}", "response": f"{name}{i}" * more}) for i in range(9)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    asks = re.findall(r"^epigone teacher feedback (.*)", PAGE, re.MULTILINE)
    assert len(asks) == 2
    with running(judge={}) as server:
        for line in asks:
            words = shlex.split(line.replace("https://host/v1#model", server.ref))
            done = cli("teacher", "feedback", *words, "--price", "2,8", cwd=tmp_path)
            assert done.returncode == 0, done.stderr
    assert len(read(tmp_path / "ranked/pairs.jsonl", "dpo").examples) == 9
    assert len(read(tmp_path / "revised/revisions.jsonl", "revise").examples) == 9


def test_the_options_exist() -> None:
    told = "".join(
        CliRunner()
        .invoke(app, ["teacher", "feedback", verb, "--help"], env={"COLUMNS": "200"})
        .output
        for verb in ("rank", "revise")
    )
    section = PAGE[PAGE.index("### Asking a teacher") : PAGE.index("## 2.")]
    named = set(re.findall(r"--[a-z-]+", section))
    assert {"--constitution", "--keep-cut", "--tries"} <= named
    assert not [option for option in named if option not in told]
