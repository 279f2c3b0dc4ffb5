"""Prompts of every form a file may have; what is none is counted."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epigone.errors import CorpusError
from epigone.schema import Message
from epigone.teachers.prompts import read_prompts


def file(folder: Path, *rows: Any, name: str = "p.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_lines_of_a_text(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes("\ufeffone\r\n\r\n  two\u2028still two \nthree\fthree\none".encode())
    found = read_prompts(path)
    assert [p.turns for p in found.prompts] == [
        ("one",), ("two\u2028still two",), ("three\x0cthree",),
    ]  # fmt: skip
    assert found.skipped == {"asked already": 1}


@pytest.mark.parametrize(
    ("row", "given", "turns"),
    [
        ("a text", [], ["a text"]),
        ({"prompt": "p"}, [], ["p"]),
        ({"question": "q", "answer": "a"}, [], ["q"]),
        ({"instruction": "do", "input": "this", "output": "x"}, [], ["do\n\nthis"]),
        ({"instruction": "do", "input": "", "system": "s"}, [("system", "s")], ["do"]),
        (
            {"instruction": "and then?", "history": [["a", "b"]]},
            [("user", "a"), ("assistant", "b")],
            ["and then?"],
        ),
        (
            {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]},
            [("system", "s")],
            ["u"],
        ),
        (
            {"conversations": [{"from": "human", "value": "1"}, {"from": "gpt", "value": "x"},
                               {"from": "human", "value": "2"}, {"from": "gpt", "value": "y"}]},
            [],
            ["1", "2"],
        ),
        (
            {"messages": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "x"},
                          {"role": "user", "content": "2"}]},
            [("user", "1"), ("assistant", "x")],
            ["2"],
        ),
    ],
)  # fmt: skip
def test_what_a_row_asks(
    tmp_path: Path, row: Any, given: list[tuple[str, str]], turns: list[str]
) -> None:
    found = read_prompts(file(tmp_path, row)).prompts[0]
    assert [(m.role, m.content) for m in found.given] == given
    assert list(found.turns) == turns


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (5, "neither text nor object"),
        ({"text": "?"}, "no prompt"),
        ({"prompt": "a\x00b"}, "characters that no text has"),
        ({"messages": [{"role": "user"}]}, "a turn without a role or a text"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "a tool's turn"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "no user's turn"),
        ({"instruction": "x", "history": "y"}, "a history that is no pairs"),
        ("   ", "no user's turn"),
    ],
)
def test_what_is_no_prompt_is_counted(tmp_path: Path, row: Any, why: str) -> None:
    found = read_prompts(file(tmp_path, "fine", row, {"prompt": "as well"}))
    assert len(found.prompts) == 2
    assert found.skipped == {why: 1}
    with pytest.raises(CorpusError, match="no prompt in the file") as told:
        read_prompts(file(tmp_path, row))
    assert why in str(told.value)


def test_long_names_stay_apart_and_odd_ones_can_be_written(tmp_path: Path) -> None:
    rows = [{"id": "x" * 250, "prompt": f"p{i}"} for i in range(3)]
    rows.append({"id": "\ud800", "prompt": "half a character"})
    found = read_prompts(file(tmp_path, *rows))
    names = [p.id for p in found.prompts]
    assert len(set(names)) == 4
    assert all(len(name) < 200 and name.encode() for name in names)


def test_a_system_prompt_stands_where_there_is_none(tmp_path: Path) -> None:
    own = {"messages": [{"role": "system", "content": "own"}, {"role": "user", "content": "u"}]}
    found = read_prompts(file(tmp_path, "text", own), "given")
    assert [p.given for p in found.prompts] == [
        (Message("system", "given"),), (Message("system", "own"),),
    ]  # fmt: skip


def test_a_file_that_breaks_off_says_so(tmp_path: Path) -> None:
    whole = gzip.compress("".join(json.dumps({"prompt": f"{i} {i * i}"}) + "\n"
                                  for i in range(40_000)).encode())  # fmt: skip
    path = tmp_path / "p.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    found = read_prompts(path)
    assert 0 < len(found.prompts) < 40_000
    assert any("breaks off" in why for why in found.skipped)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="the prompts cannot be read"):
        read_prompts(tmp_path / "none.jsonl")


@settings(max_examples=80, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_every_text_is_asked_or_counted(texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = file(Path(folder), *texts, name="p.jsonl")
        try:
            found = read_prompts(path)
        except CorpusError:
            assert not any(t.strip() and "\x00" not in t for t in texts)
            return
        assert len(found.prompts) + sum(found.skipped.values()) == len(texts)
        assert {p.turns[0] for p in found.prompts} <= set(texts)
