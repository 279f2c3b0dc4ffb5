"""What a study asks of people who compare answers; no step depends on it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from epigone.study.values import Declared


class Raters(Declared):
    """People who compare models' answers with the teacher's; `epigone rate` asks them."""

    per_item: int = Field(default=3, ge=1, le=100, description="raters of each comparison")
    per_rater: int = Field(default=20, ge=1, le=10_000, description="most items of one rater")
    models: list[str] = Field(
        default_factory=list, description="models that are compared; all that have answered"
    )
    n: int | None = Field(default=None, ge=1, description="prompts that are drawn; all of them")
    pairs: Literal["teacher", "all"] = Field(
        default="teacher", description="each model with the teacher, or all with each other"
    )
    seed: int = Field(default=0, ge=0, description="draws the prompts")
