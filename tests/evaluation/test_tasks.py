"""The two bundled benchmarks: their items, their metric and their lm-eval tasks."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from epigone.evaluation import tasks
from epigone.evaluation.tasks.facts import metrics

HERE = Path(tasks.__file__).resolve().parent
LETTERS = "ABCD"
SUBJECTS = (
    "geography",
    "biology",
    "physics_chemistry",
    "history",
    "mathematics",
    "language_arts",
    "everyday_technology",
)


def read(name: str) -> list[dict[str, Any]]:
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


FACTS = read("facts/facts.jsonl")
SHOTS = read("facts/facts_shots.jsonl")
DEV = {subject: read(f"choices/data/{subject}_dev.jsonl") for subject in SUBJECTS}
TEST = {subject: read(f"choices/data/{subject}_test.jsonl") for subject in SUBJECTS}
ALL_TEST = [item for items in TEST.values() for item in items]
ALL_DEV = [item for items in DEV.values() for item in items]


class Answering(LM):  # type: ignore[misc]
    """A model that knows every answer, or gives a wrong one every time."""

    def __init__(self, right: bool) -> None:
        super().__init__()
        self.right = right

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        return [" " + r.doc["answer"][0] if self.right else " no idea" for r in requests]

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        return [self._judge(r.doc["answer"], r.args[1]) for r in requests]

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        raise NotImplementedError

    def _judge(self, answer: int, continuation: str) -> tuple[float, bool]:
        chosen = answer if self.right else (answer + 1) % 4
        likely = continuation == " " + LETTERS[chosen]
        return (-0.1 if likely else -5.0, likely)


def evaluate(right: bool, limit: int | None = None) -> dict[str, Any]:
    results: dict[str, Any] = simple_evaluate(
        model=Answering(right),
        tasks=["facts", "choices"],
        task_manager=TaskManager(include_path=str(HERE), include_defaults=False),
        limit=limit,
        log_samples=True,
        bootstrap_iters=0,
    )
    return results


@pytest.fixture(scope="module")
def perfect() -> dict[str, Any]:
    return evaluate(right=True)


def test_counts() -> None:
    assert len(FACTS) >= 130
    assert len(SHOTS) == 3
    assert all(len(items) == 5 for items in DEV.values())
    assert all(len(items) >= 20 for items in TEST.values())
    assert len(ALL_TEST) >= 140


def test_ids_are_unique() -> None:
    ids = [item["id"] for item in FACTS + SHOTS + ALL_DEV + ALL_TEST]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("items", [FACTS + SHOTS, ALL_DEV + ALL_TEST], ids=["facts", "choices"])
def test_no_question_twice_and_no_shot_in_the_test(items: list[dict[str, Any]]) -> None:
    counts = Counter(metrics.normalise(item["question"]) for item in items)
    assert [question for question, count in counts.items() if count > 1] == []


def test_no_question_is_in_both_benchmarks() -> None:
    facts = {metrics.normalise(item["question"]) for item in FACTS + SHOTS}
    choices = {metrics.normalise(item["question"]) for item in ALL_DEV + ALL_TEST}
    assert not facts & choices


@pytest.mark.parametrize("item", FACTS + SHOTS, ids=lambda item: item["id"])
def test_facts_item(item: dict[str, Any]) -> None:
    assert set(item) == {"id", "question", "answer"}
    assert item["question"][0].isupper()
    assert item["question"].endswith("?")
    assert item["question"] == item["question"].strip()
    assert item["answer"]
    assert len(item["answer"]) == len(set(item["answer"]))
    assert all(metrics.normalise(alias) for alias in item["answer"])
    assert all("\n" not in alias and alias == alias.strip() for alias in item["answer"])
    assert metrics.exact(item, [" " + item["answer"][0]]) == {"exact_match": 1.0}


def test_facts_answers_are_short() -> None:
    assert max(len(item["answer"][0].split()) for item in FACTS) <= 5


@pytest.mark.parametrize("subject", SUBJECTS)
def test_letters_are_balanced_within_a_subject(subject: str) -> None:
    for items in (TEST[subject], DEV[subject]):
        counts = Counter(item["answer"] for item in items)
        assert set(counts) == {0, 1, 2, 3}
        assert max(counts.values()) - min(counts.values()) <= 1


def test_letters_are_balanced_overall() -> None:
    counts = Counter(item["answer"] for item in ALL_TEST)
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("item", ALL_DEV + ALL_TEST, ids=lambda item: item["id"])
def test_choices_item(item: dict[str, Any]) -> None:
    assert set(item) == {"id", "subject", "question", "choices", "answer"}
    assert item["id"].startswith(f"choices-{item['subject']}-")
    assert item["question"] == item["question"].strip()
    assert len(item["choices"]) == 4
    assert len({choice.casefold().strip() for choice in item["choices"]}) == 4
    assert all(choice and choice == choice.strip() for choice in item["choices"])
    assert item["answer"] in range(4)


def test_length_does_not_give_the_answer_away() -> None:
    longest = shortest = 0.0
    for item in ALL_TEST:
        lengths = [len(choice) for choice in item["choices"]]
        right = lengths[item["answer"]]
        longest += (right == max(lengths)) / lengths.count(right)
        shortest += (right == min(lengths)) / lengths.count(right)
    assert longest / len(ALL_TEST) <= 0.35
    assert shortest / len(ALL_TEST) <= 0.35


@settings(deadline=None)
@given(st.text())
def test_normalise_is_idempotent(text: str) -> None:
    once = metrics.normalise(text)
    assert metrics.normalise(once) == once


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("The  Nile.", "nile"),
        ("U.S.", "US"),
        ("1,000", "1000"),
        ("Charlotte Brontë", "charlotte bronte"),
        ("H₂O", "H2O"),
        ("O\u2019Neill", "O'Neill"),
        ("An apple a day", "apple day"),
        ("\uff21\uff22\uff23", "abc"),
    ],
)
def test_normalise_unifies(left: str, right: str) -> None:
    assert metrics.normalise(left) == metrics.normalise(right)


@pytest.mark.parametrize(
    ("prediction", "score"),
    [(" Paris", 1.0), (" paris.", 1.0), ("Paris, France", 1.0), ("Paris is nice", 0.0), ("", 0.0)],
)
def test_exact(prediction: str, score: float) -> None:
    doc = {"answer": ["Paris", "Paris, France"]}
    assert metrics.exact(doc, [prediction]) == {"exact_match": score}


def test_perfect_model_scores_one(perfect: dict[str, Any]) -> None:
    assert perfect["results"]["facts"]["exact_match,none"] == 1.0
    assert perfect["groups"]["choices"]["acc,none"] == 1.0
    assert perfect["groups"]["choices"]["sample_len"] == len(ALL_TEST)
    for subject in SUBJECTS:
        assert perfect["results"][f"choices_{subject}"]["acc,none"] == 1.0
    assert len(perfect["samples"]["facts"]) == len(FACTS)
    assert {str(version) for version in perfect["versions"].values()} == {"1"}
    assert perfect["n-shot"]["facts"] == 3
    assert perfect["n-shot"]["choices_history"] == 5


def test_wrong_model_scores_zero() -> None:
    results = evaluate(right=False, limit=5)
    assert results["results"]["facts"]["exact_match,none"] == 0.0
    assert results["groups"]["choices"]["acc,none"] == 0.0


def test_facts_prompt(perfect: dict[str, Any]) -> None:
    prompt, options = perfect["samples"]["facts"][0]["arguments"][0]
    assert prompt == FACTS_PROMPT
    assert options == {"until": ["\n"], "max_gen_toks": 16, "do_sample": False}


def test_choices_prompt(perfect: dict[str, Any]) -> None:
    arguments = perfect["samples"]["choices_physics_chemistry"][0]["arguments"]
    assert [tuple(pair) for pair in arguments] == [
        (CHOICES_PROMPT, " " + letter) for letter in LETTERS
    ]


def test_loads_offline_from_any_directory(tmp_path: Path) -> None:
    code = f"""
