"""epigone style: the table, the ceiling column, JSON, and every item's value."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from epigone import api
from epigone.cli import app
from epigone.errors import CorpusError, UserError
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
    assert "no interval (no spread between items): unigram of student, " in done.stderr
    # None of twenty refuses, nor does the teacher: Wilson's bound of 0 in 20, on both sides.
    assert table["refusal"][2] == "0.00 [-0.16, 0.16]"
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


def test_tones_count_on_the_items_of_the_files_alone(
    monkeypatch: pytest.MonkeyPatch, files: Path
) -> None:
    monkeypatch.chdir(files)

    def tones(**values: dict[str, float]) -> None:
        rows = [Score("tone", m, "style", 0.5, len(v), v, task="judge") for m, v in values.items()]
        write_jsonl(Path("tones.jsonl"), (s.to_json() for s in rows))

    def run(scores: str) -> list[Score]:
        return api.style("teacher.jsonl", ["student.jsonl"], metrics=["list"], judged=scores)

    # The student answered 20 of the teacher's 24, and nobody the others.
    tones(student={"0": 1.0, "1": 0.0, "21": 1.0, "x": 1.0}, teacher={"0": 1.0, "x": 0.0})
    found = run("tones.jsonl")[-1]
    assert (found.value, found.n, found.values) == (0.5, 2, {"0": 1.0, "1": 0.0})
    assert found.ceiling == 1.0
    tones(student={"x": 1.0, "y": 0.0})
    with pytest.raises(CorpusError, match="tone of 'student' is that of other items"):
        run("tones.jsonl")
    with pytest.raises(CorpusError, match=r"scores cannot be read: none\.jsonl"):
        run("none.jsonl")
    row = Score("tone", "student", "style", 1, 1, {}).to_json()
    write_jsonl(Path("own.jsonl"), [row | {"low": 0}])  # as `style -o` writes it
    write_jsonl(Path("bad.jsonl"), [row | {"values": {"0": "high"}}])
    for name in ("own.jsonl", "bad.jsonl", "teacher.jsonl"):
        with pytest.raises(CorpusError, match="not the scores of epigone judge"):
            run(name)


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
    flat = next(s for s in scores if (s["model"], s["metric"]) == ("student", "length"))
    assert (own["note"], flat["low"], flat["note"]) == ("", None, "undefined on these items")
    kept = list(read_jsonl(files / "s.jsonl"))
    assert kept == scores


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--ceiling", "./student.jsonl"), "a file is given twice: student.jsonl"),
        (("--metric", "lists"), "unknown style metric: lists (did you mean 'list'?)"),
        (("-o", "student.jsonl"), "student.jsonl (it is one of the files that are read)"),
        (("--scores", "again.jsonl", "-o", "./again.jsonl"), "(it is one of the files that are"),
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
