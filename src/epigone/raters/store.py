"""The rating database: SQLite or PostgreSQL, opened, migrated, and written to safely."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.orm import Session

from epigone.errors import MissingExtra, UserError
from epigone.raters.tables import Plan

T = TypeVar("T")
_TRIES = 8
# Any number will do that nobody else takes in the same database.
_LOCK = 0x657069676F6E65
# By these an own database is known before anything is written to it.
_OURS = {"alembic_version", "comparison", "rater"}
_AGAIN = ("40001", "40P01", "55P03")


class Store:
    """A rating database that is opened, and brought to this version's tables.

    `url` is a file of SQLite, or sqlite:///FILE or postgresql://user:password@host/name.
    Raises UserError for a database that cannot be opened, that a newer version made, or that holds
    something else; without `create`, for one that holds nothing. A file is for its owner only.
    """

    def __init__(self, url: str | Path, *, create: bool = True) -> None:
        self.url = _url(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        if self.sqlite:
            self._check(create, _tables(Path(self.url.database or ""), self.shown))
            _own(Path(self.url.database or ""))
        self.engine = _engine(self.url, self.sqlite)
        # Threads of one process queue here: SQLite's own waiting is by sleep, and starves some.
        self._turn = threading.Lock() if self.sqlite else nullcontext()
        try:
            self.write(lambda session: self._migrate(session, create))
        except UserError:
            self.close()
            raise
        except DBAPIError as error:
            self.close()
            raise UserError(
                f"cannot open the rating database: {_first_line(error)}", value=self.shown
            ) from None

    @property
    def shown(self) -> str:
        """The database's name for people, without its password."""
        return (self.url.database or "") if self.sqlite else self.url.render_as_string()

    @property
    def file(self) -> Path | None:
        """The file of SQLite, None for PostgreSQL."""
        return Path(self.url.database or "") if self.sqlite else None

    def close(self) -> None:
        """Let go of all connections."""
        self.engine.dispose()

    def write(self, work: Callable[[Session], T]) -> T:
        """Do `work` in one transaction, again from its beginning where another one was in the way.

        What it returned is on the disk. `work` may run several times, so it changes nothing else.
        """
        for attempt in range(_TRIES):
            try:
                with self._turn, self._session(write=True) as session, session.begin():
                    return work(session)
            except DBAPIError as error:
                if attempt == _TRIES - 1 or not _passing(error):
                    raise
                time.sleep(0.02 * 2**attempt)
        raise AssertionError

    def read(self, work: Callable[[Session], T]) -> T:
        """Do `work` in one transaction that changes nothing."""
        with self._session(write=False) as session, session.begin():
            return work(session)

    def lock(self, session: Session) -> None:
        """Wait until no other transaction hands out comparisons; held to the transaction's end."""
        if not self.sqlite:
            session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})

    def analyze(self, session: Session) -> None:
        """Let the database know what the tables hold, before it looks by itself a minute later."""
        if not self.sqlite:
            session.execute(text("ANALYZE"))

    def plan(self) -> Plan:
        """How the comparisons are handed out; raises UserError for an empty database."""
        plan = self.read(lambda session: session.get(Plan, 1))
        if plan is None:
            raise UserError("no comparisons in the rating database", value=self.shown,
                            fix="epigone rate tasks")  # fmt: skip
        return plan

    def _session(self, *, write: bool) -> Session:
        bound = self.engine.execution_options(epigone_write=write)
        return Session(bound, expire_on_commit=False)

    def _migrate(self, session: Session, create: bool) -> None:
        self.lock(session)
        self._check(create, set(inspect(session.connection()).get_table_names()))
        migrate(session.connection(), keep=self._keep)

    def _keep(self, revision: str) -> None:
        """Copy a file of older tables before they are changed, as FILE.REVISION."""
        if self.file is None:
            return
        copy = self.file.with_name(f"{self.file.name}.{revision}")
        _own(copy)
        with closing(sqlite3.connect(self.file)) as here, closing(sqlite3.connect(copy)) as there:
            here.backup(there)

    def _check(self, create: bool, tables: set[str]) -> None:
        if tables and not tables >= _OURS:
            raise UserError("not a rating database: it has other tables", value=self.shown,
                            fix="name another one")  # fmt: skip
        if not tables and not create:
            raise UserError("no rating database", value=self.shown, fix="epigone rate STUDY")


