from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epigone.errors import UserError
from epigone.files import read_jsonl
from epigone.raters.export import COLUMNS, json_schema, read_ratings, write_ratings
from epigone.schema import Rating

ROOT = Path(__file__).parents[2]
ROW: dict[str, Any] = {
    "item": "i1", "rater": "r1", "a": "base", "b": "teacher", "preference": 1, "left": "a",
}  # fmt: skip
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12) | st.sampled_from(
    [
        "=1+1",
        "'=x",
        "''",
        "'",
        "-2",
        "@a",
        "\t",
        "\r\n=2",
        'a"b',
        "a,b",
        "\uff1d1",
        " ",
        "\x00",
        "+",
    ]
)
NAMES = TEXTS.filter(bool)
LEVELS = st.integers(-2, 2)
RATINGS = st.builds(
    lambda a, b, **rest: Rating(a=min(a, b), b=max(a, b + "2"), **rest),
    item=NAMES, rater=NAMES, a=NAMES, b=NAMES, preference=LEVELS, left=st.sampled_from("ab"),
    workforce=st.sampled_from(["private", "prolific", "mturk", "public", "judge"]),
    purpose=st.sampled_from(["item", "training", "gold", "attention"]), expected=LEVELS,
    seconds=st.none() | st.floats(0, 1e6), reasons=st.lists(TEXTS, max_size=3).map(tuple),
    comment=TEXTS, excluded=TEXTS, at=st.sampled_from(["", "2026-01-31T12:00:00.250Z"]),
).filter(lambda r: r.a < r.b)  # fmt: skip


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def one(path: Path) -> Rating:
    (found,) = read_ratings([path]).ratings
    return found


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
@settings(max_examples=40, deadline=None)
@given(ratings=st.lists(RATINGS, max_size=4, unique_by=lambda r: (r.item, r.rater)))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, ending: str, ratings: list[Rating]
) -> None:
    path = tmp_path_factory.mktemp("ratings") / f"r.{ending}"
    assert write_ratings(path, ratings) == len(ratings)
    assert read_ratings([path]).ratings == tuple(ratings)


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_spreadsheet_runs_nothing(tmp_path: Path, text: str) -> None:
    rating = Rating(text, text, "base", text + "z", -1, "b", comment=text, excluded=text)
    write_ratings(tmp_path / "r.csv", [rating if rating.a < rating.b else _turned(rating)])
    with open(tmp_path / "r.csv", newline="") as f:
        head, cells = csv.reader(f)
    told = dict(zip(head, cells, strict=True))
    for name in ("item", "rater", "comment", "excluded"):
        assert told[name] == "'" + text
    assert told["preference"] in ("-1", "1")  # a number is no formula
    assert one(tmp_path / "r.csv").comment == text


def _turned(r: Rating) -> Rating:
    return Rating(r.item, r.rater, r.b, r.a, 1, "a", comment=r.comment, excluded=r.excluded)


def test_models_are_put_into_the_order_of_their_names(tmp_path: Path) -> None:
    row = ROW | {"a": "teacher", "b": "base", "left": "a", "preference": 2, "expected": 1,
                 "purpose": "gold"}  # fmt: skip
    found = one(lines(tmp_path / "r.jsonl", row))
    assert (found.a, found.b, found.left) == ("base", "teacher", "b")
    assert (found.preference, found.expected) == (-2, -1)


def test_the_schema_takes_what_is_written(tmp_path: Path) -> None:
    judged = Rating("i1", "gpt", "base", "teacher", None, "a", workforce="judge")
    full = Rating("i2", "r", "base", "teacher", 2, "b", "prolific", "gold", 1, 3.5, ("safe",),
                  "=1", "too fast", "2026-01-31T12:00:00Z")  # fmt: skip
    write_ratings(tmp_path / "r.jsonl", [judged, full])
    schema = jsonschema.Draft202012Validator(json_schema())
    rows = list(read_jsonl(tmp_path / "r.jsonl"))
    assert [list(schema.iter_errors(row)) for row in rows] == [[], []]
    assert not schema.is_valid(rows[0] | {"preference": 3})
    assert not schema.is_valid(rows[0] | {"worker_id": "A1"})
    assert schema.is_valid(rows[0] | {"x_age": 33})


