"""What each stage is asked to do: exactly what changes its result, and nothing else.

A spec is part of its step's identity, so device, workers, paths and executor have no place here.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["broad", "local"]


class Spec(BaseModel):
    """Frozen, strict, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SourceSpec(Spec):
    """One file of teacher text: its reference and the sha256 (or revision) of its content."""

    ref: str
    fingerprint: str


class ModelSpec(Spec):
    """A model to run: a base by reference, a student by amount, or the recorded teacher.

    A student's folder is `inputs["student"] / amount_folder(amount)`.
    """

    kind: Literal["base", "student", "teacher"]
    name: str
    ref: str = ""
    fingerprint: str = ""
    amount: int = 0


class CorpusSpec(Spec):
    """Sources to a clean corpus, split into train and held-out prompts."""

    kind: Kind
    sources: tuple[SourceSpec, ...]
    tokenizer: SourceSpec
    teacher: str
    licence: str = ""
    terms: str = ""
    language: str = "en"
    held_out: int = Field(default=128, ge=0)
    max_prompt_tokens: int = Field(default=256, ge=1)
    seed: int = 0


class RecipeSpec(Spec):
    """Training settings that the cells share; `preset` has already been filled in.

    `batch` counts blocks, `block` tokens. `warmup` is a fraction of the largest amount's steps
    where it is below 1, otherwise a number of steps.
    """

    preset: str
    optimizer: Literal["parameter-scaled", "adamw"]
    lr: float = Field(gt=0)
    warmup: float = Field(ge=0)
    batch: int = Field(ge=1)
    block: int = Field(ge=16)
    weight_decay: float = Field(ge=0)
    clip: float = Field(gt=0)
    loss: Literal["token-mean", "row-mean"]
    precision: Literal["auto", "bf16", "fp32"]


class TrainSpec(Spec):
    """One trunk: a base trained on nested amounts of one corpus, a student at each amount."""

    base: ModelSpec
    amounts: tuple[int, ...]
    recipe: RecipeSpec
    seed: int = 0


class GenerateSpec(Spec):
    """Answers of one model to the corpus's held-out prompts, greedy.

    `n` is how many of the held-out prompts are answered, in their order. A recorded teacher's
    answer ends after `max_new_tokens` tokens of `tokenizer`, as a living teacher's would.
    """

    model: ModelSpec
    n: int = Field(ge=1)
    max_new_tokens: int = Field(default=256, ge=1)
    tokenizer: SourceSpec | None = None


class StyleSpec(Spec):
    """Style metrics of one model's samples against the teacher's samples."""

    model: str
    metrics: tuple[str, ...]


class BenchmarkSpec(Spec):
    """One benchmark on one model, in the raw few-shot format."""

    model: ModelSpec
    task: str
    task_version: int
    limit: int | None = None
    seed: int = 0


def amount_folder(amount: int) -> str:
    """Name of the folder that holds the student of an amount."""
    return f"amount-{amount}"