def migrate(
    connection: Connection, revision: str = "head", keep: Callable[[str], None] | None = None
) -> None:
    """Bring a database's tables to a revision; raises UserError for one newer than the code.

    `keep` is called before older tables are changed, with their revision.
    """
    config = Config()
    config.set_main_option("script_location", "epigone.raters:migrations")
    config.attributes["connection"] = connection
    at = MigrationContext.configure(connection).get_current_revision()
    script = ScriptDirectory.from_config(config)
    known = {found.revision for found in script.walk_revisions()}
    if at is not None and at not in known:
        raise UserError(
            "the rating database was made by a newer epigone", value=at, fix="upgrade epigone"
        )
    if at != (script.get_current_head() if revision == "head" else revision):
        if at is not None and keep is not None:
            keep(at)
        command.upgrade(config, revision)


def _url(url: str | Path) -> URL:
    named = str(url)
    if "://" not in named:
        return URL.create("sqlite", database=named)
    try:
        made = make_url(named)
    except (ArgumentError, ValueError):
        # The message of the parser may hold the password.
        raise UserError("not the URL of a database", fix="postgresql://user@host/name") from None
    if made.drivername != "sqlite" and made.password is None:
        # Where PostgreSQL's own programs look for it: command lines are read by everybody.
        made = made.set(password=os.environ.get("PGPASSWORD"))
    if made.drivername in ("postgres", "postgresql"):
        made = made.set(drivername="postgresql+pg8000")
    if made.drivername not in ("sqlite", "postgresql+pg8000"):
        raise UserError("no such kind of database", value=made.drivername,
                        fix="a file for SQLite, or postgresql://…")  # fmt: skip
    if made.drivername == "sqlite" and not made.database:
        raise UserError("a rating database is a file", fix="name one")
    return made


def _tables(file: Path, shown: str) -> set[str]:
    """The tables of a file, which is only looked at: it may be somebody else's."""
    if not file.is_file():
        return set()
    try:
        with closing(sqlite3.connect(file, timeout=30.0)) as connection:
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            return {name for (name,) in names}
    except sqlite3.Error as error:
        raise UserError(f"cannot open the rating database: {error}", value=shown) from None


def _own(file: Path) -> None:
    """A file that only its owner can read: the key to the sides and workers' names are in it."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # SQLite gives its other files the mode of this one.
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        for part in (file, *(file.with_name(f"{file.name}-{end}") for end in ("wal", "shm"))):
            if part.exists() and part.stat().st_uid == os.geteuid():
                part.chmod(0o600)
    except OSError as error:
        raise UserError(
            f"cannot open the rating database: {(error.strerror or str(error)).lower()}",
            value=str(file),
        ) from None


def _engine(url: URL, sqlite: bool) -> Engine:
    if not sqlite:
        try:
            return create_engine(url, pool_size=20, max_overflow=20, pool_pre_ping=True,
                                 hide_parameters=True)  # fmt: skip
        except (ImportError, NoSuchModuleError):
            raise MissingExtra("a rating database in PostgreSQL", "postgres") from None
    engine = create_engine(url, connect_args={"timeout": 30.0, "check_same_thread": False},
                           pool_size=20, max_overflow=30, hide_parameters=True)  # fmt: skip
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _: object) -> None:
    # The driver would begin transactions by itself, late, and only before some statements.
    connection.isolation_level = None
    for line in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {line}")


def _begin(connection: Connection) -> None:
    # A transaction that reads first and then writes cannot wait for another one's end.
    write = connection.get_execution_options().get("epigone_write", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _passing(error: DBAPIError) -> bool:
    """Whether the same transaction may do better a moment later."""
    told = str(error.orig)
    return (
        "database is locked" in told
        or "database table is locked" in told
        or any(f"'{code}'" in told for code in _AGAIN)
        or error.connection_invalidated
    )


def _first_line(error: DBAPIError) -> str:
    found = error.orig.args[0] if error.orig is not None and error.orig.args else error
    told = found.get("M", "refused") if isinstance(found, dict) else str(found)
    return (told.splitlines() or ["refused"])[0]
