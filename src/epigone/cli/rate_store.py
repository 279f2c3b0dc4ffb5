"""What the verbs on rating databases share: the database opened, and the site's address."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from epigone.errors import MissingExtra, UserError

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


def site_url(url: str) -> str:
    """The address of a site; raises UserError for one that is none, or below another site."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not url:
        return url
    if not good or "@" in url:
        raise UserError("not the address of a site", value=url, fix="https://rate.example.org")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise UserError("a rating site is not below a path", value=url,
                        fix=f"{parts.scheme}://{parts.netloc}")  # fmt: skip
    return url.rstrip("/")
