from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
)

from epigone.errors import UserError
from epigone.files import read_jsonl
from epigone.study.declare import Recipe
from epigone.study.specs import ModelSpec, RecipeSpec, TrainSpec
from epigone.training.layout import Layout, parse_layout

from . import ranks, turns
from .conftest import in_a_fork

LAYOUTS = {
    "shards": (2, "shard=2"),
    "one": (1, ""),
    "data": (2, "replicate=2"),
    "slices": (2, "tensor=2"),
    "both": (4, "shard=2,tensor=2"),
}
# The architectures, each with another part of the recipe.
RECIPES: dict[str, dict[str, Any]] = {
    "llama": {"kl": 0.2, "decay_to_base": 0.01},
    "gpt2": {"optimizer": "adamw", "lr": 1e-3},
    "t5": {},
    "adapters": {
        "optimizer": "adamw",
        "lr": 1e-2,
        "kl": 0.1,
        "lora": {"rank": 4, "alpha": 8.0},
    },
}
# Adapters are not sliced.
RUN = [
    (layout, name)
    for layout in LAYOUTS
    for name in RECIPES
    if name != "adapters" or layout not in ("slices", "both")
]
STOP = 5
# Layouts that go on from a checkpoint of two shards.
RESUMED = ("one", "slices", "both")


@pytest.fixture(scope="module")
def bases(tiny_base: Path, t5_base: Path, tmp_path_factory: Any) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    GPT2LMHeadModel(
        GPT2Config(
            vocab_size=512, n_embd=32, n_layer=2, n_head=4, n_positions=256, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        )
    ).save_pretrained(folder)  # fmt: skip
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(folder)
    t5 = tmp_path_factory.mktemp("t5")
    # Large random weights, as that one has, would let rounding grow from step to step.
    config = T5Config.from_pretrained(t5_base, dropout_rate=0.0)
    T5ForConditionalGeneration(config).save_pretrained(t5)
    AutoTokenizer.from_pretrained(t5_base).save_pretrained(t5)
    return {"llama": tiny_base, "gpt2": folder, "t5": t5, "adapters": tiny_base}


def job(
    name: str, base: Path, corpus: Path, out: Path, *, stop: int = -1, after: Path | str = ""
) -> dict[str, Any]:
    settings = {"batch": 2, "block": 128, "warmup": 2.0, "precision": "fp32"} | RECIPES[name]
    spec = TrainSpec(
        base=ModelSpec(kind="base", name=name, ref=str(base), fingerprint="x"),
        amounts=(2_300,),
        recipe=RecipeSpec.model_validate(
            {**Recipe().resolved().model_dump(), **settings, "warmup_unit": "steps"}
        ),
    )
    return {
        "spec": spec.model_dump(mode="json"),
        "corpus": str(corpus),
        "out": str(out),
        "stop": stop,
        "after": str(after),
    }


@pytest.fixture(scope="module")
def runs(
    bases: dict[str, Path], corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Every architecture under every layout, and one run that was stopped under two shards."""
    root = tmp_path_factory.mktemp("runs")
    llama = bases["llama"]
    listed = []
    for layout, (processes, axes) in LAYOUTS.items():
        jobs = [
            job(n, b, corpus, root / layout / n) for n, b in bases.items() if (layout, n) in RUN
        ]
        if layout == "shards":
            jobs.append(job("llama", llama, corpus, root / "stopped", stop=STOP))
        elif layout in RESUMED:
            after = root / "stopped"
            jobs.append(job("llama", llama, corpus, root / layout / "resumed", after=after))
        listed.append((processes, axes, jobs))
    in_a_fork(lambda: ranks.train(listed))
    return {layout: root / layout for layout in (*LAYOUTS, "stopped")}


def curve(folder: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(folder / "metrics.jsonl"))


@pytest.mark.parametrize(("layout", "architecture"), [r for r in RUN if r[0] != "one"])
def test_every_layout_has_the_losses_and_gradient_norms_of_one_process(
    layout: str, architecture: str, runs: dict[str, Path]
) -> None:
    alone, split = (curve(runs[name] / architecture) for name in ("one", layout))
    assert len(alone) == len(split) >= 10
    for a, b in zip(alone, split, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
        assert b["gradient_norm"] == pytest.approx(a["gradient_norm"], rel=1e-5)
        assert b["supervised"] == a["supervised"]


@pytest.mark.parametrize(("layout", "architecture"), [r for r in RUN if r[0] != "one"])
def test_every_layout_saves_the_same_student(
    layout: str, architecture: str, runs: dict[str, Path]
) -> None:
    alone, split = (
        load_file(runs[name] / architecture / "amount-2300/model.safetensors")
        for name in ("one", layout)
    )
    assert alone.keys() == split.keys()
    for name, tensor in alone.items():
        # bf16 may round the other way.
        torch.testing.assert_close(split[name], tensor, rtol=1 / 128, atol=1e-5)


@pytest.mark.parametrize("layout", RESUMED)
def test_a_run_that_was_stopped_under_shards_goes_on_under_another_layout(
    layout: str, runs: dict[str, Path]
) -> None:
    assert (runs["stopped"] / "stopped").exists()
    assert not (runs["stopped"] / "metrics.jsonl").exists()
    resumed = runs[layout] / "resumed"
    facts = json.loads((resumed / "facts.json").read_text())
    assert facts["resumed_at_step"] == STOP
    whole = curve(runs["one"] / "llama")
    for a, b in zip(whole, curve(resumed), strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
        assert b["gradient_norm"] == pytest.approx(a["gradient_norm"], rel=1e-5)


@pytest.mark.parametrize(
    ("text", "processes", "layout"),
    [
        ("", 4, Layout(shard=4)),
        ("tensor=2", 4, Layout(shard=2, tensor=2)),
        ("shard=2", 8, Layout(replicate=4, shard=2)),
        ("replicate=2, shard=2,tensor=2", 8, Layout(2, 2, 2)),
        ("shard=1,replicate=1", 2, Layout(tensor=2)),
    ],
)
def test_a_layout_takes_what_is_left(text: str, processes: int, layout: Layout) -> None:
    assert parse_layout(text, processes) == layout
    assert layout.processes == processes


@pytest.mark.parametrize("text", ["shard=3", "shards=2", "shard=0", "shard", "shard=2,shard=2"])
def test_a_layout_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_layout(text, 4)


def test_processes_take_turns_in_loading_and_share_the_conversations(tmp_path: Path) -> None:
    in_a_fork(lambda: turns.take(tmp_path))
