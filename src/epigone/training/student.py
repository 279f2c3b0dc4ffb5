"""A student as a folder that transformers, vLLM and lm-eval load as it is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from epigone.files import fsync_dir, write_jsonl
from epigone.models.chat import PLAIN_TEMPLATE, stop_ids
from epigone.training.parallel import World

METRICS = "metrics.jsonl"


def save_student(
    model: Any,
    tokenizer: Any,
    folder: Path,
    card: str,
    log: Sequence[Mapping[str, Any]],
    world: World | None = None,
) -> None:
    """Write a student whole or not at all; one that is there already is left as it is.

    Adapters are merged into the weights. All processes of a run call it, the first one writes.
    """
    world = world or World()
    if world.most(float(folder.exists())):
        return
    # Students are run in bf16 or in fp32 made from it; half the disk, and fp32 stays the master
    # of the training itself.
    state = _state(model, world)
    if world.leads:
        aside = folder.with_name(folder.name + ".tmp")
        shutil.rmtree(aside, ignore_errors=True)
        dtype, model.config.dtype = model.config.dtype, torch.bfloat16
        generation = model.generation_config
        kept = generation.to_dict()
        _stop(generation, tokenizer)
        model.save_pretrained(aside, state_dict=state, safe_serialization=True)
        model.config.dtype = dtype
        model.generation_config = type(generation).from_dict(kept)
        template = tokenizer.chat_template
        tokenizer.chat_template = template or PLAIN_TEMPLATE
        tokenizer.save_pretrained(aside)
        tokenizer.chat_template = template
        (aside / "README.md").write_text(card, encoding="utf-8")
        write_jsonl(aside / METRICS, log)
        for file in aside.rglob("*"):
            if file.is_file():
                fd = os.open(file, os.O_RDONLY)
                os.fsync(fd)
                os.close(fd)
        aside.rename(folder)
        fsync_dir(folder.parent)
    world.barrier()


def _state(model: Any, world: World) -> dict[str, Tensor]:
    """The weights by the names of the model without adapters, whole and in bf16, in one process."""
    # Casting would make two tensors of a tied one, and both would be saved.
    seen: set[int] = set()
    state: dict[str, Tensor] = {}
    merged = {n: m for n, m in model.named_modules() if hasattr(m, "get_delta_weight")}
    buffers = {n for n, _ in model.named_buffers()}
    for name, tensor in model.state_dict(keep_vars=True).items():
        module, _, rest = name.partition(".base_layer.")
        if "lora_" in name or (id(tensor) in seen and name not in buffers):
            continue
        seen.add(id(tensor))
        whole = _whole(tensor)
        if rest == "weight" and module in merged:
            whole = whole.float() + _delta(merged[module])
        if world.leads:
            short = f"{module}.{rest}" if rest else name
            kind = torch.bfloat16 if whole.is_floating_point() else whole.dtype
            state[short] = whole.to("cpu", kind, copy=True)
    return state


def _delta(layer: Any) -> Tensor:
    """What a layer's adapters add to its weight."""
    total: Tensor | None = None
    for name in layer.active_adapters:
        a, b = (_whole(m[name].weight).float() for m in (layer.lora_A, layer.lora_B))
        delta = (b @ a) * layer.scaling[name]
        delta = delta.T if layer.fan_in_fan_out else delta
        total = delta if total is None else total + delta
    assert total is not None
    return total


def _whole(tensor: Tensor) -> Tensor:
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.detach()


def _stop(generation: Any, tokenizer: Any) -> None:
    # A model that knows no end of turn goes on for ever; one whose padding is its end of turn
    # makes others mask the end out.
    stops = sorted(stop_ids(tokenizer))
    generation.eos_token_id = stops
    pad = tokenizer.pad_token_id
    generation.pad_token_id = None if pad in stops else pad
