from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .databases import postgres


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a PostgreSQL of the tests' own, which tests leave empty."""
    with postgres() as url:
        yield url


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder whose disk need not be waited for, where there is one."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)
