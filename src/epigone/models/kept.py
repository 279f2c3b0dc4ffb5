"""What a model answered already, in a file that outlives the process."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from epigone.files import canonical, read_jsonl_sound


class Kept:
    """Answers by what was asked: none is computed or paid for twice.

    The file belongs to one model, whose name or weights are in no key.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Read what is there; a last line that is cut off is no answer. No path: kept in memory."""
        self._lock = threading.Lock()
        self._path = path
        self._known: dict[str, Any] = {}
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            for row in read_jsonl_sound(path):
                self._known[row["asked"]] = row["answer"]

    def get(self, key: str) -> Any:
        """The answer, if it came."""
        return self._known.get(key)

    def put(self, answers: Mapping[str, Any]) -> None:
        """Keep answers, together and for good; those that come may be of several threads."""
        if self._path is None:
            with self._lock:
                self._known |= answers
            return
        lines = b"".join(
            json.dumps({"asked": k, "answer": a}, ensure_ascii=False).encode() + b"\n"
            for k, a in answers.items()
        )
        with self._lock:
            self._known |= answers
            with open(self._path, "ab") as f:
                f.write(lines)
                f.flush()
                os.fsync(f.fileno())


def asked(*told: Any) -> str:
    """The key of a question: a hash of all that its answer depends on beside the model."""
    return hashlib.sha256(canonical(list(told)).encode()).hexdigest()


def asked_ids(ids: Iterable[int], *told: Any) -> str:
    """The same of many token ids, which would make long JSON."""
    return asked(hashlib.sha256(array("I", ids).tobytes()).hexdigest(), *told)
