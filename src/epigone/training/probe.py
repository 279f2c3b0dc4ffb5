"""Whether a run fits and how long it will take, from a short measurement before it starts."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from epigone.errors import StepFailed
from epigone.study.cost import ACTIVATION_BYTES
from epigone.study.specs import TrainSpec
from epigone.training import data, memory
from epigone.training.blocks import Block
from epigone.training.checkpoint import Position
from epigone.training.layout import COMPILE
from epigone.training.model import Prepared
from epigone.training.parallel import local
from epigone.training.schedule import Batch, Update

# A micro-batch on a CPU: activations stay within a few hundred MB, and no larger one is faster.
CPU_TOKENS = 1024
# On a GPU the products of more tokens than this are no faster either.
GPU_TOKENS = 16_384
# Share of a GPU's free memory that activations may take; the rest is for what comes and goes.
_SHARE = 0.8
# A probe of one micro-batch is worth its time in a run of at least so many.
_WORTH = 24


@dataclass(frozen=True, slots=True)
class Fit:
    """Tokens of a micro-batch, what it needs and what there is (bytes), and seconds to go.

    `settings` have to stay when the run is resumed.
    """

    settings: Mapping[str, Any]
    needed: float
    there: float
    seconds: float | None
    processes: int

    @property
    def micro_tokens(self) -> int:
        """Tokens of a micro-batch."""
        return int(self.settings["micro_tokens"])

    def told(self) -> str:
        """One line for the user."""
        line = f"needs {self.needed / 1e9:.1f} of {self.there / 1e9:.1f} GB"
        if self.seconds is None:
            return line
        hours = self.seconds * self.processes / 3600
        return f"{line}, about {self.seconds / 60:.1f} min ({hours:.2f} device-hours)"

    def facts(self) -> dict[str, Any]:
        """What the record keeps."""
        found: dict[str, Any] = {
            **self.settings,
            "bytes_needed": round(self.needed),
            "bytes_there": round(self.there),
        }
        if self.seconds is not None:
            found["expected_seconds"] = round(self.seconds, 1)
        return found


def fit(
    spec: TrainSpec,
    prepared: Prepared,
    batches: Sequence[Batch],
    updates: Sequence[Update],
    position: Position | None,
) -> Fit:
    """Choose the micro-batch, and tell memory and time.

    Raises StepFailed where the memory that there is does not do.
    """
    device = prepared.world.device
    held = sum(local(p).numel() for p in prepared.parameters.values())
    # Gradients in fp32, and the optimiser's state, of which the system has given nothing yet.
    states = 8 if spec.recipe.optimizer == "adamw" else 6
    # All processes must choose alike, so the one with the most to hold and the least room decides.
    to_come = prepared.world.most(held * (4 + (states if device.type == "cpu" else 0)))
    there = -prepared.world.most(-memory.free(device))
    if to_come > there:
        raise StepFailed(
            f"training needs about {to_come / 1e9:.1f} GB more memory and {there / 1e9:.1f} GB are "
            "there; take a smaller base, the preset lora, or more processes"
        )
    settings = dict(position.settings) if position is not None else {}
    if settings.get("packed", prepared.packs) != prepared.packs:
        raise StepFailed(
            "the run was begun with blocks packed otherwise; delete its folder to begin anew"
        )
    settings["packed"] = prepared.packs
    where = {"layout": str(prepared.world.layout), "device": device.type}
    if {k: settings.get(k) for k in where} != where:
        settings = {**settings, **_choose(spec, prepared, batches, there - to_come), **where}
    _apply(prepared, settings)
    done = 0 if position is None else position.update
    left = [batches[u.batch] for u in updates[done:]]
    tokens = sum(_width(b) for batch in left for b in (*batch.blocks, *batch.text))
    micros = tokens / settings["micro_tokens"] / prepared.world.layout.data
    seconds = None
    activations = 0.0
    if micros >= _WORTH:
        per_token, each = _measure(spec, prepared, left[0], settings["micro_tokens"])
        activations = each * settings["micro_tokens"]
        seconds = per_token * tokens / prepared.world.layout.data
    seconds = prepared.world.most(seconds) if seconds is not None else None
    held_now = memory.held(device)
    return Fit(
        settings,
        held_now + to_come + activations,
        held_now + there,
        seconds,
        prepared.world.layout.processes,
    )


def _choose(
    spec: TrainSpec, prepared: Prepared, batches: Sequence[Batch], room: float
) -> dict[str, Any]:
    settings: dict[str, Any] = {"micro_tokens": CPU_TOKENS, "checkpointing": False}
    if prepared.world.device.type == "cpu":
        return settings
    block = spec.recipe.block
    settings["micro_tokens"] = block
    for checkpointing in (False, True) if _may_keep(spec, prepared, room) else (True,):
        settings["checkpointing"] = checkpointing
        _apply(prepared, settings)
        try:
            _, each = _measure(spec, prepared, batches[0], block)
        except torch.OutOfMemoryError:
            if not prepared.world.alone:
                raise  # the others wait in the middle of their pass
            for p in prepared.parameters.values():
                p.grad = None
            each = float("inf")
        torch.cuda.empty_cache()
        activations = prepared.world.most(max(each, 1.0)) * block
        if activations < _SHARE * room:
            break
    else:
        raise StepFailed(
            f"one block of {block} tokens does not fit into {room / 1e9:.1f} GB of GPU memory; "
            "take a smaller block or base, the preset lora, or more processes"
        )
    most = min(GPU_TOKENS, int(_SHARE * room / activations) * block)
    while settings["micro_tokens"] * 2 <= most:
        settings["micro_tokens"] *= 2
    return settings


def _may_keep(spec: TrainSpec, prepared: Prepared, room: float) -> bool:
    """Whether a pass that keeps all activations may be tried."""
    if prepared.world.alone:
        return True
    # Where one process of several runs out of memory in a pass, the others wait for it for ever.
    config = prepared.model.config.get_text_config()
    layers = config.num_hidden_layers
    if prepared.start is not None:
        layers += getattr(config, "num_decoder_layers", None) or layers
    activations = ACTIVATION_BYTES * config.hidden_size * layers * spec.recipe.block
    return bool(activations < _SHARE * room)


def _apply(prepared: Prepared, settings: Mapping[str, Any]) -> None:
    if settings["checkpointing"]:
        prepared.model.gradient_checkpointing_enable({"use_reentrant": False})
    if os.environ.get(COMPILE) and not getattr(prepared.model, "_epigone_compiled", False):
        layers = set(prepared.model._no_split_modules or ())
        for module in prepared.model.modules():
            if type(module).__name__ in layers:
                module.compile()
        prepared.model._epigone_compiled = True


def _measure(spec: TrainSpec, prepared: Prepared, batch: Batch, tokens: int) -> tuple[float, float]:
    """Seconds a token, and bytes of activations a token (0 on a CPU, where none are measured)."""
    from epigone.training.loop import autocast

    device = prepared.world.device
    ranks = (prepared.world.data_rank, prepared.world.layout.data)
    micro = next(data.micro_batches(batch, spec.recipe, tokens, ranks, flat=prepared.flat)).to(
        device
    )
    prepared.model.train()
    cuda = device.type == "cuda"
    peak = 0.0
    # On a GPU the first pass compiles, and makes the gradients that the second one adds to: what
    # that takes beside them is what every later pass takes.
    for _ in range(2 if cuda else 1):
        if cuda:
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            torch.cuda.synchronize(device)
        begun = time.perf_counter()
        with autocast(prepared):
            loss, _parts = prepared.trainee(micro)
        torch.autograd.backward(loss)
        if cuda:
            torch.cuda.synchronize(device)
            peak = torch.cuda.max_memory_allocated(device) - before
        seconds = time.perf_counter() - begun
    for p in prepared.parameters.values():
        p.grad = None
    return seconds / micro.computed, peak / micro.computed


def _width(block: Block) -> int:
    return block.width + len(block.pieces[0].source)
