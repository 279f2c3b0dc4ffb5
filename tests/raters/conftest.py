from __future__ import annotations

from collections.abc import Iterator

import pytest

from .databases import postgres


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a PostgreSQL of the tests' own, which tests leave empty."""
    with postgres() as url:
        yield url
