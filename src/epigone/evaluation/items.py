"""The items of benchmarks, as what must not be in a corpus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from epigone.errors import BenchmarkError
from epigone.evaluation.catalogue import TASKS
from epigone.evaluation.original import read_humaneval, read_mmlu, read_nq_open
from epigone.evaluation.parts import item_ids, load_parts
from epigone.files import read_jsonl, write_jsonl
from epigone.models.references import locate_data
from epigone.schema import Progress
from epigone.study.specs import ItemsSpec

Item = dict[str, str]
# What tasks call the text that is asked.
_QUESTIONS = ("question", "query", "problem", "prompt", "goal", "sentence", "premise", "text")


def run(
    spec: ItemsSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """See `epigone.evaluation.run_items`; writes items.jsonl."""
    found = items(spec)
    write_jsonl(out / "items.jsonl", found)
    return {"items": len(found)}


def items(spec: ItemsSpec) -> list[Item]:
    """Name, question and whole text of every item of a benchmark, its examples too.

    Raises BenchmarkError and UnknownName, as `parts.load_parts`.
    """
    if spec.suite is None and (TASKS / spec.task).is_dir():
        rows = (
            r for file in sorted((TASKS / spec.task).rglob("*.jsonl")) for r in read_jsonl(file)
        )
        found = [_choice(row) for row in rows]
    elif spec.suite is None and spec.data is not None:
        found = _original(spec, locate_data(spec.data.ref, fingerprint=spec.data.fingerprint))
    else:
        found = [
            row for name, part in load_parts(spec).items() for row in _of_task(spec, name, part)
        ]
    if not found:
        raise BenchmarkError("a benchmark without items", value=spec.task)
    return found


def _of_task(spec: ItemsSpec, name: str, part: Any) -> Iterator[Item]:
    ids = item_ids(part, name, own=spec.suite is None)
    for item, doc in zip(ids, part.eval_docs, strict=True):
        yield {"name": item, "question": _question(part, doc), "text": _whole(part, doc)}
    if spec.suite is None and spec.task == "mmlu":
        # The examples before every question tell how it is asked.
        for doc in part.dataset["dev"]:
            yield {"name": doc["id"], "question": doc["question"], "text": _whole(part, doc)}


def _question(part: Any, doc: Mapping[str, Any]) -> str:
    """A document's own words: its prompt has others around them, which no corpus repeats."""
    for field in _QUESTIONS:
        if isinstance(doc.get(field), str) and doc[field].strip():
            return str(doc[field])
    return str(part.doc_to_text(doc))


def _choice(row: Mapping[str, Any]) -> Item:
    whole = " ".join((row["question"], *row.get("choices", ())))
    return {"name": row["id"], "question": row["question"], "text": whole}


def _original(spec: ItemsSpec, path: Path) -> list[Item]:
    # Without lm-eval and datasets, which take longer to import than a corpus to clean.
    if spec.task == "mmlu":
        splits = (split for subject in read_mmlu(path).values() for split in subject.values())
        return [_choice(row) for rows in splits for row in rows]
    if spec.task == "nq_open":
        return [_choice(row) for row in read_nq_open(path)]
    return [
        {
            "name": row["id"],
            "question": row["prompt"],
            "text": row["prompt"] + row["canonical_solution"],
        }
        for row in read_humaneval(path)
    ]


def _whole(part: Any, doc: Mapping[str, Any]) -> str:
    # The rest of a document names what is not in the question: choices, a passage, the answer.
    texts = (v for value in doc.values() for v in (value if isinstance(value, list) else [value]))
    return " ".join([str(part.doc_to_text(doc)), *(v for v in texts if isinstance(v, str))])
