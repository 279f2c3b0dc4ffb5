"""Attention of packed pieces, each to itself alone, without padding and without a mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

# The name under which transformers calls `attend`. It makes no mask for names that it has no mask
# function for.
BY_PIECE = "epigone_by_piece"


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    piece_lengths: Sequence[int] | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each piece of a row: (rows, length, heads, head size).

    query: (rows, heads, length, head size), key and value with as many heads or fewer.
    `piece_lengths` add up to the length; without them, a row is one piece. Raises ValueError for
    what an architecture adds to the scores that this does not know.
    """
    for name in ("softcap", "s_aux", "position_bias", "cache"):
        if more.get(name) is not None:
            raise ValueError(f"attention by pieces does not know {name}")
    if attention_mask is not None or not getattr(module, "is_causal", True):
        raise ValueError("attention by pieces is causal and takes no mask")
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    lengths = list(piece_lengths or [query.shape[2]])
    parts = [
        _one(q, k, v, dropout, scaling, sliding_window)
        for q, k, v in zip(
            *(torch.split(t, lengths, dim=2) for t in (query, key, value)), strict=True
        )
    ]
    # As (rows, length, heads, size) already, so that joining the pieces is the only copy.
    return torch.cat([p.transpose(1, 2) for p in parts], dim=1), None


def _one(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> Tensor:
    length = query.shape[2]
    mask = None
    if window is not None and window < length:
        mask = torch.ones(length, length, dtype=torch.bool, device=query.device)
        mask = mask.tril().triu(1 - window)
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling
    )


AttentionInterface.register(BY_PIECE, attend)


@contextmanager
def watched(windows: set[int | None]) -> Iterator[None]:
    """Note the windows with which `attend` is called."""

    def noted(*tensors: Any, **more: Any) -> tuple[Tensor, None]:
        windows.add(more.get("sliding_window"))
        return attend(*tensors, **more)

    AttentionInterface.register(BY_PIECE, noted)
    try:
        yield
    finally:
        AttentionInterface.register(BY_PIECE, attend)
