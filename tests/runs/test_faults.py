"""What a person, a disk or a teacher broke is told in a line, and made again the same."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import ASKS, SUBJECTS
from tests.teachers.conftest import Running, running

import epigone
from epigone.errors import EpigoneError, UserError
from epigone.files import read_json, write_json
from epigone.runs.store import RECORD, outputs, read_record

Flip = Callable[[Path, Path], None]


@pytest.fixture
def study(whole: Path, tmp_path: Path) -> epigone.Study:
    """A copy of the finished study."""
    shutil.copytree(whole, tmp_path / "study")
    return epigone.Study.load(tmp_path / "study", runs=tmp_path / "study" / "runs")


def step(study: epigone.Study, start: str) -> Path:
    return next(p for p in sorted((study.root / "steps").glob("*/*")) if start in str(p))


def hashes(study: epigone.Study) -> dict[str, dict[str, str]]:
    """What lies there, by step; every record says the same."""
    found = {}
    for folder in sorted((study.root / "steps").glob("*/*")):
        record = read_record(folder)
        assert record is not None
        found[folder.name] = outputs(folder)
        assert record.outputs == found[folder.name]
    return found


def flipped(file: Path, other: Path) -> None:
    row = read_json(file)
    name = next(iter(row["outputs"]))
    row["outputs"][name] = row["outputs"][name].replace("a", "b")
    write_json(file, row)


def shortened(file: Path, other: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def emptied(file: Path, other: Path) -> None:
    file.write_bytes(b"")


def exchanged(file: Path, other: Path) -> None:
    file.write_bytes(other.read_bytes())


def deleted(file: Path, other: Path) -> None:
    file.unlink()


def test_every_damaged_record_is_told_by_its_folder_and_made_again(study: epigone.Study) -> None:
    before = hashes(study)
    ways: dict[str, Flip] = {
        "items/facts": flipped,
        "items/choices": shortened,
        "overlap/talk_facts": emptied,
        "overlap/talk_choices": exchanged,
        "style/tiny-": deleted,
    }
    for name, way in ways.items():
        folder = step(study, name)
        way(folder / RECORD, step(study, "corpus/talk") / RECORD)
        with pytest.raises(EpigoneError, match=f"{folder}.*delete (the|its) folder") as told:
            study.run()
        assert "\n" not in str(told.value)
        shutil.rmtree(folder)
    assert set(study.run().outcomes.values()) == {"done"}
    assert hashes(study) == before


def cut_at_a_line(content: bytes) -> bytes:
    return content[: content.rfind(b"\n", 0, -1) + 1]


def test_every_cut_or_deleted_output_is_told_by_its_folder(study: epigone.Study) -> None:
    before = hashes(study)
    for name, file, way in (
        ("items/facts", "items.jsonl", cut_at_a_line),
        ("items/choices", "items.jsonl", None),
        ("benchmark/facts_tiny-", "samples.parquet", lambda content: content[:-100]),
        ("train/", "amount-600/model.safetensors", lambda content: content[:-100]),
    ):
        folder = step(study, name)
        path = folder / file
        content = path.read_bytes()
        path.unlink() if way is None else path.write_bytes(way(content))
        line = f"{path} is damaged or missing; delete the folder {folder} to make it again"
        with pytest.raises(UserError, match=f"^{line}$"):
            study.run()
        if name.startswith("items/"):
            shutil.rmtree(folder)
        else:
            path.write_bytes(content)  # from a copy, say
    assert set(study.run().outcomes.values()) == {"done"}
    assert hashes(study) == before


def test_what_changed_on_the_disk_unseen_is_told_where_it_cannot_be_read(
    study: epigone.Study,
) -> None:
    folder = step(study, "style/tiny-")
    path = folder / "scores.jsonl"
    path.write_bytes(path.read_bytes().replace(b":", b"=", 1))
    with pytest.raises(UserError, match=f"{path} is damaged or missing; delete the folder"):
        study.report()


def test_a_copy_without_weights_still_has_its_report(study: epigone.Study) -> None:
    for weights in (study.root / "steps" / "train").rglob("*.safetensors"):
        weights.unlink()
    assert study.view().scores


def test_a_source_that_is_gone_is_told_where_a_step_needs_it(
    study: epigone.Study, talk: Path, tmp_path: Path
) -> None:
    own = shutil.copy(talk, tmp_path / "talk.json")
    text = study.file.read_text().replace(str(talk), str(own))
    study.file.write_text(text)
    study = epigone.Study.load(study.file, runs=study.root.parent)
    study.run()
    shutil.rmtree(step(study, "corpus/"))
    Path(own).unlink()
    with pytest.raises(UserError, match=str(own)):
        study.run()


@pytest.mark.skipif(
    subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
    ).returncode
    != 0
    if sys.platform == "linux"
    else True,
    reason="nothing may be mounted here",
)
def test_a_full_and_a_read_only_disk_are_told_in_a_line(
    study: epigone.Study, tmp_path: Path
) -> None:
    before = hashes(study)
    shutil.rmtree(step(study, "overlap/talk_facts"))
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f"""
    mount -t tmpfs -o size=8m tmpfs {disk} && cp -r {study.root.parent}/. {disk} || exit 9
    run() {{
      {sys.executable} -m epigone run {study.file} --only overlap --runs {disk}; echo $? >&2
    }}
    mount -o remount,ro {disk} && run; mount -o remount,rw {disk}
    dd if=/dev/zero of={disk}/ballast bs=4k 2> /dev/null; run; rm {disk}/ballast
    run; rm -r {study.root.parent}; cp -r {disk} {study.root.parent}
    """
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=True
    )
    lines = done.stderr.splitlines()
    assert lines[0].startswith(f"epigone: read-only file system: {disk}")
    full = "epigone: no space left on device"
    fix = "(make room, then run the same command again)"
    assert lines[2].startswith(full) and lines[2].endswith(fix)
    assert [lines[i] for i in (1, 3, -1)] == ["2", "1", "0"], lines
    assert hashes(study) == before
    assert not list(study.root.rglob("*.partial"))


ASKING = """\
name: asked
teacher:
  name: teacher
  endpoint: {{url: {url}, model: teacher, key_env: A_KEY, price: [2, 8], concurrency: 4}}
