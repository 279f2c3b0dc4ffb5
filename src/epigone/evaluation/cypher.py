"""A small graph that models ask in Cypher: a database in the sandbox."""

from __future__ import annotations

import importlib.util
import json
import re
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from epigone.errors import MissingExtra, SandboxError, UserError
from epigone.evaluation import code, sandbox
from epigone.evaluation.sandbox import Gone, Limits, Process

Row = list[Any]
# The database reserves half a gigabyte of addresses before it holds anything.
LIMITS = Limits(memory=1 << 30, files=32, answer=4 << 20)
# A query's own time; the process is ended some seconds later, since parsing is not counted.
SECONDS, GRACE = 5.0, 5.0
# Nested a thousand deep a query takes the parser minutes.
LONGEST = 2000
MOST_ROWS = 1000

_TOKEN = re.compile(
    r"//[^\n]*|/\*.*?\*/|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|`[^`]*`|(?P<word>\w+)|(?P<end>;)|\S",
    re.DOTALL,
)
_BEGINS = {"MATCH", "OPTIONAL", "RETURN", "UNWIND", "WITH"}
# What the database's own grammar begins other statements with, and clauses that write.
_REFUSED = {
    *("ALTER", "ANALYZE", "ATTACH", "BEGIN", "CALL", "CHECKPOINT", "COMMENT", "COMMIT", "COPY"),
    *("CREATE", "DELETE", "DETACH", "DROP", "EXPLAIN", "EXPORT", "EXTENSION", "FORCE", "FOREACH"),
    *("IMPORT", "INSTALL", "LOAD", "MERGE", "PROFILE", "REMOVE", "ROLLBACK", "SET", "UNINSTALL"),
    *("UPDATE", "USE"),
}  # fmt: skip
_OF_GONE: dict[str, dict[str, Any]] = {
    "it took too long": {"wrong": "Interrupted."},
    "its answer is too long": {"many": True},
}
_FENCED = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)


class NoRows(Exception):
    """A query has no rows that can be used; the message is why, in a few words."""


