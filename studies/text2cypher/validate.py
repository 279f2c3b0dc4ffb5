"""Whether a teacher's query is good: it reads the graph, runs, and finds a few rows."""

import re
from functools import cache
from pathlib import Path

from epigone.evaluation.cypher import Graph

# So many rows, and a question asks for nearly everything.
MOST_ROWS = 50


@cache
def graph() -> Graph:
    """The graph, whose process lives as long as this one."""
    return Graph.read(Path(__file__).parent / "benchmark" / "graph.cypher")


def check(question: str, answer: str) -> str:
    """What is wrong with a pair, empty where nothing is."""
    if not re.search(r"\bmatch\b", answer, re.IGNORECASE):
        return "not a query of the graph"
    return graph().wrong(answer, MOST_ROWS)
