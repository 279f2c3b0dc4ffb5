"""The items of benchmarks, as what must not be in a corpus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epigone.errors import StepFailed, UnknownName
from epigone.evaluation.catalogue import TASKS, known_tasks
from epigone.files import read_jsonl, write_jsonl
from epigone.schema import Progress
from epigone.study.specs import ItemsSpec


def run(
    spec: ItemsSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """See `epigone.evaluation.run_items`; writes items.jsonl."""
    found = items(spec.task)
    write_jsonl(out / "items.jsonl", found)
    return {"items": len(found)}


def items(task: str) -> list[dict[str, str]]:
    """Name, question and whole text of every item of a shipped benchmark, its examples too.

    Raises UnknownName for a benchmark that is not shipped.
    """
    if task not in known_tasks():
        raise UnknownName("benchmark", task, known_tasks())
    found: list[dict[str, str]] = []
    for file in sorted((TASKS / task).rglob("*.jsonl")):
        for row in read_jsonl(file):
            options = row.get("choices", ())
            whole = " ".join((row["question"], *options))
            found.append({"name": row["id"], "question": row["question"], "text": whole})
    if not found:
        raise StepFailed(f"benchmark {task!r} has no items")
    return found
