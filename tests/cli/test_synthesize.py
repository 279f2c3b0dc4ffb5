"""epigone teacher synthesize, as a user types it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.teachers.conftest import running

Cli = Callable[..., subprocess.CompletedProcess[str]]


def test_pairs_summaries_and_tasks(cli: Cli, tmp_path: Path) -> None:
    posts = "\n".join(" ".join(f"w{i}{j}" for j in range(40)) for i in range(5))
    (tmp_path / "posts.txt").write_text(posts)
    with running(says="pairs") as server:
        told = ("--endpoint", server.ref, "--price", "2,8", "--json")
        made = cli("teacher", "synthesize", "nq", "--size", "20", "-o", "nq", "--for", "facts",
                   *told, cwd=tmp_path)  # fmt: skip
        assert made.returncode == 0, made.stderr
        assert json.loads(made.stdout)["written"] == 20
        rows = (tmp_path / "nq" / "answers.jsonl").read_text().splitlines()
        assert len(rows) == 20
    with running() as server:
        made = cli("teacher", "synthesize", "tldr", "--passages", "posts.txt", "--size", "4",
                   "-o", "tldr", "--endpoint", server.ref, cwd=tmp_path)  # fmt: skip
        assert made.returncode == 0, made.stderr
        assert "examples" in made.stdout
        assert "requests" in made.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nqq",), "did you mean 'nq'"),
        (("./nothing",), "no task.yaml in this folder"),
        (("tldr",), "tldr summarizes --passages FILE"),
        (("nq", "--passages", "x"), "tldr summarizes --passages FILE"),
        (("nq", "--seeds", "none.jsonl"), "the seeds cannot be read"),
        (("nq", "--for", "fcts"), "fcts"),
        (("nq", "--budget", "5"), "a budget needs the price"),
        (("nq", "--budget", "much"), "not a budget"),
        (("nq", "--price", "1"), "not a price"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_asked(
    cli: Cli, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    done = cli("teacher", "synthesize", *words, "-o", "out", "--endpoint",
               "http://127.0.0.1:9/v1#m", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 2, done.stdout
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
