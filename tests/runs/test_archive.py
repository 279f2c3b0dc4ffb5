from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from epigone.api import Study
from epigone.cli.archive import bring
from epigone.errors import EpigoneError, MissingExtra, NewerFormat, UserError
from epigone.runs import unpack
from epigone.runs.archive import MANIFEST, Hostile, Manifest
from epigone.runs.lease import Runner
from epigone.runs.lock import read_lock
from epigone.runs.pack import pack
from epigone.runs.verify import left_out, verify
from epigone.teachers.ledger import Ledger, Row, ledger_file, sent

from .made_study import ENDPOINT, answer, copied, finish, lock, no_locks, tree

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
KINDS = ("tar", "tar.gz", "tar.zst")


def packed(study: Study, out: Path, **how: Any) -> Manifest:
    return pack(study.root, out, study.world(), **how)


def ledger_of(runs: Path) -> Ledger:
    return Ledger(ledger_file(runs / "ledger", ENDPOINT), "made", look=True)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return copied(tmp_path / "here")


def test_a_damaged_lock_is_told_with_what_to_do(cli: Cli, tmp_path: Path, study: Study) -> None:
    file = study.root / "study.lock.json"
    file.write_bytes(file.read_bytes() + b"{")
    with pytest.raises(UserError, match=r"lock is damaged: .*json \(run the study again from its"):
        packed(study, tmp_path / "made.tar")
    told = cli("status", "study.yaml", cwd=tmp_path / "here").stdout
    assert "no folder" not in told
    told = cli("status", "study.yaml", "--runs", "nosuch", cwd=tmp_path / "here").stdout
    assert told.endswith("\n(no folder nosuch yet)\n")
    told = cli("status", "study.yaml", cwd=tmp_path / "here").stdout
    assert told.endswith("\nstudy.lock.json is damaged (epigone verify)\n")
    lock(study)  # as a run does
    assert "damaged" not in cli("status", "study.yaml", cwd=tmp_path / "here").stdout
    assert packed(study, tmp_path / "made.tar").done == len(study.expansion().steps)


@pytest.mark.parametrize("kind", KINDS)
def test_a_study_is_the_same_on_another_machine(tmp_path: Path, study: Study, kind: str) -> None:
    out = tmp_path / f"made.{kind}"
    made = packed(study, out)
    steps = study.expansion().steps
    assert (made.done, made.steps) == (len(steps), len(steps))
    assert list(made.needs) == ["data/talk.json"]
    want, lay = tree(study.root), read_lock(study.root).folder
    shutil.rmtree(tmp_path / "here")
    done = unpack.unpack(out, tmp_path / "there")
    assert (done.new, done.steps, done.answers) == (True, len(steps), 2)
    there = Study.load(done.root)
    assert {p.state for p in there.plan()} == {"done"}
    assert [s.hash for s in there.expansion().steps] == [s.hash for s in steps]
    found = tree(done.root)
    assert found.keys() == want.keys()
    assert [n for n in want if want[n] != found[n]] == ["study.lock.json"]
    # Where it lay tells of somebody's machine.
    assert str(lay).encode() in want["study.lock.json"]
    assert str(lay).encode() not in b"".join(found.values())
    assert verify(done.root).whole
    assert ledger_of(tmp_path / "there").spent == Decimal("1.75")
    assert sorted(p.name for p in (tmp_path / "there").iterdir()) == ["ledger", "made"]


def test_equal_studies_give_equal_archives(tmp_path: Path, study: Study) -> None:
    packed(study, tmp_path / "a.tar.zst")
    packed(study, tmp_path / "b.tar.zst")
    assert (tmp_path / "a.tar.zst").read_bytes() == (tmp_path / "b.tar.zst").read_bytes()
    with pytest.raises(UserError, match="the file is there already"):
        packed(study, tmp_path / "a.tar.zst")
    with pytest.raises(UserError, match=r"not a name of an archive: a.zip"):
        packed(study, tmp_path / "a.zip")


