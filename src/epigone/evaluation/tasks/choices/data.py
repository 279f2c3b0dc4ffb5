"""Read the ``choices`` items of one subject from the directory ``data`` beside this module."""

import json
from pathlib import Path

from datasets import Dataset

DATA = Path(__file__).resolve().parent / "data"


def load(subject: str, **_: object) -> dict[str, Dataset]:
    """Return the splits ``dev`` and ``test``; lm-eval also passes the task's metadata, unused."""
    return {split: _read(DATA / f"{subject}_{split}.jsonl") for split in ("dev", "test")}


def _read(path: Path) -> Dataset:
    lines = path.read_text(encoding="utf-8").splitlines()
    return Dataset.from_list([json.loads(line) for line in lines])
