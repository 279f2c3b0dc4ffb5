from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from epigone.errors import UnknownName
from epigone.files import write_json
from epigone.models import cache, catalogue
from epigone.models.in_use import use

ENTRY = catalogue.find("gemma-3-270m")


def put(path: Path, size: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


@pytest.fixture
def root(cache: Path) -> Path:
    """A cache with one entry of each kind, and what is not Epigone's."""
    put(cache / "files" / ENTRY.sha256 / ENTRY.file, 10)
    put(cache / "files" / "0123456789abcdef" / "other.json")
    put(cache / "models" / f"{ENTRY.sha256}-1" / "model.safetensors", 40)
    put(cache / "models" / "fedcba-1" / "model.safetensors")
    put(cache / "models" / ".aaaa-1.tmp" / "model.safetensors")
    put(cache / "items" / "facts-12ab" / "deep" / "items.jsonl")
    put(cache / "items" / "mmlu-34cd.partial" / "items.jsonl")
    put(cache / "fetching" / "bbbb" / "joined")
    put(cache / "datasets" / "a" / "b.arrow")
    put(cache / "lm-eval" / "names-1.json")
    write_json(cache / "fingerprints.json", {"/home/me/tiny.gguf": [[1, 2, 3, 4], "fedcba"]})
    put(cache / "my-thesis.tex")
    put(cache / "photos" / "a.jpg")
    return cache


def named() -> dict[str, cache.Entry]:
    return {str(entry): entry for entry in cache.entries()}


def test_every_entry_has_a_name_that_people_know(root: Path) -> None:
    found = named()
    assert list(found) == [
        "datasets/datasets", "download/0123456789ab", "download/gemma-3-270m", "index/lm-eval",
        "items/facts-12ab", "memory/fingerprints", "model/gemma-3-270m",
        "model/tiny.gguf-fedcba", "unfinished/aaaa-1", "unfinished/bbbb",
        "unfinished/mmlu-34cd.partial",
    ]  # fmt: skip
    assert found["model/gemma-3-270m"].bytes == 40
    assert found["download/gemma-3-270m"].what == ENTRY.title
    assert not any(entry.in_use for entry in found.values())


def test_entries_are_chosen_by_name_by_kind_or_by_both(root: Path) -> None:
    found = cache.entries()

    def chosen(*names: str) -> list[str]:
        return [str(entry) for entry in cache.chosen(found, names)]

    assert chosen("gemma-3-270m") == ["download/gemma-3-270m", "model/gemma-3-270m"]
    assert chosen("model") == ["model/gemma-3-270m", "model/tiny.gguf-fedcba"]
    assert chosen("model/gemma-3-270m", "items") == ["items/facts-12ab", "model/gemma-3-270m"]
    with pytest.raises(UnknownName, match="did you mean 'gemma-3-270m'"):
        chosen("gemma-3-270")


def test_clearing_takes_all_that_is_epigones_and_nothing_else(root: Path) -> None:
    for entry in cache.entries():
        assert cache.clear(entry)
    assert cache.entries() == []
    left = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
    assert {name for name in left if not name.startswith("locks/")} == {
        "my-thesis.tex",
        "photos/a.jpg",
    }


def test_what_this_process_uses_is_left_until_it_ends(root: Path) -> None:
    model = root / "models" / f"{ENTRY.sha256}-1"
    code = (
        "import sys; from pathlib import Path; from epigone.models.in_use import use\n"
        f"use(Path({str(model)!r})); print('used', flush=True); sys.stdin.read()"
    )
    user = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with user:
        assert user.stdout is not None
        assert user.stdout.readline() == "used\n"
        entry = named()["model/gemma-3-270m"]
        assert entry.in_use
        assert not cache.clear(entry)
        assert model.is_dir()
        # Another entry of the same name is nobody's.
        assert cache.clear(named()["download/gemma-3-270m"])
    assert cache.clear(entry)
    assert not model.exists()


def test_what_is_being_made_is_left(root: Path) -> None:
    lock = root / "locks" / "bbbb.lock"
    with catalogue.only_one(lock, "bbbb"):
        assert named()["unfinished/bbbb"].in_use
        assert not cache.clear(named()["unfinished/bbbb"])
    assert cache.clear(named()["unfinished/bbbb"])


def test_a_killed_clearing_leaves_nothing_that_looks_whole(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("epigone.models.cache.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        cache.clear(named()["model/gemma-3-270m"])
    assert not (root / "models" / f"{ENTRY.sha256}-1").exists()
    (left,) = [e for e in cache.entries() if e.name.startswith("cleared-")]
    monkeypatch.undo()
    monkeypatch.setenv("EPIGONE_HOME", str(root))
    assert left.kind == "unfinished"
    assert cache.clear(left)


def test_use_is_what_the_time_tells_of(root: Path) -> None:
    model = root / "models" / f"{ENTRY.sha256}-1"
    for entry in named().values():
        os.utime(entry.path, (1e9, 1e9))
    before = {str(p): p.stat().st_mtime for p in model.iterdir()}
    use(model)
    times = {name: entry.used for name, entry in named().items()}
    assert times.pop("model/gemma-3-270m") > 1e9
    assert set(times.values()) == {1e9}
    assert {str(p): p.stat().st_mtime for p in model.iterdir()} == before


def test_a_cache_that_is_not_there_yet(cache: Path) -> None:
    from epigone.models.cache import entries

    assert entries() == []
    assert not cache.exists()
