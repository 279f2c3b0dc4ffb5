"""Log-likelihoods of continuations: shared prefixes, and logits only where they are needed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from epigone.models.attention import sharing
from epigone.models.encoder_decoder import is_encoder_decoder, score_rows
from epigone.models.generate import MIN_PREFIX, common_prefix, context_limit
from epigone.models.kept import Kept
from epigone.models.kv import PrefixKV, attention_masks, prefix_kv
from epigone.models.likelihood import MOST_LOGITS, Request, Result, gather, known_or
from epigone.schema import Progress, silent

# A group of its own costs one more forward, which is worth about this many tokens.
_GROUP_COST = 64


@dataclass(slots=True)
class _Row:
    """One input to run: `ids` without the last target, scored from position `start` on."""

    ids: tuple[int, ...]
    start: int
    requests: dict[int, tuple[int, ...]] = field(default_factory=dict)  # request -> its targets


def loglikelihoods(
    model: Any,
    requests: Sequence[Request],
    *,
    batch_tokens: int | None = None,
    kept: Kept | None = None,
    progress: Progress = silent,
) -> list[tuple[float, bool]]:
    """Natural-log probability of each continuation after its context, and whether it is greedy.

    `requests` are pairs of token ids (context, continuation). Requests with a common prefix run
    it once; requests that differ only in the last token share one row. A request longer than
    the model's context loses the left of its context (see `overlong`). `batch_tokens` bounds the
    tokens of one forward beside the prefix. What was answered already is in `kept`. Progress counts
    requests. An empty continuation has probability 1. An encoder-decoder reads the context
    with its encoder and the continuation with its decoder, each as long as the model allows.

    Raises ValueError for an empty context, and for a continuation that does not fit the context.
    """
    limit = context_limit(model)
    if is_encoder_decoder(model):
        with torch.inference_mode():
            return score_rows(model, requests, limit, batch_tokens, kept, progress)
    rows = _rows(requests, limit)
    results: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
    finished = len(requests) - sum(len(r.requests) for r in rows)
    budget = batch_tokens or (16384 if model.device.type == "cuda" else 512)
    vocabulary = model.get_output_embeddings().weight.shape[0]
    with torch.inference_mode():
        for shared, group in _groups(rows):
            run = _Prefixed(model, group[0].ids[:shared])
            for batch in _batches(group, shared, budget, max(1, MOST_LOGITS // vocabulary)):
                owners = [i for row in batch for i in row.requests]
                for i, result in known_or(
                    model, requests, owners, kept, partial(run.scores, batch)
                ):
                    results[i] = result
                finished += len(owners)
                progress(finished, len(requests))
    return results


def overlong(model: Any, requests: Sequence[Request]) -> int:
    """How many requests do not fit the model's context and lose the left of their own context."""
    limit = context_limit(model)
    if is_encoder_decoder(model):
        return sum(len(c) > limit for c, _ in requests)
    return sum(len(c) + len(t) - 1 > limit for c, t in requests)


def _rows(requests: Sequence[Request], limit: int) -> list[_Row]:
    rows: dict[tuple[tuple[int, ...], int], _Row] = {}
    for i, (context, continuation) in enumerate(requests):
        if not continuation:
            continue
        if not context:
            raise ValueError(f"request {i} has no context; begin with the tokenizer's start token")
        if len(continuation) > limit:
            raise ValueError(f"request {i}: the continuation alone exceeds {limit} tokens")
        ids = (*context, *continuation)[-(limit + 1) : -1]
        start = len(ids) - len(continuation)
        row = rows.setdefault((ids, start), _Row(ids, start))
        row.requests[i] = tuple(continuation)
    return sorted(rows.values(), key=lambda r: (r.ids, r.start))


