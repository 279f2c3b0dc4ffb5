from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from epigone.errors import UserError
from epigone.files import aside_of
from epigone.runs.garbage import sweep
from epigone.runs.lease import Runner
from epigone.runs.store import partial_of
from epigone.teachers.ledger import Ledger, Row

from .made_study import answer, copied, no_locks, tree

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def littered(folder: Path) -> tuple[Path, dict[str, str]]:
    """A folder of one study, and what in it may go: its kind by its path."""
    study = copied(folder)
    runs, root = study.root.parent, study.root
    first, second = (study.store.folder(s) for s in study.expansion().steps[:2])
    shutil.copytree(first, old := first.with_name("old-01234567"))
    for place in (partial_of(old), partial_of(first)):
        place.mkdir()
        (place / "rows").write_text("123")
    # What a step goes on with is no litter, nor what is still being written.
    second.rename(partial_of(second))
    aside = aside_of(root / "w.json").name
    for name, hours in (
        (aside, 2), (".x.json.1.tmp", 2), (".y.json.1.tmp", 0), (".z.json.tmp", 2),
    ):  # fmt: skip
        (root / name).write_text("12345")
        os.utime(root / name, (then := (root / name).stat().st_mtime - 3600 * hours, then))
    (root / "files/00000000").mkdir()
    (root / "files/00000000/own.jinja").write_text("1234")
    (runs / ".import-abc").mkdir()
    (root / "ratings.db").write_text("people's")
    ledger = Ledger(runs / "ledger/other-1.jsonl", "another")
    ledger.write(answer("c", "another", "2.5"))
    ledger.close()
    place = f"made/steps/{first.relative_to(root / 'steps')}"
    return runs, {
        f"made/steps/{old.parent.name}/old-01234567": "step",
        f"made/steps/{old.parent.name}/old-01234567.partial": "unfinished",
        f"{place}.partial": "unfinished",
        f"made/{aside}": "left-over",
        "made/.x.json.1.tmp": "left-over",
        "made/files/00000000": "copy",
        ".import-abc": "left-over",
    }


def test_what_nobody_refers_to_is_listed_and_removed_when_told(tmp_path: Path) -> None:
    runs, litter = littered(tmp_path)
    before = tree(tmp_path)
    found = sweep(runs)
    assert {g.path: g.what for g in found.found} == litter
    assert tree(tmp_path) == before
    sizes = {g.path: g.bytes for g in found.found}
    assert sizes["made/.x.json.1.tmp"] == 5
    assert found.bytes == sum(
        len(content)
        for name, content in before.items()
        if any(f"{name}/".startswith(f"runs/{path}/") for path in litter)
    )
    removed = sweep(runs, remove=True)
    assert {g.path for g in removed.found} == set(litter)
    left = {n for n in before if not any(f"{n}/".startswith(f"runs/{p}/") for p in litter)}
    assert tree(tmp_path).keys() == left
    assert sweep(runs).found == []


