"""epigone style: the table, the ceiling column, JSON, and every item's value."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from epigone.cli import app
from epigone.errors import UserError
from epigone.files import read_jsonl, write_jsonl
from epigone.schema import Score
from epigone.study.style import ALL_STYLE_METRICS

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    def write(name: str, answer: Callable[[int], str], n: int = 24) -> None:
        rows = [{"item": f"{i}", "output": answer(i)} for i in range(n)]
        (tmp_path / name).write_text("".join(json.dumps(r) + "\n" for r in rows))

    write("teacher.jsonl", lambda i: "- a\n- b" if i % 2 else "Sure! So it is.")
    write("again.jsonl", lambda i: "1. a\n2. c" if i % 4 else "Certainly! It is.")
    write("student.jsonl", lambda i: "plain words", 20)
    return tmp_path


def test_models_stand_side_by_side_with_the_teachers_second_sample(cli: Cli, files: Path) -> None:
    done = cli("style", "teacher.jsonl", "student.jsonl", "--ceiling", "again.jsonl", cwd=files)
    assert done.returncode == 0, done.stderr
    head, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert head == ["metric", "identical", "n", "student", "again (ceiling)"]
    table = {row[0]: row[1:] for row in rows}
    assert list(table) == list(ALL_STYLE_METRICS)
    # Ten of the student's twenty prompts had a list, twelve of all; Wilson's interval of 0 in 10.
    assert table["list"] == ["1", "10/12", "0.00 [0.00, 0.28]", "1.00 [0.76, 1.00]"]
    assert table["opening"][2].startswith("-0.50 [")
    assert table["more_lists"][3].startswith("0.25 [")
    # Told apart on every item: that is no share, and nothing is left for a bootstrap to draw.
    assert table["distinguishable"][2] == "1.00"
    assert table["code"][1:] == ["0", "-", "-"]
    assert max(len("  ".join(row)) for row in rows) < 80


def test_a_judge_adds_the_tone(cli: Cli, files: Path) -> None:
    tones = [
        Score("tone", name, "style", value, 2, {"0": value, "1": value}, task="judge")
        for name, value in (("teacher", 1.0), ("student", 0.0))
    ]
    write_jsonl(files / "scores.jsonl", (s.to_json() for s in tones))
    words = ("style", "teacher.jsonl", "student.jsonl", "again.jsonl", "--scores")
    done = cli(*words, "scores.jsonl", cwd=files)
    assert done.stdout.splitlines()[-1].split("\t") == ["tone", "1", "2", "0.00 [0.00, 0.66]", "-"]
    wrong = cli(*words, "teacher.jsonl", cwd=files)
    assert (wrong.returncode, "scores cannot be read" in wrong.stderr) == (2, True)


def test_json_and_the_file_hold_every_item(cli: Cli, files: Path) -> None:
    done = cli("style", "teacher.jsonl", "student.jsonl", "--ceiling", "again.jsonl", "--metric",
               "more_lists", "--metric", "length", "--json", "-o", "s.jsonl",
               cwd=files)  # fmt: skip
    scores = json.loads(done.stdout)
    marked = [(s["model"], s["metric"], s["second_sample"]) for s in scores]
    assert marked == [
        ("student", "more_lists", False), ("student", "length", False),
        ("again", "more_lists", True), ("again", "length", True),
    ]  # fmt: skip
    own = next(s for s in scores if (s["model"], s["metric"]) == ("again", "more_lists"))
    assert (own["value"], own["n"], own["values"]["2"], own["better"]) == (0.25, 24, 1.0, "zero")
    assert own["low"] < 0.25 < own["high"]
    kept = list(read_jsonl(files / "s.jsonl"))
    assert kept == scores


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--ceiling", "./student.jsonl"), "a file is given twice: student.jsonl"),
        (("--metric", "lists"), "unknown style metric: lists (did you mean 'list'?)"),
        (("-o", "student.jsonl"), "student.jsonl (it is one of the samples)"),
        (("-o", "."), "the scores cannot be written: . (it is a folder)"),
        (("-o", "again.jsonl/x/s.jsonl"), "cannot be written: again.jsonl/x/s.jsonl ("),
    ],
)
def test_mistakes_are_told_before_the_work(
    monkeypatch: pytest.MonkeyPatch, files: Path, options: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(files)
    done = CliRunner().invoke(app, ["style", "teacher.jsonl", "student.jsonl", *options])
    assert isinstance(done.exception, UserError)
    assert told in str(done.exception)
