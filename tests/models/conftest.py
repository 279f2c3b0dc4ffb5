"""Wheels, package indexes and caches made up for a test."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from epigone.models.catalogue import Entry, Part


def write_wheel(folder: Path, name: str, version: str, members: Mapping[str, bytes]) -> Path:
    """A wheel that pip accepts, holding `members`."""
    stem = f"{name.replace('-', '_')}-{version}"
    path = folder / f"{stem}-py3-none-any.whl"
    info = f"{stem}.dist-info"
    about = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in {**members, **about}.items():
            archive.writestr(member, content)
    return path


def entry_of(contents: list[bytes], **changes: object) -> Entry:
    """A catalogue entry whose file is `contents` joined, a wheel `fake-N` for each."""
    joined = b"".join(contents)
    fields: dict[str, object] = {
        "name": "fake",
        "title": "Fake",
        "kind": "data",
        "file": "fake.json",
        "bytes": len(joined),
        "sha256": hashlib.sha256(joined).hexdigest(),
        "download": 10_000,
        "parts": tuple(
            Part(f"fake-{i}", "1.0", f"fake_{i}/data.part{i}") for i in range(len(contents))
        ),
        "licence": "MIT",
        "terms": "",
    }
    return Entry(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    root = tmp_path / "cache"
    monkeypatch.setenv("EPIGONE_HOME", str(root))
    return root


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the only place where pip looks for packages."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture(name="write_wheel")
def _write_wheel() -> Callable[..., Path]:
    return write_wheel


@pytest.fixture(name="entry_of")
def _entry_of() -> Callable[..., Entry]:
    return entry_of
