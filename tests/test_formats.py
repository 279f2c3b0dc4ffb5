"""Files of older layouts open, those of newer ones are refused by name."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from epigone.errors import NewerFormat
from epigone.files import write_json
from epigone.formats import Format, read_cache, write_cache
from epigone.runs.store import missing, outputs, partial_of, read_record, seal
from epigone.schema import Record
from epigone.teachers.ledger import Ledger, Row

# As records were written before they had a number: two outputs of a step.
OLDER = {
    "stage": "style", "slug": "a", "hash": "0" * 64, "identity": {"stage": "style"}, "inputs": {},
    "outputs": {"sub/y.txt": "1" * 64, "x.txt": "2" * 64}, "facts": {"n": 1}, "started": "",
    "finished": "", "seconds": 1.5, "peak_bytes": 1, "environment": {}, "fetch_seconds": 0.5,
}  # fmt: skip


def step(folder: Path, record: dict[str, object]) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "x.txt").write_text("four")
    (folder / "sub" / "y.txt").write_text("seven!!")
    write_json(folder / "record.json", record)
    return folder


@pytest.mark.parametrize(("said", "found"), [({}, 1), ({"format": 1}, 1), ({"format": 2}, 2)])
def test_a_file_without_a_number_has_the_first_layout(said: dict[str, int], found: int) -> None:
    assert Format("a thing", 2).of(said, "x") == found


@pytest.mark.parametrize("said", [0, -1, "2", True, None, 1.5])
def test_what_is_no_number_of_a_layout(said: object) -> None:
    with pytest.raises(ValueError, match="format is no number"):
        Format("a thing", 2).of({"format": said}, "x")


def test_an_older_record_opens_and_knows_no_sizes(tmp_path: Path) -> None:
    folder = step(tmp_path / "a", OLDER)
    record = read_record(folder)
    assert record is not None
    assert (record.facts, record.fetch_seconds, record.sizes) == ({"n": 1}, 0.5, {})
    assert missing(folder, record) == []
    (folder / "x.txt").write_text("longer than it was")
    (folder / "sub" / "y.txt").unlink()
    assert missing(folder, record) == ["sub/y.txt"]


def test_a_record_of_today_tells_what_was_cut_off(tmp_path: Path) -> None:
    folder = tmp_path / "style" / "a-00000000"
    partial = step(partial_of(folder), {})
    made = seal(partial, folder, Record.from_json({**OLDER, "outputs": outputs(partial)}))
    told = json.loads((folder / "record.json").read_text())
    assert (told["format"], told["sizes"]) == (2, {"sub/y.txt": 7, "x.txt": 4})
    assert read_record(folder) == made
    assert missing(folder, made) == []
    (folder / "x.txt").write_text("fou")
    assert missing(folder, made) == ["x.txt"]


def test_a_newer_record_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = step(tmp_path / "a", {**OLDER, "format": 3, "what": "nobody knows"})
    with pytest.raises(NewerFormat) as caught:
        read_record(folder)
    assert str(caught.value) == (
        "a step's record was written by a newer Epigone, in format 3; this one knows up to 2: "
        "style/a (upgrade Epigone)"
    )


def test_a_cache_is_read_in_both_layouts_and_never_in_the_way(tmp_path: Path) -> None:
    file = tmp_path / "cache.json"
    assert read_cache(file) == {}
    write_json(file, {"train": [1.0]})
    assert read_cache(file) == {"train": [1.0]}
    write_cache(file, {"train": [2.0]})
    assert read_cache(file) == {"train": [2.0]}
    assert json.loads(file.read_text())["format"] == 2
    for text in (
        "",
        "[]",
        '{"format": 2}',
        '{"format": 2, "rows": 3}',
        '{"format": 9, "rows": {}}',
    ):
        file.write_text(text)
        assert read_cache(file) == {}


def came(key: str) -> Row:
    told = {"sample": 0, "path": "/x", "request": {}, "response": {}, "cost": "0.5"}
    return Row("came", key, told)


def test_an_older_ledger_opens_as_it_is_and_a_newer_one_is_refused(tmp_path: Path) -> None:
    older = tmp_path / "older.jsonl"
    older.write_bytes(came("a").line())
    ledger = Ledger(older)
    assert (len(ledger), ledger.spent) == (1, Decimal("0.5"))
    ledger.close()
    assert older.read_bytes() == came("a").line()
    newer = tmp_path / "newer.jsonl"
    newer.write_bytes(Row("format", "", {"format": 2}).line() + came("a").line())
    for look in (True, False):
        with pytest.raises(NewerFormat, match=r"a ledger was .* in format 2; .*newer.jsonl"):
            Ledger(newer, look=look)
