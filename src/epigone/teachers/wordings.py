"""What a teacher is asked with: texts of one visible file, with their versions."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class Wording:
    """The text of a prompt; what it is filled with stands in double braces."""

    name: str
    version: int
    text: str

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of the text, 16 digits: another text is another question."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def fill(self, **values: object) -> str:
        """The text with its values in their places; braces inside of values stay what they are.

        Raises KeyError for a place without a value.
        """
        return re.sub(r"\{\{(\w+)\}\}", lambda m: str(values[m[1]]), self.text)


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
