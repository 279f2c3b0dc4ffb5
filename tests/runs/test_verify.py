from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from epigone.cli.verify import todo
from epigone.files import read_json, write_json
from epigone.runs.verify import Checked, side_by_side, verify

from .made_study import copied, tree

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def told(found: Checked) -> set[tuple[str, str]]:
    return {(t.what, t.path.rpartition("/")[2]) for t in found.troubles}


def test_a_study_as_it_was_made_is_whole(tmp_path: Path) -> None:
    study = copied(tmp_path)
    before = tree(tmp_path)
    found = verify(study.root)
    assert found.whole
    assert not found.troubles
    assert found.steps == len(study.expansion().steps)
    # Two files of the student, one of every other step, three copies, a ledger.
    assert found.files == found.steps + 1 + 3 + 1
    assert found.answers == 2
    assert tree(tmp_path) == before


def test_what_is_damaged_missing_or_too_much_is_told(tmp_path: Path) -> None:
    study = copied(tmp_path)
    first, second, third, fourth, fifth = (
        study.store.folder(s) for s in study.expansion().steps[:5]
    )
    content = (first / "rows.jsonl").read_bytes()
    (first / "rows.jsonl").write_bytes(content[:9] + bytes([content[9] ^ 1]) + content[10:])
    (second / "rows.jsonl").unlink()
    (third / "notes.txt").write_text("mine")
    with open(fourth / "rows.jsonl", "r+b") as file:
        file.truncate(7)
    record = read_json(fifth / "record.json")
    write_json(fifth / "record.json", {**record, "identity": {**record["identity"], "version": 0}})
    (ledger,) = (study.root.parent / "ledger").glob("*.jsonl")
    ledger.write_bytes(ledger.read_bytes().replace(b'"cost":"0.25"', b'"cost":"0.00"'))
    next((study.root / "files").rglob("own.jinja")).write_text("x")
    found = verify(study.root)
    assert not found.whole
    assert {(t.what, t.path) for t in found.troubles} == {
        ("damaged", f"{_place(first, study.root)}/rows.jsonl"),
        ("missing", f"{_place(second, study.root)}/rows.jsonl"),
        ("surplus", f"{_place(third, study.root)}/notes.txt"),
        ("damaged", f"{_place(fourth, study.root)}/rows.jsonl"),
        ("damaged", f"{_place(fifth, study.root)}/record.json"),
        ("damaged", f"../ledger/{ledger.name}"),
        ("damaged", next(iter((study.root / "files").rglob("own.jinja")))
         .relative_to(study.root).as_posix()),
    }  # fmt: skip
    assert found.answers == 1
    why = {t.path: t.why for t in found.troubles}
    assert "1 lines whose checksum is wrong: 5" in why[f"../ledger/{ledger.name}"]


def _place(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix()


def test_a_lock_or_a_record_of_another_study_is_damage(tmp_path: Path) -> None:
    study = copied(tmp_path)
    file = study.root / "study.lock.json"
    lock = read_json(file)
    lock["steps"][0]["hash"] = "0" * 64
    write_json(file, lock)
    assert told(verify(study.root)) == {
        ("damaged", "study.lock.json"),
        ("damaged", "record.json"),  # the lock has another hash for the step
    }
    file.write_text("{")
    assert ("damaged", "study.lock.json") in told(verify(study.root))


def test_a_line_that_is_being_written_is_no_damage(tmp_path: Path) -> None:
    study = copied(tmp_path)
    (ledger,) = (study.root.parent / "ledger").glob("*.jsonl")
    with open(ledger, "ab") as file:
        file.write(b'{"sum":"00')
    assert verify(study.root).whole


def test_ratings_are_looked_at_by_their_database(tmp_path: Path) -> None:
    study = copied(tmp_path)
    file = study.root / "ratings.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE rater (id INTEGER PRIMARY KEY)")
        connection.execute("CREATE TABLE vote (x INTEGER REFERENCES rater (id))")
        connection.executemany("INSERT INTO rater VALUES (?)", [(i,) for i in range(5000)])
        connection.commit()
        assert verify(study.root).whole
        connection.execute("INSERT INTO vote VALUES (9999)")
        connection.commit()
    assert [t.why for t in verify(study.root).troubles] == ["rows of vote point to nothing"]
    content = bytearray(file.read_bytes())
    content[4096 : 3 * 4096] = b"\xff" * 8192
    file.write_bytes(content)
    assert told(verify(study.root)) == {("damaged", "ratings.db")}
    # Where the study's site has them, as an export would find them.
    file.rename(tmp_path / "site.db")
    assert verify(study.root).whole
    (study.root / "ratings.place").write_text(f"{tmp_path / 'site.db'}\n")
    bad = verify(study.root).troubles
    assert [(t.what, t.path) for t in bad] == [("damaged", str(tmp_path / "site.db"))]
    assert todo(bad) == f"bring {tmp_path / 'site.db'} back from a copy"


def test_the_verb_ends_with_1_and_says_what_to_do(cli: Cli, tmp_path: Path) -> None:
    study = copied(tmp_path)
    done = cli("verify", "study.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "all of it is as it was made" in done.stdout
    folder = study.store.folder(study.expansion().steps[0])
    (folder / "rows.jsonl").unlink()
    done = cli("verify", "runs/made", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "1 file is damaged or missing: delete the folders of these steps and run" in done.stderr
    done = cli("verify", "runs/made", "--json", cwd=tmp_path)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["whole"], [t["what"] for t in found["troubles"]]) == (False, ["missing"])


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_threads_give_what_one_would(count: int) -> None:
    assert list(side_by_side(lambda n: n * n, range(count))) == [n * n for n in range(count)]
