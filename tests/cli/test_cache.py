from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from epigone.models import catalogue, references

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a model that was used long ago, and items of now."""
    root = tmp_path / "home"
    monkeypatch.setenv("EPIGONE_HOME", str(root))
    model = root / "models" / f"{catalogue.find('gemma-3-270m').sha256}-1"
    for folder, size in ((model, 2_000_000), (root / "items" / "facts-12ab", 500)):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"x" * size)
    os.utime(model, (1e9, 1e9))
    return root


def files(root: Path) -> set[str]:
    return {path.parts[-3] for path in root.rglob("file")}


def test_what_is_there_with_size_and_last_use(cli: Cli, root: Path, tmp_path: Path) -> None:
    told = cli("cache", "ls", cwd=tmp_path).stdout.splitlines()
    assert told[2] == "\t".join(
        ["model/gemma-3-270m", "2 MB", "2001-09-09 01:46", "converted to safetensors, way 1"]
    )
    assert told[4] == f"2 MB in {root}"
    row = json.loads(cli("cache", "ls", "--json", cwd=tmp_path).stdout)
    assert (row["folder"], row["bytes"]) == (str(root), 2_000_500)
    assert [entry["name"] for entry in row["entries"]] == ["items/facts-12ab", "model/gemma-3-270m"]


def test_nothing_goes_without_a_yes(cli: Cli, root: Path, tmp_path: Path) -> None:
    for words in (("--all",), ("gemma-3-270m", "--json")):
        done = cli("cache", "clear", *words, cwd=tmp_path)
        assert done.returncode == 2
        assert "nothing was removed (--yes" in done.stderr
        assert "model/gemma-3-270m" in done.stdout
        assert files(root) == {"models", "items"}


@pytest.mark.parametrize(
    ("words", "told"),
    [((), "what is to be cleared?"), (("x", "--all"), "one of the two"),
     (("gemma-3-27m", "--yes"), "did you mean 'gemma-3-270m'?"),
     (("--older-than", "-1"), "--older-than")],
)  # fmt: skip
def test_what_is_to_be_cleared_has_to_be_said(
    cli: Cli, root: Path, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    done = cli("cache", "clear", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert files(root) == {"models", "items"}


def test_only_what_is_old_goes(cli: Cli, root: Path, tmp_path: Path) -> None:
    done = cli("cache", "clear", "--older-than", "30", "--yes", "--json", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert (told["bytes"], told["left"]) == (2_000_000, [])
    assert files(root) == {"items"}
    done = cli("cache", "clear", "items", "--older-than", "1", "--yes", cwd=tmp_path)
    assert done.stdout == "nothing to remove\n"
    assert cli("cache", "clear", "--all", "--yes", cwd=tmp_path).stdout.endswith("removed 500 B\n")
    assert files(root) == set()


def test_what_a_study_needs_is_fetched_and_nothing_is_run(
    cli: Cli, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("new", "mine", cwd=tmp_path).returncode == 0
    asked: list[str] = []
    for name in ("locate", "locate_data"):
        monkeypatch.setattr(references, name, lambda ref, *_, **__: asked.append(ref))
    done = cli("cache", "fetch", "mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert set(asked) == {"smollm2-135m-instruct", "sharegpt-v3-part"}
    assert not (tmp_path / "runs").exists()
