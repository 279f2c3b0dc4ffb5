"""Runs of the tiny base, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from epigone.runs.store import outputs
from epigone.schema import silent
from epigone.study.recipes import Recipe
from epigone.study.specs import ModelSpec, TrainSpec
from epigone.training import run


def spec(base: Path, **recipe: Any) -> TrainSpec:
    settings = {"batch": 2, "block": 128, "warmup": 2.0, **recipe}
    return TrainSpec(
        base=ModelSpec(kind="base", name="tiny", ref=str(base), fingerprint="x"),
        amounts=(1_000, 3_000),
        recipe=Recipe(**settings).resolved(),
    )


def students(out: Path) -> dict[str, str]:
    return outputs(out)


def settled(base: Path, amounts: tuple[int, ...], **settings: Any) -> TrainSpec:
    """A spec with any setting of a resolved recipe."""
    asked = spec(base)
    recipe = asked.recipe.model_copy(update={"warmup": 2.0, "warmup_unit": "steps", **settings})
    return asked.model_copy(update={"amounts": amounts, "recipe": recipe})


def done(asked: TrainSpec, corpus: Path, out: Path) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    return run(asked, {"corpus": corpus}, out, silent)


def interrupted(asked: TrainSpec, corpus: Path, out: Path, step: int) -> None:
    """A run that ends in mid-air before a step."""

    def stop(done: float, total: float, note: str = "") -> None:
        if done == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(asked, {"corpus": corpus}, out, stop)


def every_step_saved(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    """A checkpoint after each step, however long the disk takes."""
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(module, "WAIT_TIMES", 0)


def weights(out: Path, amount: int) -> bytes:
    return (out / f"amount-{amount}/model.safetensors").read_bytes()