def test_zstandard_is_an_extra(
    tmp_path: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(study, tmp_path / "a.tar.zst")
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(MissingExtra, match=r"epigone\[zstd\]"):
        packed(study, tmp_path / "b.tar.zst")
    with pytest.raises(MissingExtra, match=r"epigone\[zstd\]"):
        unpack.unpack(tmp_path / "a.tar.zst", tmp_path / "there")


def test_the_same_archive_again_changes_nothing(tmp_path: Path, study: Study) -> None:
    packed(study, tmp_path / "a.tar")
    unpack.unpack(tmp_path / "a.tar", tmp_path / "there")
    before = tree(tmp_path / "there")
    done = unpack.unpack(tmp_path / "a.tar", tmp_path / "there")
    assert (done.new, done.steps, done.answers) == (False, 0, 0)
    assert tree(tmp_path / "there") == before


def test_a_later_archive_adds_what_was_finished_since(tmp_path: Path, study: Study) -> None:
    last = study.expansion().steps[-1]
    shutil.move(study.store.folder(last), tmp_path / "later")
    # A study that is being run gives what is finished.
    with Runner(study.root, "a run"):
        assert packed(study, tmp_path / "a.tar").done == len(study.expansion().steps) - 1
    first = unpack.unpack(tmp_path / "a.tar", tmp_path / "there")
    there = Study.load(first.root)
    assert [p.step.name for p in there.plan() if p.state != "done"] == [last.name]
    finish(study.store, last)
    ledger = Ledger(ledger_file(study.root.parent / "ledger", ENDPOINT), "made")
    # The same thing twice is two rows.
    ledger.write([sent("c", Decimal(1), 1, "made"), Row("void", "c", {}),
                  sent("c", Decimal(1), 1, "made"), Row("void", "c", {})])  # fmt: skip
    ledger.write(answer("d", "made", "0.5"))
    ledger.close()
    mine = Ledger(ledger_file(tmp_path / "there/ledger", ENDPOINT), "made")
    mine.write(answer("e", "made", "0.125"))
    mine.close()
    packed(study, tmp_path / "b.tar")
    done = unpack.unpack(tmp_path / "b.tar", tmp_path / "there")
    assert (done.new, done.steps, done.answers) == (False, 1, 1)
    assert {p.state for p in there.plan()} == {"done"}
    merged = ledger_of(tmp_path / "there")
    assert (merged.spent, merged.open) == (Decimal("2.375"), 0)


def test_another_study_of_the_name_is_not_touched(tmp_path: Path, study: Study) -> None:
    packed(study, tmp_path / "a.tar")
    other = tmp_path / "other"
    copied(other)
    text = (other / "study.yaml").read_text().replace("n: 4", "n: 5")
    (other / "study.yaml").write_text(text)
    shutil.rmtree(other / "runs")
    lock(Study.load(other / "study.yaml", runs=other / "runs"))
    before = tree(other)
    with pytest.raises(UserError, match="another study of this name is there"):
        unpack.unpack(tmp_path / "a.tar", other / "runs")
    assert tree(other) == before


def test_local_data_goes_along_where_that_is_asked(tmp_path: Path, study: Study) -> None:
    assert not packed(study, tmp_path / "a.tar", data=True).needs
    shutil.rmtree(tmp_path / "here")
    there = Study.load(unpack.unpack(tmp_path / "a.tar", tmp_path / "there").root)
    corpus = next(s for s in there.expansion().steps if s.stage == "corpus")
    source = Path(corpus.spec.sources[0].ref)  # type: ignore[attr-defined]
    assert source.is_relative_to(there.root / "files")
    assert source.read_text() == '[{"id": "a"}]'
    assert there.store.record(corpus) is not None
    assert verify(there.root).whole


def test_weights_may_stay_and_come_later(tmp_path: Path, study: Study) -> None:
    light = packed(study, tmp_path / "a.tar", weights=False)
    (weights,) = light.left_out
    assert weights.endswith("amount-1000/model.safetensors")
    packed(study, tmp_path / "b.tar")
    root = unpack.unpack(tmp_path / "a.tar", tmp_path / "there").root
    assert {p.state for p in Study.load(root).plan()} == {"done"}
    found = verify(root)
    assert (found.whole, found.left_out) == (True, 1)
    # What came without them goes on without them.
    again = pack(root, tmp_path / "c.tar", Study.load(root).world())
    assert again.left_out == light.left_out
    unpack.unpack(tmp_path / "b.tar", tmp_path / "there")
    found = verify(root)
    assert (found.whole, found.left_out) == (True, 0)
    assert (root / weights).read_text() == "w" * 5000
    assert not (root / "left-out.json").exists()


def test_ratings_go_along_and_stay_their_owners(tmp_path: Path, study: Study) -> None:
    file = study.root / "ratings.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE vote (x)")
        connection.execute("INSERT INTO vote VALUES (7)")
        connection.commit()
        (study.root / "ratings.db.secret").write_text("a signing key")
        packed(study, tmp_path / "a.tar")  # while the site has it open
    assert (tmp_path / "a.tar").stat().st_mode & 0o077 == 0
    assert b"a signing key" not in (tmp_path / "a.tar").read_bytes()
    root = unpack.unpack(tmp_path / "a.tar", tmp_path / "there").root
    assert (root / "ratings.db").stat().st_mode & 0o077 == 0
    with closing(sqlite3.connect(root / "ratings.db")) as connection:
        assert connection.execute("SELECT x FROM vote").fetchall() == [(7,)]


