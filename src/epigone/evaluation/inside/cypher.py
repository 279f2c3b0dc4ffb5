"""Runs queries that a model wrote on a graph in memory, one after another.

The first line that arrives tells of the graph, each later one is a query; each that leaves is an
object with `rows`, with `wrong`, or with `many` where there are more rows than may be.
"""

import contextlib
import json
import sys
from typing import Any

from epigone.evaluation.inside.wire import channel, limit

# Bytes of the pages that a query may fill, and of the graph: a power of two.
POOL, LARGEST = 64 << 20, 64 << 20
# Characters of the rows of one answer.
MOST = 1 << 20


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


def answer(connection: Any, query: str, most: int) -> dict[str, Any]:
    """What a query gives; it cannot write."""
    connection.execute("BEGIN TRANSACTION READ ONLY")
    try:
        result = connection.execute(query)
        if isinstance(result, list):
            return {"wrong": "more than one query"}
        rows: list[Any] = []
        while result.has_next():
            if len(rows) == most:
                return {"many": True}
            rows.append(plain(result.get_next()))
        packed = json.dumps(rows)
        return {"rows": rows} if len(packed) <= MOST else {"many": True}
    except Exception as error:
        return {"wrong": told(error)}
    finally:
        # An error has ended the transaction already.
        with contextlib.suppress(RuntimeError):
            connection.execute("ROLLBACK")


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

    statement = ""
    try:
        import ladybug

        database = ladybug.Database(
            ":memory:", buffer_pool_size=POOL, max_db_size=LARGEST, max_num_threads=1
        )
        connection = ladybug.Connection(database, num_threads=1)
        for statement in begin["graph"]:
            connection.execute(statement)
        connection.set_query_timeout(begin["milliseconds"])
    except Exception as error:
        say({"wrong": told(error), "statement": statement})
        return
    say({"ready": True})
    for line in lines:
        say(answer(connection, *json.loads(line)))


if __name__ == "__main__":
    main()
