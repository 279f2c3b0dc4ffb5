"""Style in a study file: which prompts are answered, and what is measured on the answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from epigone.errors import UnknownName
from epigone.study.values import Declared, Mistake

# Those of Gudibande et al. (2023), table 2, that need no judge: a study's unless it names others.
STYLE_METRICS = ("list", "summary", "unigram", "length")
ALL_STYLE_METRICS = (
    *STYLE_METRICS, "length_ratio", "headings", "code", "more_lists", "more_summaries",
    "more_headings", "more_code", "opening", "closing", "refusal", "disclaimer", "hedging",
    "distinguishable",
)  # fmt: skip


class Style(Declared):
    """Answers to held-out prompts, and style metrics on them."""

    prompts: Literal["held-out"] = Field(
        default="held-out", description="those that no model is trained on"
    )
    n: int = Field(default=32, ge=1, description="prompts answered by every model")
    max_new_tokens: int = Field(default=256, ge=1, description="longest answer, in tokens")
    metrics: list[str] = Field(
        default=list(STYLE_METRICS), min_length=1, description=", ".join(ALL_STYLE_METRICS)
    )

    @model_validator(mode="after")
    def _known(self) -> Style:
        for i, metric in enumerate(self.metrics):
            if metric not in ALL_STYLE_METRICS:
                unknown = UnknownName("style metric", metric, ALL_STYLE_METRICS)
                raise Mistake(("metrics", i), unknown)
        return self
