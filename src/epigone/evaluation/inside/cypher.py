"""Runs queries that a model wrote on a graph, one after another.

The first line that arrives tells of the graph, each later one is a query; each that leaves is an
object with `rows`, with `wrong`, or with `many` where there are more rows than may be.
"""

import json
import sys
import tempfile
from typing import Any

from epigone.evaluation.inside.wire import channel, limit

# Bytes of the pages that a query may fill, and of the graph: a power of two.
POOL, LARGEST = 64 << 20, 64 << 20
# Characters of the rows of one answer.
MOST = 1 << 20


class Mistake(Exception):
    """A statement that the graph cannot be made with, and why."""


def plain(value: Any) -> Any:
    """A value as JSON has it: dates and the like are texts."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    return str(value)


def told(error: BaseException) -> str:
    """An error in its first line."""
    return (str(error).strip() or type(error).__name__).split("\n")[0][:300]


def graph(statements: list[str]) -> Any:
    """A database that statements make, and that nothing changes any more."""
    import ladybug

    settings = {"buffer_pool_size": POOL, "max_db_size": LARGEST, "max_num_threads": 1}
    with tempfile.TemporaryDirectory() as folder:
        with (
            ladybug.Database(f"{folder}/graph", **settings) as made,
            ladybug.Connection(made, num_threads=1) as connection,
        ):
            for statement in statements:
                try:
                    connection.execute(statement)
                except RuntimeError as error:
                    raise Mistake(statement, told(error)) from error
        # What is open stays when its name is gone.
        return ladybug.Database(f"{folder}/graph", read_only=True, **settings)


def answer(connection: Any, query: str, most: int) -> dict[str, Any]:
    """What a query gives."""
    try:
        result = connection.execute(query)
        if isinstance(result, list):
            return {"wrong": "more than one query"}
        rows: list[Any] = []
        while result.has_next():
            if len(rows) == most:
                return {"many": True}
            rows.append(plain(result.get_next()))
        return {"rows": rows} if len(json.dumps(rows)) <= MOST else {"many": True}
    except Exception as error:
        return {"wrong": told(error)}


def main() -> None:
    """Make the graph, then answer until the queries end."""
    lines, out = channel()
    begin = json.loads(lines.readline())
    limit(begin["limits"])
    # First, so that nothing else of a folder of many packages is found before the standard library.
    sys.path.append(begin["packages"])

    def say(what: dict[str, Any]) -> None:
        out.write(json.dumps(what) + "\n")
        out.flush()

    try:
        import ladybug

        connection = ladybug.Connection(graph(begin["graph"]), num_threads=1)
        connection.set_query_timeout(begin["milliseconds"])
    except Mistake as mistake:
        statement, wrong = mistake.args
        say({"wrong": wrong, "statement": statement})
        return
    except Exception as error:
        say({"wrong": told(error), "statement": ""})
        return
    say({"ready": True})
    for line in lines:
        say(answer(connection, *json.loads(line)))


if __name__ == "__main__":
    main()