def _groups(rows: list[_Row]) -> Iterator[tuple[int, list[_Row]]]:
    """Split sorted rows into runs that share a prefix, so that the fewest tokens are run."""
    # Of sorted rows, those with a common prefix are neighbours, and a run's common prefix is the
    # least of its neighbours' ones. No row's first scored position may lie inside the prefix.
    common = [common_prefix(a.ids, b.ids) for a, b in itertools.pairwise(rows)]

    def prefix(low: int, high: int) -> int:
        n = min((*common[low : high - 1], *(r.start for r in rows[low:high])))
        return n if n >= MIN_PREFIX and high - low > 1 else 0

    def cost(low: int, high: int) -> int:
        n = prefix(low, high)
        return (n + _GROUP_COST if n else 0) + sum(len(r.ids) - n for r in rows[low:high])

    def split(low: int, high: int, depth: int) -> tuple[int, list[tuple[int, int]]]:
        whole = cost(low, high)
        if high - low < 3 or depth > 40:
            return whole, [(low, high)]
        least = min(common[low : high - 1])
        cuts = [low, *(i + 1 for i in range(low, high - 1) if common[i] == least), high]
        if len(cuts) == high - low + 1:
            return whole, [(low, high)]
        parts = [split(a, b, depth + 1) for a, b in itertools.pairwise(cuts)]
        apart = sum(c for c, _ in parts)
        if apart < whole:
            return apart, [run for _, runs in parts for run in runs]
        return whole, [(low, high)]

    if not rows:
        return
    alone: list[_Row] = []
    for low, high in split(0, len(rows), 0)[1]:
        shared = prefix(low, high)
        if shared:
            yield shared, rows[low:high]
        else:
            alone += rows[low:high]
    if alone:
        yield 0, alone


def _batches(group: list[_Row], shared: int, budget: int, positions: int) -> Iterator[list[_Row]]:
    """Batches of similar length; at most `budget` tokens and `positions` scored positions each."""
    batch: list[_Row] = []
    scored = 0
    for row in sorted(group, key=lambda r: -len(r.ids)):
        new = len(row.ids) - row.start
        width = len(batch[0].ids if batch else row.ids) - shared
        if batch and ((len(batch) + 1) * width > budget or scored + new > positions):
            yield batch
            batch, scored = [], 0
        batch.append(row)
        scored += new
    yield batch


class _Prefixed:
    """Batches of rows that go on from one prefix, which is run when the first of them is."""

    def __init__(self, model: Any, prefix: Sequence[int]) -> None:
        self._model = model
        self._prefix = prefix
        self._cache: PrefixKV | None = None

    def scores(self, batch: list[_Row]) -> Iterator[Result]:
        """The results of the requests of a batch."""
        if self._cache is None:
            self._cache = prefix_kv(self._model, self._prefix)
        with sharing(self._model, self._cache if self._cache.shared else None):
            yield from _run(self._model, batch, len(self._prefix), self._cache)


def _run(model: Any, batch: list[_Row], shared: int, cache: PrefixKV) -> Iterator[Result]:
    device = model.device
    longest = len(batch[0].ids)
    ids = torch.tensor([[*r.ids[shared:], *([r.ids[-1]] * (longest - len(r.ids)))] for r in batch])
    positions = torch.arange(shared, longest, device=device).expand(len(batch), -1)
    keep = torch.zeros(ids.shape, dtype=torch.bool)
    for i, row in enumerate(batch):
        keep[i, row.start - shared : len(row.ids) - shared] = True
    logits = model(
        input_ids=ids.to(device),
        position_ids=positions,
        # Every row's tokens stand at the same positions, and `attend` needs that only once.
        attention_mask=attention_masks(
            model, positions[:1] if cache.shared else positions, longest
        ),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=keep.to(device),
    ).logits
    at = 0
    targets: list[int] = []
    places: list[int] = []
    owners: list[int] = []
    for row in batch:
        for request, wanted in row.requests.items():
            targets += wanted
            places += range(at, at + len(wanted))
            owners += [request] * len(wanted)
        at += len(row.ids) - row.start
    yield from gather(logits.reshape(at, -1), places, targets, owners)
