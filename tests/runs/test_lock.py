from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from epigone.api import Study
from epigone.errors import NewerFormat, UserError
from epigone.runs.checks import check_gone, check_left_out
from epigone.runs.lock import read_lock, world_of
from epigone.study.steps import expand

from .made_study import FILES, copied, lock, make


def edit(root: Path, **changes: Any) -> None:
    file = root / "study.lock.json"
    told = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({k: v for k, v in told.items() if v is not None}))


def moved(study: Study, to: Path) -> Study:
    """The run's folder alone, on a machine that has nothing else of the study."""
    shutil.copytree(study.root, to)
    shutil.rmtree(study.file.parent)
    return Study.load(to)


def test_a_runs_folder_is_the_same_study_where_nothing_else_of_it_is(tmp_path: Path) -> None:
    study = make(tmp_path / "here")
    hashes = [s.hash for s in study.expansion().steps]
    there = moved(study, tmp_path / "there" / "renamed")
    assert there.root == tmp_path / "there" / "renamed"
    assert [s.hash for s in there.expansion().steps] == hashes
    assert {p.state for p in there.plan()} == {"done"}
    (told,) = there.published(there.expansion()).scores
    assert (told.row.value, told.cite) == (0.5, "somebody")
    # What such a run notes keeps all of that.
    lock(there)
    assert [s.hash for s in there.expansion().steps] == hashes
    assert set(read_lock(there.root).files) == {"own.jinja", "rubric.yaml", "told.yaml"}


def test_a_runs_folder_finds_its_files_where_they_were(tmp_path: Path) -> None:
    study = make(tmp_path / "here")
    before = [s.hash for s in study.expansion().steps]
    again = Study.load(study.root)
    assert [s.hash for s in again.expansion().steps] == before
    (tmp_path / "here/data/talk.json").write_text("[]")
    assert [s.hash for s in again.expansion().steps] != before
    assert [s.hash for s in again.expansion().steps] == [s.hash for s in study.expansion().steps]


def test_a_run_says_what_is_gone_only_where_a_step_to_do_needs_it(tmp_path: Path) -> None:
    there = moved(make(tmp_path / "here"), tmp_path / "there")

    def check() -> None:
        world = world_of(there.file, there.root, online=True)
        check_gone(expand(there.declaration, world), there.store, world.gone)

    check()
    steps = {s.stage: s for s in there.expansion().steps}
    shutil.rmtree(there.store.folder(steps["style"]))
    check()
    shutil.rmtree(there.store.folder(steps["corpus"]))
    with pytest.raises(UserError, match=r"needs it: .*/there/data/talk.json \(put it there"):
        check()
    (there.root / "data").mkdir()
    (there.root / "data/talk.json").write_text(FILES["data/talk.json"])
    check()


def test_a_run_without_weights_says_which_step_needs_them(tmp_path: Path) -> None:
    study = copied(tmp_path)
    steps = {s.stage: s for s in study.expansion().steps}
    weights = study.store.folder(steps["train"]) / "amount-1000/model.safetensors"
    weights.unlink()
    told = {"files": [weights.relative_to(study.root).as_posix()]}
    (study.root / "left-out.json").write_text(json.dumps(told))
    check_left_out(study.expansion(), study.store)
    needs = next(s for s in study.expansion().steps if steps["train"] in s.inputs.values())
    shutil.rmtree(study.store.folder(needs))
    with pytest.raises(UserError, match=f"{needs.name} needs the weights"):
        check_left_out(study.expansion(), study.store)
    weights.write_text("w")
    check_left_out(study.expansion(), study.store)


def test_an_older_lock_opens_and_a_newer_one_is_refused(tmp_path: Path) -> None:
    study = copied(tmp_path)
    steps = read_lock(study.root).steps
    edit(study.root, format=None, folder=None, files=None)
    older = read_lock(study.root)
    assert (older.steps, older.folder, dict(older.files)) == (steps, None, {})
    edit(study.root, format=3)
    with pytest.raises(NewerFormat, match=r"in format 3; this one knows up to 2: .*\(upgrade"):
        study.plan()
    document = json.loads((study.root / "study.lock.json").read_text())
    document["steps"][0]["identity"]["version"] = 99
    edit(study.root, format=2, steps=document["steps"])
    with pytest.raises(NewerFormat, match=r"the stage \w+ was written by a newer .* 99"):
        study.plan()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"references": 1}', '{"format": "x"}'])
def test_a_damaged_lock_locks_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "study.lock.json").write_text(text)
    found = read_lock(tmp_path)
    assert found.trouble
    assert not found.references
