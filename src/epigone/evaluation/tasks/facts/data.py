"""Read the ``facts`` items that lie beside this module."""

import json
from pathlib import Path

from datasets import Dataset

HERE = Path(__file__).resolve().parent


def load(**_: object) -> dict[str, Dataset]:
    """Return the splits ``test`` and ``shots``; lm-eval passes the task's metadata, unused."""
    return {"test": _read(HERE / "facts.jsonl"), "shots": _read(HERE / "facts_shots.jsonl")}


def _read(path: Path) -> Dataset:
    lines = path.read_text(encoding="utf-8").splitlines()
    return Dataset.from_list([json.loads(line) for line in lines])