def test_a_file_of_the_fewest_columns(tmp_path: Path) -> None:
    text = "\ufeffitem,rater,a,b,preference,left,x_age\ni1,r1,base,teacher,-2.0,b,33\n"
    (tmp_path / "r.csv").write_text(text)
    assert one(tmp_path / "r.csv") == Rating("i1", "r1", "base", "teacher", -2, "b")


def test_a_judge_without_a_verdict(tmp_path: Path) -> None:
    rating = Rating("i1", "gpt", "base", "teacher", None, "a", workforce="judge")
    for name in ("r.csv", "r.jsonl"):
        write_ratings(tmp_path / name, [rating])
        assert one(tmp_path / name) == rating


def test_a_row_that_stands_twice_counts_once(tmp_path: Path) -> None:
    old = lines(tmp_path / "old.jsonl", ROW)
    new = lines(tmp_path / "new.jsonl", ROW, ROW | {"item": "i2"})
    found = read_ratings([old, new])
    assert (len(found.ratings), found.repeated) == (2, 1)
    changed = lines(tmp_path / "changed.jsonl", ROW | {"preference": -1})
    with pytest.raises(UserError, match=r"changed.jsonl, line 1: .* old.jsonl, line 1.*newest"):
        read_ratings([old, changed])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"preference": 3}, "preference: input should be less than or equal to 2: 3"),
        ({"preference": "1"}, "preference: input should be a valid integer"),
        ({"preference": True}, "preference: input should be a valid integer: True"),
        ({"preference": 0.5}, "preference: input should be a valid integer"),
        ({"preference": None}, "only a judge's preference may be missing"),
        ({"b": "base"}, "a and b must be two models"),
        ({"a": ""}, "a: string should have at least 1 character"),
        ({"item": 7}, "item: input should be a valid string: 7"),
        ({"item": "\ud800"}, "item: "),
        ({"left": "left"}, "left: input should be 'a' or 'b': left"),
        ({"workforce": "mturc"}, "workforce: "),
        ({"purpose": "gold"}, "expected is needed where the purpose is gold"),
        ({"seconds": -1}, "seconds: "),
        ({"seconds": float("nan")}, "seconds: "),
        ({"at": "2026-01-31 12:00"}, "at: a time in UTC is needed"),
        ({"at": "2026-01-31T12:00:00+02:00"}, "at: a time in UTC is needed"),
        ({"reasons": "clear"}, "reasons: input should be a valid tuple"),
        ({"secnds": 4}, r"unknown column: secnds \(did you mean 'seconds'\?"),
        ({"version": 2}, r"written by a newer Epigone, version: 2"),
    ],
)
def test_a_row_that_is_wrong_is_told_in_a_line(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path = lines(tmp_path / "r.jsonl", ROW, ROW | {"item": "i2"} | change)
    with pytest.raises(UserError, match=rf"^r.jsonl, line 2: {said}"):
        read_ratings([path])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("r.txt", b"", "ratings are kept as .jsonl or .csv"),
        ("r.jsonl", b"[1]\n", "line 1: no JSON object"),
        ("r.jsonl", b"[" * 100_000, "line 1: no JSON object"),
        ("r.jsonl", b'{"item": "\xff"}\n', "not a text in UTF-8"),
        ("r.jsonl", b'{"item": "i"}\n', "line 1: a column is missing: rater"),
        ("r.csv", b"", "without a line of column names"),
        ("r.csv", b"item,item\n", "line 1: a column stands twice: item"),
        ("r.csv", b"item,rater\n", "line 1: a column is missing: a"),
        ("r.csv", b"item,rater,a,b,preference,left\ni,r,m,n,1\n", "line 2: 6 cells are needed: 5"),
        ("r.csv", b"item,rater,a,b,preference,left\ni,r,m,n,one,a\n", "preference is a number"),
        ("r.csv", b'item,rater,a,b,preference,left\n"i"x,r,m,n,1,a\n', "line 2: no CSV"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_ratings([tmp_path / name])


def test_the_documented_schema_is_this_one() -> None:
    assert json.loads((ROOT / "docs/ratings.schema.json").read_text()) == json_schema()
    page = (ROOT / "docs/ratings-schema.md").read_text()
    assert [c for c in COLUMNS if f"| `{c}` |" not in page] == []