def rate(file: Path, votes: int) -> None:
    file.unlink(missing_ok=True)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE vote (x)")
        connection.executemany("INSERT INTO vote VALUES (?)", [(i,) for i in range(votes)])
        connection.commit()


def test_ratings_that_are_there_stay_and_that_is_said(
    tmp_path: Path, study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, votes in (("none.tar", 0), ("one.tar", 1), ("many.tar", 50)):
        if votes:
            rate(study.root / "ratings.db", votes)
        packed(study, tmp_path / name)
    runs = tmp_path / "there"
    assert not unpack.unpack(tmp_path / "none.tar", runs).ratings_stay
    for name, stay in (("one.tar", False), ("one.tar", False), ("many.tar", True)):
        root = (done := unpack.unpack(tmp_path / name, runs)).root
        assert done.ratings_stay is stay
    with closing(sqlite3.connect(root / "ratings.db")) as connection:
        assert connection.execute("SELECT count(*) FROM vote").fetchall() == [(1,)]
    # Those of a site that keeps them elsewhere.
    (root / "ratings.db").rename(tmp_path / "site.db")
    (root / "ratings.place").write_text(f"{tmp_path / 'site.db'}\n")
    assert not unpack.unpack(tmp_path / "one.tar", runs).ratings_stay
    capsys.readouterr()
    bring(tmp_path / "many.tar", runs)
    assert f"others are in {tmp_path / 'many.tar'} and were not taken" in capsys.readouterr().out
    assert not (root / "ratings.db").exists()


@pytest.mark.parametrize("how", ["changed", "short", "gone"])
def test_a_damaged_step_is_not_packed(tmp_path: Path, study: Study, how: str) -> None:
    file = study.store.folder(study.expansion().steps[0]) / "rows.jsonl"
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(b"x" * (file.stat().st_size if how == "changed" else 3))
    with pytest.raises(EpigoneError, match=r"verify' tells more|is not whole"):
        packed(study, tmp_path / "out/a.tar")
    assert list((tmp_path / "out").glob("*")) == []


def test_an_import_needs_no_locks(
    tmp_path: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(study.root.parent / "ledger")
    packed(study, tmp_path / "a.tar")
    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert unpack.unpack(tmp_path / "a.tar", tmp_path / "there").new


# Archives that no export writes.


def members(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


def written(files: dict[str, bytes], out: Path, extra: tuple[Any, ...] = ()) -> Path:
    with tarfile.open(out, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
        for about in extra:
            tar.addfile(about)
    return out


def planted(study: Study, folder: Path, name: str, content: bytes = b"x") -> Path:
    """An archive whose list of contents names one more file."""
    packed(study, folder / "good.tar")
    files = members(folder / "good.tar")
    told = json.loads(files[MANIFEST])
    told["files"][name] = [hashlib.sha256(content).hexdigest(), len(content)]
    return written({**files, MANIFEST: json.dumps(told).encode(), name: content},
                   folder / "bad.tar")  # fmt: skip


def refused(archive: Path, folder: Path, match: str) -> None:
    before = tree(folder)
    with pytest.raises(Hostile, match=match) as caught:
        unpack.unpack(archive, folder / "there")
    assert "\n" not in str(caught.value)
    assert list((folder / "there").iterdir()) == []
    assert tree(folder) == before


@pytest.mark.parametrize(
    "name",
    [
        "../outside", "/etc/outside", "study/../../outside", "study/steps/../x", "study/./x",
        "study/steps/train/x-01234567/../../../../x", "ledger/../x.jsonl", "ledger/x.sh",
        "study/.bashrc", "study/ratings.db.secret", "study/lease.json", "study\\x", "outside",
        "study/steps/nothing/x-01234567/x", "study/steps/train/x/x",
        "study/steps/train/.x-01234567/x", "study/steps/train/a-01234567",
        "study/files/own.jinja", "study/files/0123456/x", "study//x",
        "study/files/01234567/a\nb", "study/files/01234567/" + "x" * 300,
        "study/files/01234567/" + "x/" * 40 + "x",
    ],
)  # fmt: skip
def test_a_file_goes_nowhere_but_where_a_study_has_files(
    tmp_path: Path, study: Study, name: str
) -> None:
    refused(planted(study, tmp_path, name), tmp_path, "no part of a study")


def test_what_a_study_does_not_name_is_no_part_of_it(tmp_path: Path, study: Study) -> None:
    name = "study/files/01234567/own.jinja"
    refused(planted(study, tmp_path, name), tmp_path, "surplus, the lock does not name it")
    step = next(n for n in members(tmp_path / "good.tar") if n.endswith("rows.jsonl"))
    (tmp_path / "good.tar").unlink()
    archive = planted(study, tmp_path, f"{step[: -len('rows.jsonl')]}more.py")
    refused(archive, tmp_path, "surplus, the record does not name it")
    (tmp_path / "good.tar").unlink()
    archive = planted(study, tmp_path, step.upper().replace("STUDY/STEPS", "study/steps"))
    refused(archive, tmp_path, "one name twice|no part of a study")


def _link(kind: bytes, to: str) -> tarfile.TarInfo:
    about = tarfile.TarInfo("study/study.yaml")
    about.type, about.linkname = kind, to
    return about


@pytest.mark.parametrize(
    "about",
    [
        _link(tarfile.SYMTYPE, "/etc/passwd"), _link(tarfile.LNKTYPE, "../../x"),
        _link(tarfile.CHRTYPE, ""), _link(tarfile.FIFOTYPE, ""), _link(tarfile.DIRTYPE, ""),
        tarfile.TarInfo("more"),
    ],
)  # fmt: skip
def test_links_devices_and_more_files_are_refused(
    tmp_path: Path, study: Study, about: tarfile.TarInfo
) -> None:
    packed(study, tmp_path / "good.tar")
    files = members(tmp_path / "good.tar")
    archive = written(files, tmp_path / "bad.tar", (about,))
    refused(archive, tmp_path, "not in its list of contents")
    # In the place of a file that the list names.
    del files["study/study.yaml"]
    archive = written(files, tmp_path / "bad.tar", (about,))
    refused(archive, tmp_path, "not in its list of contents")


def test_a_changed_or_missing_file_is_found(tmp_path: Path, study: Study) -> None:
    packed(study, tmp_path / "good.tar")
    files = members(tmp_path / "good.tar")
    name = next(n for n in files if n.endswith("rows.jsonl"))
    bad = {**files, name: b"X" + files[name][1:]}
    refused(written(bad, tmp_path / "bad.tar"), tmp_path, "a file is damaged: study/steps")
    bad = {n: c for n, c in files.items() if n != name}
    refused(written(bad, tmp_path / "bad.tar"), tmp_path, "a file is missing")
    # With a list of contents that fits, the step's own record does not.
    told = json.loads(files[MANIFEST])
    told["files"][name][0] = hashlib.sha256(b"X" + files[name][1:]).hexdigest()
    bad = {**files, MANIFEST: json.dumps(told).encode(), name: b"X" + files[name][1:]}
    refused(written(bad, tmp_path / "bad.tar"), tmp_path, "content is not what was made")
    ledger = next(n for n in files if n.startswith("ledger/"))
    lines = files[ledger].replace(b'"cost":"1.5"', b'"cost":"0.0"')
    told = json.loads(files[MANIFEST])
    told["files"][ledger] = [hashlib.sha256(lines).hexdigest(), len(lines)]
    bad = {**files, MANIFEST: json.dumps(told).encode(), ledger: lines}
    refused(written(bad, tmp_path / "bad.tar"), tmp_path, "a ledger is damaged")


@pytest.mark.parametrize(
    "change",
    [
        {"study": "../x"}, {"study": 1}, {"study": "other"}, {"files": {}}, {"files": 1},
        {"files": {"study/study.yaml": ["0" * 64, -1]}}, {"files": {"study/study.yaml": ["0", 1]}},
        {"needs": 1}, {"format": 0}, {"format": "x"}, {"done": None}, {"done": float("inf")},
        {"left_out": ["../../other/ratings.db"]}, {"left_out": ["ratings.db"]},
        {"left_out": ["../steps/train/a-01234567/model.safetensors"]},
    ],
)  # fmt: skip
def test_a_list_of_contents_that_no_export_writes(
    tmp_path: Path, study: Study, change: dict[str, Any]
) -> None:
    packed(study, tmp_path / "good.tar")
    files = members(tmp_path / "good.tar")
    files[MANIFEST] = json.dumps({**json.loads(files[MANIFEST]), **change}).encode()
    refused(written(files, tmp_path / "bad.tar"), tmp_path, "not an archive of a study")


def rewritten(study: Study, folder: Path, ends: str, change: Callable[[Any], bytes]) -> Path:
    """An archive with a file that is changed, and a list of contents that fits."""
    packed(study, folder / "good.tar")
    files = members(folder / "good.tar")
    name = next(n for n in files if n.endswith(ends))
    files[name] = change(json.loads(files[name]))
    told = json.loads(files[MANIFEST])
    told["files"][name] = [hashlib.sha256(files[name]).hexdigest(), len(files[name])]
    return written({**files, MANIFEST: json.dumps(told).encode()}, folder / "bad.tar")


@pytest.mark.parametrize("path", ["/etc/passwd", "{0}", "../x", "files/../x", "steps/items", ""])
def test_a_lock_names_no_files_of_this_machine(tmp_path: Path, study: Study, path: str) -> None:
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe/p")  # whoever reads it waits for ever
    kept = {"x": {"path": path.format(tmp_path / "pipe"), "sha256": "0" * 64}}
    archive = rewritten(
        study, tmp_path, "lock.json", lambda row: json.dumps({**row, "files": kept}).encode()
    )
    with pytest.raises(Hostile, match=r"names a copy outside of files/.*study\.lock\.json"):
        unpack.unpack(archive, tmp_path / "there")
    (study.root / "study.lock.json").write_bytes(members(archive)["study/study.lock.json"])
    assert "outside of files/" in read_lock(study.root).trouble


@pytest.mark.parametrize(("ends", "match"), [("lock.json", "nested"), ("record.json", "no record")])
def test_json_that_is_nested_too_deeply(
    tmp_path: Path, study: Study, ends: str, match: str
) -> None:
    refused(rewritten(study, tmp_path, ends, lambda _: b"[" * 100_000), tmp_path, match)


def test_a_file_below_a_file(tmp_path: Path, study: Study) -> None:
    packed(study, tmp_path / "good.tar")
    step = next(n for n in members(tmp_path / "good.tar") if n.endswith("rows.jsonl"))
    (tmp_path / "good.tar").unlink()
    refused(planted(study, tmp_path, f"{step}/x"), tmp_path, "a file below a file")


def test_a_list_of_what_was_left_out_reaches_no_other_study(tmp_path: Path, study: Study) -> None:
    weights = "steps/train/a-01234567/m.safetensors"
    told = {"files": ["../other/ratings.db", "../x.safetensors", "ratings.db", weights]}
    (study.root / "left-out.json").write_text(json.dumps(told))
    assert left_out(study.root) == {weights}


def test_an_archive_of_a_newer_epigone_is_refused_by_name(tmp_path: Path, study: Study) -> None:
    packed(study, tmp_path / "good.tar")
    files = members(tmp_path / "good.tar")
    files[MANIFEST] = json.dumps({**json.loads(files[MANIFEST]), "format": 2}).encode()
    with pytest.raises(NewerFormat, match=r"in format 2; this one knows up to 1: .*bad.tar"):
        unpack.unpack(written(files, tmp_path / "bad.tar"), tmp_path / "there")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_an_archive_that_is_cut_off(tmp_path: Path, study: Study, kind: str, share: float) -> None:
    packed(study, tmp_path / f"a.{kind}")
    content = (tmp_path / f"a.{kind}").read_bytes()
    # The end of a tar file is empty blocks.
    (tmp_path / "cut").write_bytes(content[: int(share * (len(content) - 10240))])
    refused(tmp_path / "cut", tmp_path, "not an archive of a study")


def test_what_is_no_archive_at_all(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(os.urandom(4000))
    refused(tmp_path / "x", tmp_path, "damaged or cut off")
    (tmp_path / "x").write_bytes(gzip.compress(b"\0" * 100_000))
    refused(tmp_path / "x", tmp_path, "no list of its contents|damaged")
    with pytest.raises(UserError, match="no such archive"):
        unpack.unpack(tmp_path / "absent.tar", tmp_path / "there")


def test_bombs_do_not_go_off(tmp_path: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "FREE", 1 << 20)
    # A header that says that the next name is a hundred million letters long.
    about = tarfile.TarInfo("././@LongLink")
    about.type, about.size = tarfile.GNUTYPE_LONGNAME, 10**8
    head = about.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(head + b"x" * 3_000_000))
    refused(tmp_path / "x.tar.gz", tmp_path, "a header that is too long")
    # A file of zeros that the list of contents names, and that packs to a thousandth.
    name = "study/files/01234567/zeros"
    archive = planted(study, tmp_path, name, b"\0" * 30_000_000)
    bomb = tmp_path / "bomb.tar.gz"
    bomb.write_bytes(gzip.compress(archive.read_bytes()))
    archive.unlink()
    refused(bomb, tmp_path, "unpacks to more than 200 times its size")
    # One that says it is larger than any disk.
    files = members(tmp_path / "good.tar")
    told = json.loads(files[MANIFEST])
    told["files"][name] = ["0" * 64, 10**16]
    files[MANIFEST] = json.dumps(told).encode()
    with pytest.raises(UserError, match="no room for the study"):
        unpack.unpack(written(files, tmp_path / "bad.tar"), tmp_path / "there")


def test_the_verbs_tell_what_they_did(cli: Cli, tmp_path: Path, study: Study) -> None:
    shutil.rmtree(study.store.folder(study.expansion().steps[-1]))
    done = cli("export", "study.yaml", "../made.tar", cwd=tmp_path / "here")
    assert done.returncode == 0, done.stderr
    steps = len(study.expansion().steps) - 1
    assert f"{steps} of {steps + 1} finished steps of made in ../made.tar" in done.stdout
    assert "not in it: data/talk.json (sha256:" in done.stdout
    done = cli("import", "made.tar", "--json", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert (told["steps"], told["answers"], told["new"]) == (steps, 2, True)
    assert list(told["needs"]) == ["data/talk.json"]
    done = cli("import", "made.tar", cwd=tmp_path)
    assert "already there, added 0 steps and 0 answers" in done.stdout
    assert f"put it at {tmp_path / 'runs/made/data/talk.json'}" in done.stdout
    assert cli("status", "runs/made", cwd=tmp_path).stdout.count("done") >= steps
    done = cli("export", "runs/made", "made.tar", cwd=tmp_path)
    assert done.returncode == 2
    assert read_lock(tmp_path / "runs/made").folder is None
