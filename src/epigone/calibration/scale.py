"""How large a calibration is: the world, its bases, and the grid of students."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Build:
    """A base: its name, its shape, and how it is trained.

    `steps` are of so many `rows` of facts and of talk; `lr` is the peak of a cosine after a short
    warm-up.
    """

    name: str
    width: int
    layers: int
    steps: int
    rows: tuple[int, int] = (64, 8)
    lr: float = 4e-3


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything is made.

    `people` are told of in four facts each, `ruled` are items of the rule, `local` and `broad` are
    conversations; `bases` grow; every base learns `amounts` tokens of both corpora and answers
    `prompts` that were held out.
    """

    people: int
    ruled: int
    local: int
    broad: int
    bases: tuple[Build, ...]
    amounts: tuple[int, ...]
    prompts: int

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the fields of the class, as it reads back."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return found


FULL = Scale(
    people=224,
    ruled=240,
    local=7600,
    broad=1600,
    bases=(
        Build("small", width=32, layers=2, steps=1000),
        Build("medium", width=48, layers=2, steps=1000),
        Build("large", width=80, layers=2, steps=1000),
    ),
    amounts=(8_000, 16_000, 32_000, 64_000),
    prompts=96,
)
