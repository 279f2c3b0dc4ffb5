from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, Table, inspect, select, text

from epigone.errors import MissingExtra, UserError
from epigone.raters import people
from epigone.raters.store import Store, migrate
from epigone.raters.tables import Base, Comparison
from epigone.raters.workforces import Arrival

from .databases import emptied
from .rating_site import filled, pairs


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "deep" / "r.db")
    else:
        found = request.getfixturevalue("server")
        yield found
        emptied(found)


def test_the_versions_of_the_tables_lead_to_those_of_the_code(url: str) -> None:
    store = Store(url)
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    assert set(inspect(store.engine).get_table_names()) == {
        *Base.metadata.tables, "alembic_version",
    }  # fmt: skip
    people.enter(store, "public", Arrival("w"), 0.0)
    store.close()
    again = Store(url)  # nothing is made anew
    assert again.read(lambda s: s.execute(text("SELECT count(*) FROM rater")).scalar()) == 1
    again.write(lambda s: s.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    again.close()
    with pytest.raises(UserError, match="made by a newer epigone: 9999"):
        Store(url)


def test_the_first_versions_slots_are_counted_once(url: str) -> None:
    made = Store(url)
    engine = made.engine
    with engine.begin() as connection:
        for table in (*reversed(Base.metadata.sorted_tables), Table("alembic_version", MetaData())):
            table.drop(connection)
        migrate(connection, "0001")
        connection.execute(text(
            "INSERT INTO comparison (id, purpose, item, a, b, prompt, a_text, b_text, feedback)"
            " VALUES (1, 'item', 'i', 'm', 't', '[]', '', '', ''),"
            " (2, 'item', 'j', 'm', 't', '[]', '', '', '')"
        ))  # fmt: skip
        for n, slot in enumerate((0, 1, None), start=1):
            connection.execute(text(
                "INSERT INTO rater (id, public, workforce, joined, excluded)"
                " VALUES (:n, :name, 'public', 0, '')"
            ), {"n": n, "name": f"r-{n}"})  # fmt: skip
            connection.execute(text(
                "INSERT INTO task (public, rater_id, comparison_id, \"left\", state, slot, opened,"
                " expires, reasons, comment)"
                " VALUES (:name, :n, 2, 'a', 'open', :slot, 0, 9, '[]', '')"
            ), {"n": n, "name": f"t-{n}", "slot": slot})  # fmt: skip
    made.close()
    again = Store(url)
    rows = again.read(lambda s: s.execute(select(Comparison.id, Comparison.taken)).all())
    assert dict(rows) == {1: 0, 2: 2}
    again.close()
    if made.file is not None:
        # What it was before is kept, for its owner alone.
        copy = made.file.with_name(f"{made.file.name}.0001")
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        with closing(sqlite3.connect(copy)) as older:
            assert older.execute("SELECT version_num FROM alembic_version").fetchall() == [
                ("0001",)
            ]
            assert older.execute("SELECT count(*) FROM task").fetchone() == (3,)
        Store(url).close()
        assert len(list(made.file.parent.glob(f"{made.file.name}.*"))) == 1


def test_sqlite_keeps_what_it_said_it_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "r.db")
    with store.engine.connect() as connection:
        told = [connection.exec_driver_sql(f"PRAGMA {p}").scalar()
                for p in ("journal_mode", "synchronous", "foreign_keys")]  # fmt: skip
    assert told == ["wal", 2, 1]
    names = [tmp_path / f"r.db{end}" for end in ("", "-wal", "-shm")]
    assert [stat.S_IMODE(name.stat().st_mode) for name in names] == [0o600] * 3
    store.close()
    names[0].chmod(0o644)
    Store(names[0]).close()
    assert stat.S_IMODE(names[0].stat().st_mode) == 0o600


def test_somebody_elses_database_is_left_as_it_is(tmp_path: Path, server: str) -> None:
    file = tmp_path / "other.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("CREATE TABLE theirs (a INTEGER)")
        connection.commit()
    file.chmod(0o644)
    before = file.read_bytes()
    for create in (True, False):
        with pytest.raises(UserError, match="it has other tables"):
            Store(file, create=create)
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    (tmp_path / "empty.db").touch()
    for empty in (tmp_path / "empty.db", server):
        with pytest.raises(UserError, match="no rating database"):
            Store(empty, create=False)
    assert (tmp_path / "empty.db").stat().st_size == 0


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://me:hunter2@host/db", "no such kind of database"),
        ("sqlite://", "a rating database is a file"),
        ("://hunter2", "not the URL of a database"),
        ("postgresql://me:hunter2@127.0.0.1:1/db", "cannot open the rating database"),
    ],
)
def test_a_wrong_database_is_told_without_its_password(url: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        Store(url)
    assert "hunter2" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_wrong_password_is_told_without_it(server: str) -> None:
    with pytest.raises(UserError, match="cannot open the rating database") as caught:
        Store(server.replace("pass%20word", "hunter2"))
    assert "hunter2" not in str(caught.value) and "***@127.0.0.1" in str(caught.value)


def test_the_password_may_stand_where_postgresqls_programs_look_for_it(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _, host = server.partition("@")
    scheme, user, password = before.split(":", 2)
    monkeypatch.setenv("PGPASSWORD", unquote(password))
    store = Store(f"{scheme}:{user}@{host}")
    assert unquote(password) not in store.shown
    store.close()


def test_files_that_are_no_databases_are_told(tmp_path: Path) -> None:
    (tmp_path / "r.db").write_text("not a database at all, but long enough to be read as one" * 20)
    with pytest.raises(UserError, match="file is not a database"):
        Store(tmp_path / "r.db")
    with pytest.raises(UserError, match="no rating database"):
        Store(tmp_path / "none.db", create=False)
    assert not (tmp_path / "none.db").exists()
    store = Store(tmp_path / "new.db")
    with pytest.raises(UserError, match="no comparisons"):
        store.plan()
    store.close()


def test_postgres_without_its_package_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pg8000", None)
    with pytest.raises(MissingExtra, match="postgres"):
        Store("postgresql://host/db")


def test_processes_that_write_at_once_wait_for_each_other(tmp_path: Path) -> None:
    """Two writers of one file, one of which is killed in the middle: every answer is there."""
    filled(tmp_path, pairs(12, ("m1",)), checks=False, per_item=4, per_rater=12,
           check_every=0).close()  # fmt: skip
    code = (
        "import sys\n"
        "from epigone.raters import assign, people\n"
        "from epigone.raters.store import Store\n"
        "from epigone.raters.workforces import Arrival\n"
        "store = Store('ratings.db')\n"
        "rater = people.enter(store, 'public', Arrival(sys.argv[1]), 0.0).rater\n"
        "while (task := assign.desk(store, rater, 1.0).shown) is not None:\n"
        "    assign.cast(store, rater, task.id, assign.Ballot(1), 1.0)\n"
        "    print(task.id, flush=True)\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, f"w{n}"], cwd=tmp_path, text=True,
                         stdout=subprocess.PIPE)
        for n in range(2)
    ]  # fmt: skip
    said = []
    assert started[0].stdout is not None
    said += [started[0].stdout.readline().strip() for _ in range(5)]
    os.kill(started[0].pid, signal.SIGKILL)
    said += [word for process in started for word in process.communicate(timeout=60)[0].split()]
    store = Store(tmp_path / "ratings.db")
    kept = store.read(lambda s: set(s.execute(text(
        "SELECT public FROM task WHERE state = 'done'")).scalars()))  # fmt: skip
    assert len(said) == len(set(said)) >= 17
    assert set(said) <= kept and len(kept) <= len(said) + 1
    store.close()
