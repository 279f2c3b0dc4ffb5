"""What a teacher is asked with: texts of one visible file, with their versions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from epigone.models.marks import filled


@dataclass(frozen=True, slots=True)
class Wording:
    """The text of a prompt; what it is filled with stands in double braces."""

    name: str
    version: int
    text: str

    def fill(self, **values: object) -> str:
        """The text with its values in their places; braces inside of values stay what they are.

        Raises KeyError for a place without a value.
        """
        return filled(self.text, values)


@cache
def _all() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(
        (files("epigone.teachers") / "wordings.yaml").read_text(encoding="utf-8")
    )
    return found


def wording(name: str) -> Wording:
    """A prompt of wordings.yaml by its name."""
    told = _all()[name]
    return Wording(name, told["version"], told["text"])


def built_in() -> dict[str, Path]:
    """The folders of the tasks that come with Epigone, by name."""
    folder = Path(str(files("epigone.teachers") / "tasks"))
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()}


@cache
def task_wordings() -> dict[str, str]:
    """Hashes of what a teacher is asked with, by task; that of no name is any in a folder."""
    texts = {"answers": "", "tldr": wording("tldr").text, "": wording("task").text}
    for name, folder in built_in().items():
        # A validator that rejects otherwise makes another corpus.
        own = sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".py"))
        texts[name] = texts[""] + "".join(path.read_text(encoding="utf-8") for path in own)
    return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in texts.items()}
