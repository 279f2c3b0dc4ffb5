"""The page's commands in their order, on a finished study whose data lies beside it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from epigone.formats import ARCHIVE, LEDGER, LOCK, RECORD

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
PAGE = Path(__file__).parents[2] / "docs/keeping.md"


@pytest.fixture
def near(whole: Path, tiny_base: Path, talk: Path, tmp_path: Path, cli: Cli) -> Path:
    """The finished study as if it had been run with paths of its own folder."""
    folder = tmp_path / "near"
    shutil.copytree(whole, folder)
    shutil.copytree(tiny_base, folder / "tiny")
    shutil.copy(talk, folder / "talk.json")
    text = (folder / "study.yaml").read_text().replace("name: tiny", "name: pocket", 1)
    text = text.replace(str(tiny_base), "tiny").replace(str(talk), "talk.json")
    (folder / "pocket.yaml").write_text(text)
    (folder / "study.yaml").unlink()
    (folder / "runs/tiny").rename(folder / "runs/pocket")
    done = cli("run", "pocket.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "[1/" not in done.stderr  # nothing is left to do
    return folder


def commands() -> list[list[str]]:
    lines = "\n".join(re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.M | re.S)).splitlines()
    return [shlex.split(line) for line in lines if line]


def test_the_pages_commands_do_what_it_says(cli: Cli, near: Path) -> None:
    told: dict[str, str] = {}
    for words in commands():
        if words[1] == "run":
            # The machine from which it came is gone, and what lay beside the study with it.
            for name in ("tiny", "talk.json", "pocket.yaml"):
                moved = near / name
                shutil.rmtree(moved) if moved.is_dir() else moved.unlink()
        done = cli(*words[1:], cwd=near)
        assert done.returncode == 0, (words, done.stderr)
        told.setdefault(" ".join(words[1:3]), done.stdout)
    assert "all of it is as it was made" in told["verify runs/pocket"]
    assert "not in it: talk.json" in told["export runs/pocket"]
    assert "nothing to remove" in told["gc runs"]
    here = cli("status", "runs/pocket", cwd=near)
    assert (
        here.stdout
        == cli("status", "elsewhere/pocket", cwd=near).stdout
        == told["status runs/pocket"]
    )
    tables = [near / f / "tables" for f in ("pocket-report", "elsewhere/pocket/report")]
    for file in sorted(tables[0].glob("*.csv")):
        assert file.read_text() == (tables[1] / file.name).read_text()
    assert len(list(tables[0].glob("*.csv"))) > 5
    done = cli("compare", "runs/pocket", "elsewhere/pocket", cwd=near)
    assert "Settings that differ: none" in done.stdout, done.stderr
    assert cli("show", "elsewhere/pocket", "tiny", cwd=near).returncode == 0
    assert cli("plan", "elsewhere/pocket", cwd=near).returncode == 0


def test_the_page_has_the_numbers_of_the_layouts() -> None:
    text = PAGE.read_text()
    for file, known in (("`record.json`", RECORD), ("`study.lock.json`", LOCK),
                        ("ledgers", LEDGER), ("archives", ARCHIVE)):  # fmt: skip
        assert f"| {file} | `format`: {known.newest}" in text
