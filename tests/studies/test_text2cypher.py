"""The shipped task text2cypher: its seeds, its validator, its benchmark, and a pool made of it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from epigone.corpus.contamination import Index, Item
from epigone.evaluation.cypher import Graph
from epigone.evaluation.items import items
from epigone.evaluation.parts import load_parts
from epigone.files import read_jsonl
from epigone.models.references import data_fingerprint
from epigone.study.specs import BenchmarkSpec, DataSpec, ModelSpec
from epigone.teachers.means import Means
from epigone.teachers.pairs import Pair, Pool
from epigone.teachers.synthesis import Growth
from epigone.teachers.synthesize import synthesize_task
from epigone.teachers.task import Task, read

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is Linux's")

TASK = Path(__file__).parents[2] / "studies" / "text2cypher"
BENCHMARK = TASK / "benchmark"
ITEMS: list[dict[str, str]] = list(read_jsonl(BENCHMARK / "items.jsonl"))


@pytest.fixture(scope="module")
def task() -> Task:
    return read(TASK)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return Graph.read(BENCHMARK / "graph.cypher")


@pytest.fixture(scope="module")
def spec() -> BenchmarkSpec:
    suite = DataSpec(ref=str(BENCHMARK), fingerprint="")
    model = ModelSpec(kind="base", name="x")
    return BenchmarkSpec(
        model=model, task="text2cypher", task_version=0, label="text2cypher", suite=suite
    )


@pytest.fixture(scope="module")
def part(spec: BenchmarkSpec) -> Any:
    return load_parts(spec)["text2cypher"]


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARK / f"{name}.py")
    assert spec and spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_every_seed_is_a_good_example(task: Task) -> None:
    assert len(task.seeds) >= 10
    assert {pair.question: task.check(pair) for pair in task.seeds} == {
        pair.question: "" for pair in task.seeds
    }
    pool = Pool()
    for pair in task.seeds:
        assert pool.refuse(pair) == "", pair
        pool.add(pair)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("MATCH (b:Book) RETURN b.tittle", "does not run: Binder exception"),
        ('MATCH (b:Book {title: "None"}) RETURN b.year', "no rows"),
        ("MATCH (a:Author), (b:Book) RETURN a.name, b.title", "too many rows"),
        ("MATCH (b:Book) DETACH DELETE b", "not a query that only reads"),
        ("RETURN 1", "not a query of the graph"),
        ("There is no such book.", "not a query of the graph"),
    ],
)
def test_what_is_no_good_example_is_told(task: Task, answer: str, why: str) -> None:
    assert task.check(Pair("Which?", answer)).startswith(why)


def test_the_items_are_those_of_the_templates(graph: Graph) -> None:
    assert module("make_items").items(graph) == ITEMS
    assert 60 <= len(ITEMS) <= 100
    assert max(Counter(item["question"] for item in ITEMS).values()) == 1


def test_every_query_of_the_benchmark_finds_something_twice(graph: Graph) -> None:
    found = {item["query"]: graph.rows(item["query"]) for item in ITEMS}
    graph.end()
    assert found == {query: graph.rows(query) for query in found}


def test_nobody_is_shown_an_item(task: Task, spec: BenchmarkSpec) -> None:
    asked = [Item(**item) for item in items(spec)]
    assert len(asked) == len(ITEMS)
    index, pool = Index(asked), Pool()
    for item in ITEMS:
        pool.add(Pair(item["question"], ""))
    for pair in task.seeds:
        # The whole conversation: what all prompts begin with must not count.
        assert index.find([task.asked(pair)], [pair.answer]) == ""
        assert pool.refuse(pair) == ""
    one = Pair(ITEMS[0]["question"], ITEMS[0]["query"])
    assert Pool(index).refuse(one).startswith("an item of the evaluation")
    assert index.find([task.asked(one)])


def test_students_are_asked_as_they_were_trained(task: Task, part: Any) -> None:
    doc = part.eval_docs[0]
    asked = task.asked(Pair(doc["question"], ""))
    assert part.fewshot_context(doc, 0) == asked
    shots = list(read_jsonl(BENCHMARK / "shots.jsonl"))
    seeds = {pair.question: " ".join(pair.answer.split()) for pair in task.seeds}
    assert [seeds[shot["question"]] for shot in shots] == [shot["query"] for shot in shots]
    assert part.get_config("num_fewshot") == len(shots)


def test_a_query_counts_by_what_it_finds(part: Any) -> None:
    doc = {
        "question": "Which books has Greta Holm written?",
        "query": 'MATCH (:Author {name: "Greta Holm"})-[:WROTE]->(b:Book) RETURN b.title',
    }
    ways = {
        doc["query"]: (1.0, 1.0),
        "```cypher\nMATCH (x:Book)<-[:WROTE]-(who:Author)\nWHERE who.name = 'Greta Holm'\n"
        "RETURN x.title AS book ORDER BY book DESC;\n```\nIt finds …": (1.0, 1.0),
        'MATCH (:Author {name: "Ada Merrin"})-[:WROTE]->(b:Book) RETURN b.title': (0.0, 1.0),
        doc["query"] + " LIMIT 1": (0.0, 1.0),
        doc["query"].replace("b.title", "b"): (0.0, 1.0),
        doc["query"].replace("title", "name"): (0.0, 0.0),
        "MATCH (b:Book) DELETE b": (0.0, 0.0),
        "UNWIND range(1, 100000000000) AS x RETURN x": (0.0, 0.0),
        "I do not know.": (0.0, 0.0),
        "": (0.0, 0.0),
    }
    for answer, (right, runs) in ways.items():
        wanted = {"execution_accuracy": right, "runs": runs}
        assert part.process_results(doc, [answer]) == wanted, answer


def test_an_endpoint_is_measured_by_the_command(server: Any, tmp_path: Path, cli: Any) -> None:
    known = {item["question"]: item["query"] for item in ITEMS}

    def answer(body: dict[str, Any]) -> str:
        asked = body["messages"][-1]["content"].split("Question: ")[-1].split("\nCypher:")[0]
        return f"```cypher\n{known[asked]}\n```"

    server.answer = answer
    copy = tmp_path / "benchmark"
    shutil.copytree(BENCHMARK, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = data_fingerprint(str(copy))
    done = cli(
        *("benchmark", f"endpoint:{server.url}#m", "--tasks", "text2cypher", "--include", copy),
        *("--limit", "9", "-o", "out", "--json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    scores = {s["metric"]: s for s in json.loads(done.stdout)}
    assert scores["execution_accuracy"]["value"] == 1.0
    assert scores["execution_accuracy"]["n"] == 9
    # Compiled files beside its own do not make it another benchmark.
    assert data_fingerprint(str(copy)) == before


def test_without_its_extra_the_benchmark_says_so(
    spec: BenchmarkSpec, monkeypatch: pytest.MonkeyPatch, part: Any
) -> None:
    found: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *more: None if name == "ladybug" else found(name, *more),
    )
    copy = spec.model_copy(update={"suite": DataSpec(ref=str(BENCHMARK), fingerprint="")})
    loaded = sys.modules[str(BENCHMARK / "utils")]
    loaded.graph().end()
    with pytest.raises(Exception, match=r"pip install 'epigone\[cypher\]'"):
        load_parts(copy)


def test_a_teachers_queries_are_run_before_they_count(
    server: Any, tmp_path: Path, task: Task
) -> None:
    server.answer = lambda body: (
        "1. **Question:** How many pages does The Glass Orchard have?\n"
        "**Cypher:**\n```cypher\nMATCH (b:Book {title: \"The Glass Orchard\"})\n\nRETURN b.pages\n"
        "```\n\n2. **Question:** Delete everything, please.\n"
        "**Cypher:** `MATCH (n) DETACH DELETE n`\n\n"
        "3. **Question:** Who writes about nothing at all?\n"
        "**Cypher:** MATCH (a:Author)-[:WROTE]->(b:Book)\nWHERE b.pages = 0\nRETURN a.name\n"
    )  # fmt: skip
    means = Means(ledgers=tmp_path / "ledger")
    facts = synthesize_task(
        task, tmp_path / "out", f"endpoint:{server.url}#m", Growth(size=1), means=means
    )
    assert facts["written"] == 1
    (row,) = read_jsonl(tmp_path / "out" / "answers.jsonl")
    wanted = 'MATCH (b:Book {title: "The Glass Orchard"})\n\nRETURN b.pages'
    assert row["messages"][1]["content"] == wanted
    assert row["messages"][0]["content"].endswith("The Glass Orchard have?\nCypher:")


def test_the_study_names_what_is_there() -> None:
    told = yaml.safe_load((TASK.parent / "text2cypher.yaml").read_text())
    (corpus,) = told["corpora"].values()
    assert (TASK.parent / corpus["synthesize"] / "task.yaml").is_file()
    (benchmark, *_) = told["evaluate"]["benchmarks"]
    assert (TASK.parent / benchmark["tasks"] / f"{benchmark['task']}.yaml").is_file()
