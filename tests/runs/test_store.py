from __future__ import annotations

import json
from pathlib import Path

import pytest

from epigone.errors import NewerFormat
from epigone.files import write_aside
from epigone.runs import store as store_module
from epigone.runs.store import Damaged, outputs, partial_of, read_record, seal, verify
from epigone.schema import Record


def record(**kw: object) -> Record:
    fields = {
        "stage": "style", "slug": "a", "hash": "0" * 64, "identity": {}, "inputs": {},
        "outputs": {}, "facts": {}, "started": "", "finished": "", "seconds": 1.0,
        "peak_bytes": 1, "environment": {},
    }  # fmt: skip
    return Record(**{**fields, **kw})  # type: ignore[arg-type]


def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "style" / "a-00000000"
    partial = partial_of(folder)
    (partial / "sub").mkdir(parents=True)
    (partial / "x.txt").write_text("x")
    (partial / "sub" / "y.txt").write_text("y")
    (partial / "log.txt").write_text("noise")
    seal(partial, folder, record(outputs=outputs(partial)))
    return folder


def test_a_sealed_step_reads_back_and_verifies(tmp_path: Path) -> None:
    folder = sealed(tmp_path)
    found = read_record(folder)
    assert found is not None
    assert sorted(found.outputs) == ["sub/y.txt", "x.txt"]
    assert verify(folder) == []
    assert not partial_of(folder).exists()


def test_changed_and_missing_outputs_are_found(tmp_path: Path) -> None:
    folder = sealed(tmp_path)
    (folder / "x.txt").write_text("other")
    (folder / "sub" / "y.txt").unlink()
    assert sorted(verify(folder)) == ["sub/y.txt", "x.txt"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stage": 1}', json.dumps({"a": 1})])
def test_a_damaged_record_is_told_and_not_trusted(tmp_path: Path, text: str) -> None:
    folder = sealed(tmp_path)
    (folder / "record.json").write_text(text)
    with pytest.raises(Damaged, match="delete"):
        read_record(folder)


def test_no_flipped_bit_of_a_record_goes_unseen(tmp_path: Path) -> None:
    folder = sealed(tmp_path)
    file = folder / "record.json"
    whole, content = read_record(folder), file.read_bytes()
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        file.write_bytes(flipped)
        with pytest.raises((Damaged, NewerFormat)):
            read_record(folder)
    file.write_bytes(content)
    assert read_record(folder) == whole
    # Records of before had no sum.
    row = json.loads(content)
    del row["sum"]
    file.write_text(json.dumps(row))
    assert read_record(folder) == whole


def test_a_folder_without_a_record_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(Damaged, match="no record"):
        read_record(tmp_path / "x")
    assert read_record(tmp_path / "absent") is None


def test_a_kill_before_the_rename_leaves_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "style" / "a-00000000"
    partial = partial_of(folder)
    partial.mkdir(parents=True)
    (partial / "x.txt").write_text("x")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store_module, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        seal(partial, folder, record())
    assert read_record(folder) is None
    assert (partial / "x.txt").exists()


def test_two_who_write_one_file_under_one_process_number_do_not_meet(tmp_path: Path) -> None:
    file = tmp_path / "study.lock.json"
    with write_aside(file) as first:
        first.write(b"first")
        with write_aside(file) as second:
            second.write(b"second, and longer")
        assert file.read_bytes() == b"second, and longer"
    assert file.read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == [file.name]