import socket
def refuse(*args, **kwargs):
    raise OSError("no network")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
from lm_eval.tasks import TaskManager
manager = TaskManager(include_path={str(HERE)!r}, include_defaults=False)
loaded = manager.load(["facts", "choices"])
print(sum(len(task.eval_docs) for task in loaded["tasks"].values()))
"""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    env |= {"HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == str(len(FACTS) + len(ALL_TEST))


FACTS_PROMPT = """\
Q: What is the capital of Portugal?
A: Lisbon

Q: How many wings does a bee have?
A: Four

Q: Who wrote "The Jungle Book"?
A: Rudyard Kipling

Q: Who wrote the novel "Frankenstein"?
A:"""

CHOICES_PROMPT = """\
The following are multiple choice questions (with answers) about physics and chemistry.

Which of these materials conducts electricity best?
A. Glass
B. Rubber
C. Copper
D. Wood
Answer: C

Which particle has a positive electric charge?
A. Proton
B. Photon
C. Electron
D. Neutron
Answer: A

How is a solution with a pH of 3 described?
A. Alkaline
B. Neutral
C. Radioactive
D. Acidic
Answer: D

Which kind of energy does a car have because it is moving?
A. Nuclear energy
B. Kinetic energy
C. Gravitational energy
D. Chemical energy
Answer: B

What does a piece of metal usually do when it is heated?
A. It becomes lighter
B. It contracts
C. It expands
D. It becomes magnetic
Answer: C

Which quantity is measured in ohms?
A. Current
B. Voltage
C. Power
D. Resistance
Answer:"""
