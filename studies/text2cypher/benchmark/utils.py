"""The items of the benchmark text2cypher, and whether a model's query finds what ours finds."""

import json
from functools import cache
from pathlib import Path

from datasets import Dataset

from epigone.evaluation.cypher import Graph, NoRows, same, written

HERE = Path(__file__).resolve().parent


@cache
def graph() -> Graph:
    """The graph, whose process lives as long as this one."""
    return Graph.read(HERE / "graph.cypher")


def load(**_: object) -> dict[str, Dataset]:
    """Return the splits ``test`` and ``shots``; what is missing to run queries is told now."""
    graph().start()
    return {"test": _read(HERE / "items.jsonl"), "shots": _read(HERE / "shots.jsonl")}


def score(doc: dict[str, str], results: list[str]) -> dict[str, float]:
    """Whether the query in an answer has the rows of ours, and whether it has any."""
    wanted = graph().rows(doc["query"])
    try:
        found = graph().rows(written(results[0]))
    except NoRows:
        return {"execution_accuracy": 0.0, "runs": 0.0}
    return {"execution_accuracy": float(same(found, wanted)), "runs": 1.0}


def _read(path: Path) -> Dataset:
    lines = path.read_text(encoding="utf-8").splitlines()
    return Dataset.from_list([json.loads(line) for line in lines])
