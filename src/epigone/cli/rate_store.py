"""A rating database opened for a verb, where the packages for it are there."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from epigone.errors import MissingExtra

if TYPE_CHECKING:
    from epigone.raters.store import Store

_NEEDED = ("alembic", "fastapi", "itsdangerous", "nh3", "python_multipart", "sqlalchemy", "uvicorn")


def open_store(db: str) -> Store:
    """A rating database that is there; raises UserError for another, or without the packages."""
    needs_extra()
    from epigone.raters.store import Store

    return Store(db, create=False)


def needs_extra() -> None:
    """Raise MissingExtra where a package of the extra is not installed."""
    if any(find_spec(name) is None for name in _NEEDED):
        raise MissingExtra("rating by people", "raters")
