"""The training loop: one trunk, a student at each amount."""

from __future__ import annotations

import math
import os
import random
import shutil
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from epigone.errors import StepFailed
from epigone.files import SCRATCH, fsync_dir, write_jsonl
from epigone.models.chat import PLAIN_TEMPLATE
from epigone.models.load import Loaded, compute_dtype, load
from epigone.models.references import locate
from epigone.schema import Conversation, Progress
from epigone.study import train_file
from epigone.study.amounts import refuse_empty, segments
from epigone.study.specs import RecipeSpec, TrainSpec, amount_folder
from epigone.training import checkpoint
from epigone.training.blocks import Block, BlockStats, blocks_of
from epigone.training.card import card
from epigone.training.loss import supervised_loss
from epigone.training.optimizer import OPTIMIZERS, Optimizer, clip_, learning_rate

# A kill loses at most about this much work: a checkpoint is due when the next step would pass it.
CHECKPOINT_SECONDS = 50.0
# Tokens of one micro-batch; a batch is split so that activations stay within a few hundred MB.
MICRO_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Batch:
    """Blocks of one optimiser step; `amount` is set where a student is taken after it."""

    blocks: tuple[Block, ...]
    amount: int | None


def train(spec: TrainSpec, corpus: Path, out: Path, progress: Progress) -> dict[str, Any]:
    """Train `spec.base` on nested amounts of a corpus; see `epigone.training.run`."""
    # Refuses amounts that the corpus cannot give before a model is loaded.
    parts = segments(corpus / train_file.NAME, spec.amounts)
    refuse_empty(parts, spec.amounts)
    loaded = load(locate(spec.base.ref, progress, fingerprint=spec.base.fingerprint), train=True)
    device = loaded.device
    dtype = compute_dtype(spec.recipe.precision, device)
    stats, batches = _batches(spec, parts, loaded)
    cards = {
        amount: card(spec.base, amount, [c for part in parts[: k + 1] for c in part])
        for k, amount in enumerate(spec.amounts)
    }
    del parts
    model = loaded.model
    named = list(model.named_parameters())
    optimizer: Optimizer = OPTIMIZERS[spec.recipe.optimizer](named, spec.recipe.weight_decay)
    warmup = warmup_steps(spec.recipe, len(batches))
    rate = learning_rate(spec.recipe.lr, warmup)
    folder = out / SCRATCH / "checkpoint"
    tensors = {f"p.{n}": p for n, p in named} | optimizer.state()
    position = checkpoint.restore(folder, tensors) or checkpoint.Position(0, ())
    resumed_at = position.step
    log = list(position.log)
    saved = started = time.monotonic()
    with checkpoint.Saver(folder, tensors) as saver:
        for index in range(position.step, len(batches)):
            begun = time.monotonic()
            batch = batches[index]
            progress(index, len(batches), f"loss {log[-1]['loss']:.3f}" if log else "")
            row = _gradients(spec, loaded, batch, index, dtype)
            # The last checkpoint is written while the gradients are computed, but not later.
            saver.wait()
            log.append(row | _update(spec, optimizer, index, rate(index)))
            if batch.amount is not None:
                text = cards[batch.amount]
                _save_student(loaded, out / amount_folder(batch.amount), text)
            now = time.monotonic()
            due = now - saved + (now - begun) > CHECKPOINT_SECONDS
            if due and index + 1 < len(batches):
                saver.begin(checkpoint.Position(index + 1, tuple(log)))
                saved = now
    progress(len(batches), len(batches))
    write_jsonl(out / "log.jsonl", log)
    return {
        **stats.to_json(),
        "steps": len(batches),
        "warmup_steps": warmup,
        "master_weights": "fp32",
        "compute": str(dtype).removeprefix("torch."),
        "students_saved_in": "bf16",
        "device": str(device),
        "resumed_at_step": resumed_at,
        "seconds_training": round(time.monotonic() - started, 2),
        "first_loss": log[0]["loss"],
        "last_loss": log[-1]["loss"],
    }


def warmup_steps(recipe: RecipeSpec, steps: int) -> int:
    """Steps of warm-up in a run of `steps`."""
    if recipe.warmup_unit == "fraction":
        return math.ceil(recipe.warmup * steps)
    return int(recipe.warmup)


