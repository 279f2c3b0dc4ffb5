"""Queries that break the database, use it up, or try to do more than read."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from epigone.errors import MissingExtra, SandboxError, UserError
from epigone.evaluation import code, cypher, sandbox
from epigone.evaluation.cypher import Graph, NoRows, refused, same, written
from epigone.evaluation.sandbox import Process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is Linux's")

PEOPLE = (
    "CREATE NODE TABLE Person(name STRING, age INT64, PRIMARY KEY(name))",
    "CREATE REL TABLE KNOWS(FROM Person TO Person)",
    "UNWIND range(1, 40) AS i CREATE (:Person {name: 'p' + cast(i, 'STRING'), age: i})",
    "MATCH (a:Person), (b:Person) WHERE (a.age + b.age) % 3 = 0 CREATE (a)-[:KNOWS]->(b)",
)
COUNT = "MATCH (p:Person) RETURN count(p)"
ENDLESS = "UNWIND range(1, 100000) AS x UNWIND range(1, 100000) AS y RETURN sum(x * y)"


@pytest.fixture(scope="module")
def people() -> Iterator[Graph]:
    graph = Graph(PEOPLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cypher, "SECONDS", 1.0)
        patch.setattr(cypher, "GRACE", 20.0)  # some are slow to refuse
        yield graph
    graph.end()


def ask_unread(graph: Graph, query: str) -> str:
    """What becomes of a query that is not looked at before it runs."""
    told = graph._asked(query, 1000)
    return str(told.get("wrong", ""))


def test_rows_are_plain_data(people: Graph) -> None:
    assert people.rows(COUNT) == [[40]]
    query = 'RETURN date(\'2020-01-31\'), [1, 2.5], {a: true}, null, "it\'s; \\"so\\" — ü"'
    assert people.rows(query) == [["2020-01-31", [1, 2.5], {"a": True}, None, 'it\'s; "so" — ü']]
    ((node,),) = people.rows("MATCH (p:Person {name: 'p1'}) RETURN p;")
    assert (node["name"], node["_LABEL"]) == ("p1", "Person")


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("MATCH (p:Person) RETURN p.nme", "does not run: Binder exception"),
        ("RETURN (1", "does not run: Parser exception"),
        ("SELECT name FROM person", "not a query that only reads"),
        ("", "not a query that only reads"),
        ("'MATCH (p) RETURN p'", "not a query that only reads"),
        ("MATCH (p:Person {name: 'nobody'}) RETURN p.name", "no rows"),
        ("MATCH (p:Person) RETURN p.name", "too many rows"),
        ("RETURN 1; RETURN 2", "more than one query"),
        ("RETURN '" + "x" * 3000 + "'", "too long"),
        ("RETURN repeat('x', 3000000)", "too many rows"),
        ("RETURN '\ud800'", "does not run"),
    ],
)
def test_what_is_wrong_is_told_in_a_few_words(people: Graph, query: str, why: str) -> None:
    assert people.wrong(query, most=30).startswith(why)
    assert "\n" not in people.wrong(query, most=30)
    assert people.wrong(COUNT) == ""


# What the database does beside reading its graph; each has to be stopped three times: by its words,
# by a transaction that only reads or a file that is not there, and by the sandbox around it.
BESIDES = (
    "CREATE (:Person {name: 'x', age: 1})",
    "MATCH (p:Person) SET p.age = 1 RETURN p.age",
    "MATCH (p:Person) DETACH DELETE p",
    "MERGE (p:Person {name: 'x'}) RETURN p.name",
    "DROP TABLE KNOWS",
    "ALTER TABLE Person ADD more STRING",
    "LOAD FROM '{secret}' RETURN *",
    "/* MATCH */ load from '{secret}' return *",
    "// RETURN\nLOAD FROM '{secret}' RETURN *",
    "COPY Person FROM '{secret}'",
    "IMPORT DATABASE '{folder}'",
    "ATTACH '{secret}' AS other (dbtype ladybug)",
    "INSTALL json",
    "LOAD EXTENSION '{secret}'",
)
UNREAD = (
    # What these write lies in the sandbox's own /tmp.
    "EXPORT DATABASE '{folder}/out'",
    "COPY (MATCH (p:Person) RETURN p.name) TO '{folder}/out.csv'",
    "CALL show_tables() RETURN *",
    "CALL threads=4",
    "BEGIN TRANSACTION",
    "COMMIT",
    "CHECKPOINT",
    "EXPLAIN MATCH (p) RETURN p",
    "CREATE MACRO more(a) AS a + 1",
    "UNWIND [1] AS x CREATE (:Person {name: 'x', age: x})",
    "WITH 1 AS x MATCH (p:Person) DELETE p",
)


@pytest.mark.parametrize("query", [*BESIDES, *UNREAD])
def test_nothing_but_reading_is_a_query(people: Graph, query: str) -> None:
    assert people.wrong(query) == "not a query that only reads"


def test_what_words_would_miss_the_database_and_the_sandbox_stop(
    people: Graph, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text(secrets.token_hex(16) + ",1\n")
    secret.chmod(0o644)

    def ask(query: str) -> str:
        named = query.replace("{secret}", str(secret)).replace("{folder}", str(tmp_path))
        return ask_unread(people, named)

    for query in BESIDES:
        told = ask(query)
        assert told, query
        assert secret.read_text().strip() not in told
    for query in UNREAD:
        ask(query)
    assert ask_unread(people, "COMMIT; MATCH (p:Person) DETACH DELETE p")
    assert people.rows(COUNT) == [[40]]
    assert [*tmp_path.iterdir()] == [secret]


def test_no_file_of_the_host_is_seen(people: Graph) -> None:
    for path in ("/etc/passwd", __file__, str(Path(cypher.__file__)), "/proc/1/root/etc/passwd"):
        assert ask_unread(people, f"LOAD FROM '{path}' (file_format='csv', header=false) RETURN *")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "why"),
    [
        # Each of these broke the database, or had to be broken off, outside of its limits.
        ("UNWIND range(1, 100000000000) AS x RETURN count(x)", "does not run"),
        ("RETURN lpad('x', 2000000000, 'y')", "does not run"),
        ("RETURN repeat('x', 10000000000)", "does not run"),
        ("RETURN " + "[" * 900 + "]" * 900, "does not run"),
        # Whether memory or time ends first is the machine's matter.
        ("MATCH (a)-[*1..30]->(b) RETURN count(*)", ("does not run", "took too long")),
        ("MATCH (a), (b), (c), (d) RETURN a, b, c, d", "too many rows"),
        (ENDLESS, "took too long"),
        ("MATCH (a), (b), (c), (d), (e), (f) WHERE a.age + b.age + c.age + d.age + e.age = f.age "
         "RETURN sum(a.age)", "took too long"),
    ],
)  # fmt: skip
def test_endless_and_huge_queries_end(
    people: Graph, query: str, why: str | tuple[str, ...]
) -> None:
    started = time.monotonic()
    assert people.wrong(query).startswith(why)
    assert time.monotonic() - started < cypher.SECONDS + cypher.GRACE + 10
    assert people.rows(COUNT) == [[40]]


def test_a_query_that_ends_the_process_is_wrong_and_the_next_one_runs() -> None:
    graph = Graph(PEOPLE)
    graph.start()
    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(0.5):
            if graph._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(graph._process._process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        assert graph.wrong(ENDLESS) == "does not run: the database broke"
    finally:
        stop.set()
        killer.join()
    assert graph.rows(COUNT) == [[40]]
    graph.end()


def test_a_process_that_ended_between_queries_is_not_the_next_ones_fault() -> None:
    graph = Graph(PEOPLE)
    assert graph.rows(COUNT) == [[40]]
    assert graph._process is not None
    os.killpg(graph._process._process.pid, signal.SIGKILL)
    assert graph.rows(COUNT) == [[40]]
    graph.end()


@pytest.mark.parametrize(
    "line", ["no json", "[]", "7", '{"rows": 7}', "[" * 100_000, '{"what": 1}', "{}"]
)
def test_a_process_that_speaks_out_of_turn_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, people: Graph, line: str
) -> None:
    people.start()
    monkeypatch.setattr(Process, "receive", lambda self, deadline: line)
    with pytest.raises((NoRows, SandboxError)):
        people.rows(COUNT)
    people.end()


def test_without_the_database_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'epigone\[cypher\]'"):
        Graph(PEOPLE).rows(COUNT)


def test_without_bubblewrap_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if "bubblewrap" in name else found(name)
    )
    monkeypatch.setattr("shutil.which", lambda name: None)
    sandbox._bwrap.cache_clear()
    sandbox._probed.cache_clear()
    try:
        with pytest.raises(SandboxError, match=r"pip install 'epigone\[sandbox\]'"):
            Graph(PEOPLE).rows(COUNT)
    finally:
        sandbox._bwrap.cache_clear()
        sandbox._probed.cache_clear()


def test_a_user_may_give_the_sandbox_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(code.UNSAFE, "1")
    monkeypatch.setattr(sandbox, "probe", lambda: pytest.fail("asked for a sandbox"))
    graph = Graph(PEOPLE)
    assert graph.rows(COUNT) == [[40]]
    assert graph.wrong("MATCH (p:Person) DELETE p") == "not a query that only reads"
    graph.end()


def test_a_mistake_in_the_graph_is_told_with_its_statement(tmp_path: Path) -> None:
    path = tmp_path / "graph.cypher"
    path.write_text(
        "// None.\nCREATE NODE TABLE A(n INT64, PRIMARY KEY(n));\nCREATE (:B {n: 1});\n"
    )
    with pytest.raises(UserError, match=r"cannot be made: CREATE \(:B .*Binder exception"):
        Graph.read(path).rows("RETURN 1")
    with pytest.raises(UserError, match="cannot be read"):
        Graph.read(tmp_path / "none")


@pytest.mark.parametrize(
    "query",
    [
        'MATCH (b:Book {title: "Set; match, create and call"}) RETURN b.title',
        "MATCH (b) WHERE b.t = 'it\\'s; SET' RETURN b.t // SET\n;",
        "OPTIONAL MATCH (b) RETURN b.`delete`",
        "  match (n) return count(n) ; ",
    ],
)
def test_words_in_texts_do_not_count(query: str) -> None:
    assert refused(query) == ""


@pytest.mark.parametrize(
    ("answer", "query"),
    [
        (" MATCH (n) RETURN n", "MATCH (n) RETURN n"),
        ("MATCH (n)\nRETURN n;\nThis finds all.", "MATCH (n)\nRETURN n"),
        ("MATCH (n)\nRETURN n\n\nWrite one Cypher query", "MATCH (n)\nRETURN n"),
        ("Here it is:\n\n```cypher\nMATCH (n)\n\nRETURN n;\n```\nIt …", "MATCH (n)\n\nRETURN n;"),
        ("```\nMATCH (n) RETURN n", "MATCH (n) RETURN n"),
        ("```MATCH (n) RETURN n```", "MATCH (n) RETURN n"),
        ("`MATCH (n) RETURN n`", "MATCH (n) RETURN n"),
        ("", ""),
        ("```", ""),
    ],
)
def test_the_query_in_a_models_answer(answer: str, query: str) -> None:
    assert written(answer) == query


def test_rows_are_the_same_in_any_order_and_each_as_often() -> None:
    assert same([["a", 1], ["b", 2]], [["b", 2.0], ["a", 1]])
    assert same([[0.1 + 0.2]], [[0.3]])
    assert same([[{"x": [1], "y": None}]], [[{"y": None, "x": [1.0]}]])
    assert not same([["a"]], [["a"], ["a"]])
    assert not same([["a", 1]], [[1, "a"]])
    assert not same([[1]], [["1"]])
    assert not same([[True]], [[1]])
    assert not same([[float("nan")]], [[None]])
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert not same([deep], [deep])


def test_a_package_is_read_in_the_sandbox_and_nothing_beside_it(tmp_path: Path) -> None:
    for name in ("shown", "hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("told = 7\n")
    program = """
import os, sys
sys.path.append("/packages")
import shown
def f():
    try:
        open("/packages/shown/new", "w")
    except OSError as error:
        return [shown.told, sorted(os.listdir("/packages")), type(error).__name__]
"""
    limits = sandbox.LIMITS
    deadline = time.monotonic() + limits.wall_seconds
    with Process(
        "candidate", unsafe=False, limits=limits, packages=[tmp_path / "shown"]
    ) as process:
        process.send(json.dumps([{"dict": [*map(list, limits.settings().items())]}, program]),
                     deadline)  # fmt: skip
        assert "ready" in process.receive(deadline)
        process.send(json.dumps(["f", [], {"dict": []}]), deadline)
        told = process.receive(deadline)
    assert json.loads(told) == {"dict": [["value", [7, ["shown"], "OSError"]]]}
