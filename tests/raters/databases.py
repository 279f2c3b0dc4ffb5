"""A PostgreSQL of the tests' own, on a free port of this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    named = shutil.which("initdb")
    return Path(named).parent if named else found[-1].parent if found else None


def emptied(url: str) -> None:
    """Take every table out of a database."""
    engine = create_engine(url.replace("postgresql://", "postgresql+pg8000://"))
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The URL of an empty database; skips where there is no PostgreSQL."""
    programs = _programs()
    root = os.getuid() == 0
    if programs is None or (root and shutil.which("runuser") is None):
        pytest.skip("no PostgreSQL to keep ratings in")
    # It refuses to run as root.
    before = ["runuser", "-u", "postgres", "--"] if root else []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # A path of its own: those of the tests are closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="epigone-pg-", dir="/tmp"))
    if root:
        shutil.chown(folder, "postgres", "postgres")
    data, password = folder / "data", folder / "password"
    password.write_text("pass word/@:\n")
    password.chmod(0o644)
    # Without syncs, and small: its disk is thrown away.
    options = (
        f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=60"
    )
    control = [*before, str(programs / "pg_ctl"), "-D", str(data), "-w", "-s"]

    def run(*words: str) -> None:
        subprocess.run(words, check=True, capture_output=True, timeout=60, cwd=folder)

    try:
        make = f"-U epigone -A scram-sha-256 --pwfile={password} --no-sync -E UTF8 --locale=C"
        run(*before, str(programs / "initdb"), "-D", str(data), *make.split())
        run(*control, "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql://epigone:pass%20word%2F%40%3A@127.0.0.1:{port}/postgres"
        finally:
            run(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