def test_what_somebody_works_on_is_left_alone(tmp_path: Path) -> None:
    runs, litter = littered(tmp_path)
    before = tree(runs)
    with Runner(runs / "made", "a run"):
        for remove in (False, True):
            found = sweep(runs, remove=remove)
            assert {g.path for g in found.found} <= {".import-abc"}
            assert f"pid {os.getpid()}" in found.left["made"]
    assert tree(runs) == before
    held = next(path for path, what in litter.items() if what == "unfinished")
    descriptor = os.open(runs / held, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    found = sweep(runs, remove=True)
    os.close(descriptor)
    assert (runs / held).is_dir()
    assert found.left == {held: "a process works in it"}


def test_without_locks_nothing_is_removed_that_may_be_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, litter = littered(tmp_path)
    monkeypatch.setattr(fcntl, "flock", no_locks)
    found = sweep(runs, remove=True)
    locked = {path for path, what in litter.items() if what in ("step", "unfinished")}
    assert found.left.keys() == {*locked, ".import-abc"}
    assert all("has no locks" in why for why in found.left.values())
    assert {g.path for g in found.found} == litter.keys() - found.left.keys()
    assert all((runs / path).exists() for path in found.left)


def test_a_study_without_a_lock_is_left_alone(tmp_path: Path) -> None:
    runs, _ = littered(tmp_path)
    (runs / "made/study.lock.json").write_text("{")
    before = tree(runs / "made")
    found = sweep(runs, remove=True)
    assert [g.path for g in found.found] == [".import-abc"]
    assert found.left["made"] == "study.lock.json is damaged (epigone verify)"
    (runs / "made/study.lock.json").unlink()
    assert "no lock file" in sweep(runs).left["made"]
    assert tree(runs / "made").keys() == before.keys() - {"study.lock.json"}


def test_one_studys_folder_alone(tmp_path: Path) -> None:
    runs, litter = littered(tmp_path)
    assert {g.path for g in sweep(runs / "made").found} == litter.keys() - {".import-abc"}
    with pytest.raises(UserError, match="no such folder"):
        sweep(tmp_path / "absent")


def test_paid_answers_go_only_where_it_was_said_twice(cli: Cli, tmp_path: Path) -> None:
    runs, litter = littered(tmp_path)
    ledgers = sorted((runs / "ledger").iterdir())
    done = cli("gc", "--ledger", cwd=tmp_path)
    assert "1 answers for $2.50, asked for another" in done.stdout
    done = cli("gc", "--remove", "--ledger", cwd=tmp_path)
    assert done.returncode == 2
    assert "say --ledger twice to remove them" in done.stderr
    assert all((runs / path).exists() for path in litter)
    done = cli("gc", "--remove", "--json", cwd=tmp_path)
    assert {g["path"] for g in json.loads(done.stdout)["found"]} == litter.keys()
    assert sorted((runs / "ledger").iterdir()) == ledgers
    done = cli("gc", "--remove", "--ledger", "--ledger", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # That of the study stays.
    assert sorted((runs / "ledger").iterdir()) == [p for p in ledgers if "other" not in p.name]
    assert cli("gc", cwd=tmp_path).stdout.strip() == "nothing to remove"
    assert (runs / "made/ratings.db").exists()


def test_paid_answers_of_a_renamed_study_are_its_own(tmp_path: Path) -> None:
    runs, root = littered(tmp_path)[0], tmp_path / "runs/renamed"
    (runs / "made").rename(root)
    other = {"ledger/other-1.jsonl"}

    def offered() -> set[str]:
        return {g.path for g in sweep(runs, ledgers=True).found if g.what == "ledger"}

    assert offered() == other
    # Its copy of the study file tells as well as its lock.
    lock, file = root / "study.lock.json", root / "study.yaml"
    lock.write_text("{")
    assert offered() == other
    file.write_text("bases: [")
    found = sweep(runs, ledgers=True)
    assert not [g for g in found.found if g.what == "ledger"]
    why = "renamed does not tell which study it is (epigone verify)"
    assert {name for name, told in found.left.items() if told == why} > other


def test_a_ledger_that_cannot_be_read_to_its_end_is_kept(tmp_path: Path) -> None:
    runs, _ = littered(tmp_path)
    file = runs / "ledger/other-1.jsonl"
    first, *lines = file.read_bytes().splitlines(keepends=True)
    for content, why in (
        ([Row("format", "", {"format": 9}).line(), *lines],
         "a ledger was written by a newer Epigone, in format 9; this one knows up to 1"),
        ([first, lines[0].replace(b"another", b"nothing"), *lines[1:]],
         "1 line is damaged (epigone verify)"),
        ([first, Row("came", "c", {"cost": "much"}).line(), Row("sent", "c", {}).line()],
         "2 lines are damaged (epigone verify)"),
    ):  # fmt: skip
        file.write_bytes(b"".join(content))
        found = sweep(runs, remove=True, ledgers=True)
        assert found.left == {"ledger/other-1.jsonl": why}
        assert file.read_bytes() == b"".join(content)


def test_a_folder_without_studies_is_told(cli: Cli, tmp_path: Path) -> None:
    assert cli("gc", tmp_path, cwd=tmp_path).stdout == f"no study lies in {tmp_path}\n"


def test_a_link_is_removed_and_not_what_it_points_to(tmp_path: Path) -> None:
    study = copied(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("x")
    link = study.root / "steps/train/old-01234567"
    link.symlink_to(tmp_path / "mine", target_is_directory=True)
    assert [g.path for g in sweep(study.root.parent, remove=True).found] == [
        "made/steps/train/old-01234567"
    ]
    assert not link.is_symlink()
    assert (tmp_path / "mine/file").exists()
