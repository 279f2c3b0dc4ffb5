"""Base models of several sizes, trained on the spot on the world's plain text."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as hf_logging

from epigone.calibration.scale import Build
from epigone.files import fsync_dir, read_jsonl
from epigone.models.chat import PLAIN_TEMPLATE
from epigone.schema import Progress, silent

END, PAD = "<end>", "<pad>"
_WEIGHT_DECAY = 0.01
_WARMUP = 0.05


def tokenizer_of(texts: Sequence[str], vocabulary: int = 2048) -> Any:
    """A byte-level BPE tokenizer that knows these texts' words, with a plain chat template."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[END, PAD],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=END, pad_token=PAD)
    tokenizer.chat_template = PLAIN_TEMPLATE
    return tokenizer


def train_base(
    build: Build,
    kinds: Sequence[Sequence[str]],
    tokenizer: Any,
    folder: Path,
    seed: int,
    progress: Progress = silent,
) -> None:
    """Train one base on texts in random order and write its model folder, whole or not at all.

    Of each of the `kinds` of texts, as many are in a step as `build.rows` says. The seed decides
    the first weights and the order.
    """
    # Sums of one thread are the same wherever there are more; products this small gain nothing.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = _trained(build, kinds, tokenizer, seed, progress)
    finally:
        torch.set_num_threads(threads)
    quiet: Any = hf_logging
    quiet.disable_progress_bar()
    aside = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(aside, ignore_errors=True)
    model.save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    aside.rename(folder)
    fsync_dir(folder.parent)


def _trained(
    build: Build, kinds: Sequence[Sequence[str]], tokenizer: Any, seed: int, progress: Progress
) -> Any:
    torch.manual_seed(seed)
    model = LlamaForCausalLM(_config(build, tokenizer))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=build.lr, betas=(0.9, 0.95), weight_decay=_WEIGHT_DECAY
    )
    batches = [
        _batches(texts, tokenizer, size) for texts, size in zip(kinds, build.rows, strict=True)
    ]
    for step in range(build.steps):
        for group in optimizer.param_groups:
            group["lr"] = build.lr * _rate(step / build.steps)
        losses = []
        for rows, targets in map(next, batches):
            logits = model(input_ids=rows).logits[:, :-1]
            loss = cross_entropy(logits.flatten(0, 1), targets.flatten())
            torch.autograd.backward(loss)
            losses.append(f"{loss.item():.3f}")
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        progress(step + 1, build.steps, f"{build.name}: loss {', '.join(losses)}")
    return model


def _config(build: Build, tokenizer: Any) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=build.width,
        intermediate_size=4 * build.width,
        num_hidden_layers=build.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _batches(texts: Sequence[str], tokenizer: Any, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Ids of a text and its end a row, padded behind, and what is to be predicted of them."""
    ids = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts]
    longest = max(map(len, ids))
    rows = torch.tensor([i + [tokenizer.pad_token_id] * (longest - len(i)) for i in ids])
    targets = rows[:, 1:].masked_fill(rows[:, 1:] == tokenizer.pad_token_id, -100)
    order = torch.empty(0, dtype=torch.long)
    while True:
        if len(order) < size:
            order = torch.cat([order, torch.randperm(len(rows))])
        own, order = order[:size], order[size:]
        yield rows[own], targets[own]


def _rate(done: float) -> float:
    """Share of the peak learning rate when a share of the steps is done."""
    if done < _WARMUP:
        return done / _WARMUP
    return 0.02 + 0.98 * (1 + math.cos(math.pi * (done - _WARMUP) / (1 - _WARMUP))) / 2


def texts_of(world: Path) -> tuple[list[list[str]], list[str]]:
    """The kinds of texts that bases learn from, and others whose words their tokenizer has."""
    kinds = [
        [row["text"] for row in read_jsonl(world / f"{name}.jsonl")] for name in ("facts", "talk")
    ]
    rows = [row for name in ("broad", "local") for row in read_jsonl(world / f"{name}.jsonl")]
    return kinds, [row[part] for row in rows for part in ("prompt", "answer")]