class Graph:
    """A graph that can only be read, in a process that lives until it is ended or dies."""

    def __init__(self, statements: Sequence[str]) -> None:
        """A graph that statements make, which are trusted; nothing is started yet."""
        self._statements = list(statements)
        self._process: Process | None = None
        self._end: Callable[[], object] = lambda: None

    @classmethod
    def read(cls, path: Path) -> Graph:
        """The graph of a file of statements, each with a semicolon at a line's end.

        Raises UserError.
        """
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError("a graph that cannot be read", value=str(path)) from error
        return cls([s for part in re.split(r";[ \t]*(?:\n|\Z)", text) if (s := part.strip())])

    def rows(self, query: str, most: int = MOST_ROWS) -> list[Row]:
        """The rows of a query that only reads, of which there is at least one.

        Raises NoRows, and UserError where no query can be run at all: see `start`.
        """
        if why := refused(query):
            raise NoRows(why)
        found = self._asked(query.strip(), most)
        if "many" in found:
            raise NoRows("too many rows")
        if "rows" not in found:
            wrong = str(found.get("wrong", "nothing is said"))
            raise NoRows(
                "took too long" if wrong == "Interrupted." else f"does not run: {_line(wrong)}"
            )
        rows: list[Row] = found["rows"]
        if not rows:
            raise NoRows("no rows")
        return rows

    def wrong(self, query: str, most: int = MOST_ROWS) -> str:
        """Why a query is no good one, empty where it is; raises UserError as `rows`."""
        try:
            self.rows(query, most)
        except NoRows as why:
            return str(why)
        return ""

    def start(self) -> None:
        """Start the database unless it runs.

        Raises MissingExtra, SandboxError where nothing can be isolated, and UserError for a
        statement that is wrong.
        """
        if self._process is not None:
            return
        spec = importlib.util.find_spec("ladybug")
        if spec is None or spec.origin is None:
            raise MissingExtra("running Cypher", "cypher")
        package, unsafe = Path(spec.origin).parent, code.unsafe()
        if not unsafe:
            sandbox.probe()
        # It lives for many queries, whose time adds up; outside, a user's other processes count.
        uncounted = {"RLIMIT_CPU"} | ({"RLIMIT_NPROC"} if unsafe else set())
        settings = {k: v for k, v in LIMITS.settings().items() if k not in uncounted}
        begin = {
            "limits": settings,
            "packages": str(package.parent) if unsafe else sandbox.SHOWN,
            "graph": self._statements,
            "milliseconds": int(SECONDS * 1000),
        }
        self._process = Process("cypher", unsafe=unsafe, limits=LIMITS, packages=[package])
        self._end = weakref.finalize(self, self._process.end)
        try:
            told = self._said(json.dumps(begin), LIMITS.wall_seconds)
        except Gone as gone:
            told = {"wrong": str(gone), "statement": ""}
        if "wrong" in told:
            self.end()
            if told["statement"]:
                raise UserError(
                    "a graph that cannot be made", value=told["statement"], fix=told["wrong"]
                )
            raise SandboxError(
                "the graph's database does not start", value=told["wrong"],
                fix="see that python -c 'import ladybug' works",
            )  # fmt: skip

    def end(self) -> None:
        """End the process; the next query starts another."""
        self._end()
        self._process = None

    def _asked(self, query: str, most: int) -> dict[str, Any]:
        again = self._process is not None
        self.start()
        try:
            return self._said(json.dumps([query, most]), SECONDS + GRACE)
        except Gone as gone:
            self.end()
            # It may have ended before, or of a query before: one that is asked first tells.
            if again and str(gone) == "it ended":
                return self._asked(query, most)
            return _OF_GONE.get(str(gone), {"wrong": "the database broke"})

    def _said(self, line: str, seconds: float) -> dict[str, Any]:
        """The answer to a line; raises Gone."""
        assert self._process is not None
        deadline = time.monotonic() + seconds
        self._process.send(line, deadline)
        try:
            told: dict[str, Any] = json.loads(self._process.receive(deadline))
        except (ValueError, RecursionError):
            raise Gone("it ended") from None
        if not isinstance(told, dict) or not isinstance(told.get("rows", []), list):
            raise Gone("it ended")
        return told


def refused(query: str) -> str:
    """Why a text is not even run, empty where it may be: it has to be one query that only reads.

    It keeps mistakes apart from one another; what keeps the machine safe is the sandbox.
    """
    if len(query) > LONGEST:
        return "too long"
    tokens = [t for t in _TOKEN.finditer(query) if not t[0].startswith(("//", "/*"))]
    if tokens and tokens[-1]["end"]:
        tokens.pop()
    said = [t["word"].upper() for t in tokens if t["word"]]
    if not tokens or tokens[0]["word"] is None or said[0] not in _BEGINS or _REFUSED & {*said}:
        return "not a query that only reads"
    return "more than one query" if any(t["end"] for t in tokens) else ""


def written(answer: str) -> str:
    """The query in a model's answer: its first fenced block, else what stands before a gap."""
    if fenced := _FENCED.search(answer):
        return fenced[1].strip()
    return re.split(r";|\n\s*\n|```", answer.strip(" \n`"))[0].strip(" \n`")


def same(some: Sequence[Row], others: Sequence[Row]) -> bool:
    """Whether rows are equal, each as often, in whatever order; names of columns do not count."""
    try:
        return Counter(map(_key, some)) == Counter(map(_key, others))
    except RecursionError:
        return False


def _key(value: Any) -> str:
    """Equal for equal values: 2 and 2.0 are, and sums of floats in another order."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else f"{value:.9g}"
    if isinstance(value, list):
        return f"[{','.join(map(_key, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{_key(v)}" for k, v in sorted(value.items())) + "}"
    return json.dumps(value)


def _line(text: str) -> str:
    """Hostile text without what breaks a line or a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)[:200]
