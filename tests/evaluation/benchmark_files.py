"""Small files of benchmarks in their original layouts, with items of ours."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

# A comma, a quote, and a line end inside of cells, as MMLU's files have.
QUESTIONS = [
    ("Which of these is a metal?", "wood", "iron, raw", "glass", "silk", 1),
    ('What is "two" and two?\nChoose.', "four", "five", "six", "seven", 0),
    ("Which planet is the third?", "Mars", "Venus", "Earth", "Saturn", 2),
    ("What do bees make?", "milk", "silk", "wool", "honey", 3),
    ("What is frozen water?", "ice", "steam", "mist", "dew", 0),
    ("Which one flies?", "a fish", "a bird", "a stone", "a shoe", 1),
]
NQ = [
    {"question": "when did people first walk on the moon", "answer": ["20 July 1969", "July 1969"]},
    {"question": "what does u.s. stand for", "answer": ["United States", "the U.S."]},
    {"question": "who painted the ceiling in rome", "answer": ["Michelangelo"]},
]
PROBLEMS = [
    {
        "task_id": f"HumanEval/{i}",
        "prompt": f'def {name}(x):\n    """Give {what}."""\n',
        "entry_point": name,
        "canonical_solution": f"    return {body}\n",
        "test": f"def check(candidate):\n    assert candidate(3) == {value}\n",
    }
    for i, (name, what, body, value) in enumerate(
        [
            ("twice", "twice x", "2 * x", 6),
            ("square", "x times x", "x * x", 9),
            ("text", "x as a text", "str(x)", "'3'"),
        ]
    )
]


def write_mmlu(folder: Path, *, header: bool, subjects: tuple[str, ...] = ("metals",)) -> Path:
    """Six questions, of which the first five are the examples too."""
    for subject in subjects:
        for split, rows in (("dev", QUESTIONS[:5]), ("test", QUESTIONS)):
            file = folder / split / f"{subject}_{split}.csv"
            file.parent.mkdir(parents=True, exist_ok=True)
            with open(file, "w", newline="") as f:
                out = csv.writer(f)
                if header:
                    out.writerow(["question", "choice0", "choice1", "choice2", "choice3", "answer"])
                for *cells, answer in rows:
                    out.writerow([*cells, answer if header else "ABCD"[answer]])
    return folder


def write_nq(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "NQ-open.dev.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in NQ))
    return file


def write_humaneval(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "HumanEval.jsonl.gz"
    file.write_bytes(gzip.compress("".join(json.dumps(p) + "\n" for p in PROBLEMS).encode()))
    return file