def _batches(
    spec: TrainSpec, parts: Sequence[Sequence[Conversation]], loaded: Loaded
) -> tuple[BlockStats, list[Batch]]:
    # Every amount's segment is packed by itself and ends its own batch, so that the student of a
    # small amount has seen exactly its conversations and nothing of the next ones.
    stats = BlockStats()
    batches: list[Batch] = []
    for amount, conversations in zip(spec.amounts, parts, strict=True):
        blocks = blocks_of(conversations, loaded.tokenizer, spec.recipe.block, stats)
        # The seed decides in which order a segment is seen; which conversations it holds stays.
        random.Random(f"{spec.seed}:{amount}").shuffle(blocks)
        size = spec.recipe.batch
        groups = [tuple(blocks[i : i + size]) for i in range(0, len(blocks), size)]
        if not groups:
            raise StepFailed(f"no conversation of the corpus fits into the amount {amount}")
        batches += [Batch(g, amount if g is groups[-1] else None) for g in groups]
    return stats, batches


def _gradients(
    spec: TrainSpec, loaded: Loaded, batch: Batch, index: int, dtype: torch.dtype
) -> dict[str, Any]:
    # Seeding every step by its number makes dropout the same in a resumed run.
    torch.manual_seed(spec.seed * 1_000_003 + index)
    model = loaded.model.train()
    loss = 0.0
    for ids, positions, where, weights in micro_batches(
        batch.blocks, spec.recipe.block, spec.recipe.loss, loaded.device
    ):
        with _autocast(dtype, loaded.device):
            part = supervised_loss(model, ids, positions, where, weights)
        torch.autograd.backward(part)
        loss += float(part.detach())
    if not math.isfinite(loss):
        raise StepFailed(f"the loss is {loss} at step {index}; nothing was applied")
    targets = sum(p.targets for b in batch.blocks for p in b.pieces)
    return {"step": index, "loss": loss, "supervised": targets}


def _update(spec: TrainSpec, optimizer: Optimizer, index: int, lr: float) -> dict[str, Any]:
    grads = [p.grad for p in optimizer.parameters.values() if p.grad is not None]
    norm = clip_(grads, spec.recipe.clip)
    del grads
    optimizer.step(index + 1, lr)
    return {"lr": lr, "gradient_norm": norm}


def micro_batches(
    blocks: Sequence[Block], length: int, kind: str, device: torch.device
) -> list[tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor], torch.Tensor]]:
    """Tensors for `supervised_loss`, whose parts add up to the loss of the whole batch.

    Any split gives the same sum, because each token's weight is fixed by the whole batch:
    1 / all supervised tokens (token mean), or 1 / (rows x the row's supervised tokens) (row mean).
    """
    total = sum(p.targets for b in blocks for p in b.pieces)
    rows = max(1, MICRO_TOKENS // length)
    out = []
    for start in range(0, len(blocks), rows):
        group = blocks[start : start + rows]
        width = max(sum(len(p.ids) for p in b.pieces) for b in group)
        ids = torch.zeros((len(group), width), dtype=torch.long)
        positions = torch.arange(width).repeat(len(group), 1)
        mask = torch.zeros((len(group), width), dtype=torch.bool)
        weights = torch.zeros((len(group), width))
        for r, block in enumerate(group):
            at = 0
            in_row = sum(p.targets for p in block.pieces)
            for piece in block.pieces:
                end = at + len(piece.ids)
                ids[r, at:end] = torch.tensor(piece.ids)
                positions[r, at:end] = torch.arange(len(piece.ids))
                mask[r, at:end] = torch.tensor(piece.supervised)
                at = end
            # The padding is a piece of its own, which no real token attends to.
            positions[r, at:] = torch.arange(width - at)
            weights[r] = 1 / total if kind == "token-mean" else 1 / (len(blocks) * in_row)
        row, column = mask.nonzero(as_tuple=True)
        out.append(
            (
                ids.to(device),
                positions.to(device),
                (row.to(device), column.to(device)),
                weights[row, column].to(device),
            )
        )
    return out


def _autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[Any]:
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def _save_student(loaded: Loaded, folder: Path, model_card: str) -> None:
    # The students are run in bf16 or in fp32 made from it; half the disk, and fp32 stays the master
    # of the training itself.
    if folder.exists():
        return
    aside = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(aside, ignore_errors=True)
    model, tokenizer = loaded.model, loaded.tokenizer
    # Casting would make two tensors of a tied one, and both would be saved.
    tied = model.state_dict().keys() - dict(model.named_parameters()).keys()
    tied -= dict(model.named_buffers()).keys()
    state = {
        n: t.to(torch.bfloat16) if t.is_floating_point() else t
        for n, t in model.state_dict().items()
        if n not in tied
    }
    model.config.dtype = torch.bfloat16
    model.save_pretrained(aside, state_dict=state, safe_serialization=True)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_TEMPLATE
    tokenizer.save_pretrained(aside)
    (aside / "README.md").write_text(model_card, encoding="utf-8")
    for file in aside.rglob("*"):
        if file.is_file():
            fd = os.open(file, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
    aside.rename(folder)
    fsync_dir(folder.parent)