bases: [{base}]
corpora:
  picked:
    kind: broad
    synthesize: {{task: answers, prompts: prompts.jsonl, turns: 1, max_tokens: 64}}
    size: 40
    held_out: 4
amounts: {{picked: [200]}}
"""


def test_a_teacher_that_goes_away_while_it_is_asked(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "sk-any")
    texts = [ask.format(subject) for ask in ASKS for subject in SUBJECTS]
    (tmp_path / "prompts.jsonl").write_text("\n".join(f'{{"prompt": "{t}"}}' for t in texts))
    with running(latency=0.05) as server:
        (tmp_path / "study.yaml").write_text(ASKING.format(url=server.url, base=tiny_base))
        quiet = asked(tmp_path, "quiet")
        away = threading.Thread(target=goes_away, args=(server, 40))
        away.start()
        assert asked(tmp_path, "away") == quiet
        away.join()
        # Each was answered once to each of the two studies, which share no ledger.
        assert set(server.told()["billed"].values()) == {2}


def asked(folder: Path, runs: str) -> dict[str, dict[str, str]]:
    study = epigone.Study.load(folder, runs=folder / runs)
    assert "failed" not in study.run(only="ask").outcomes.values()
    return hashes(study)


def goes_away(server: Running, after: int) -> None:
    while sum(server.told()["billed"].values()) < after + 4:
        time.sleep(0.02)
    server.steer(down=True)
    time.sleep(1)
    server.steer(down=False)
