"""Attention of many rows to one prefix: its keys and values lie in memory once, and are read so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

# The name under which transformers calls `attend`; our masks are whole, so that it makes none.
SHARED = "epigone_shared_prefix"

KV = tuple[Tensor, Tensor]
# What is added to the score of a hidden key; any dtype holds it, and e to the power of it is 0.
_HIDDEN = -3e4
# Numbers in a row of a mask come in multiples of this where a GPU reads them.
_ALIGNED = 8


class Reader(Protocol):
    """A cache whose rows all go on from one prefix."""

    # The newest masks, as `_halves` has split them.
    split: dict[int, tuple[Tensor, Tensor | None, Tensor]]

    def before(self, key: Tensor) -> KV | None:
        """Keys and values (1, heads, tokens, size) before those that `update` has just given."""


_READER: ContextVar[Reader | None] = ContextVar("reader", default=None)


@contextmanager
def sharing(model: Any, reader: Reader | None) -> Iterator[None]:
    """Within it, the model's attention reads the prefix of `reader`; None changes nothing."""
    if reader is None:
        yield
        return
    used = model.config._attn_implementation
    model.set_attn_implementation(SHARED)
    token = _READER.set(reader)
    try:
        yield
    finally:
        _READER.reset(token)
        model.set_attn_implementation(used)


def shareable(model: Any) -> bool:
    """Whether the model's attention can be replaced by `attend`."""
    config = model.config.get_text_config()
    # Layers that take another layer's keys do not ask the cache for them.
    return (
        model.config._attn_implementation == "sdpa"
        and model._can_set_attn_implementation()
        and not getattr(config, "num_kv_shared_layers", None)
    )


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Attention over the prefix and the row's own keys, each by itself, then weighed together.

    Tensors are (rows, heads, tokens, size); the additive mask spans prefix and own tokens. With
    the sums of exponentials of both halves, their outputs add up to the whole (Milakov and
    Gimelshein 2018). Where the device or the architecture has no such kernel, the prefix is
    copied to each row for the time of this layer.
    """
    reader = _READER.get()
    prefix = reader.before(key) if reader is not None else None
    if reader is None or prefix is None:
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **more
        )
        return found
    same = query.shape[-1] == value.shape[-1] and attention_mask is not None
    biased = any(more.get(name) is not None for name in ("position_bias", "softcap", "s_aux"))
    if biased or not same or not _held(query.device, query.dtype):
        rows = len(key)
        key, value = (
            torch.cat((old.expand(rows, -1, -1, -1), new), dim=2)
            for old, new in zip(prefix, (key, value), strict=True)
        )
        found = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **more
        )
        return found
    assert attention_mask is not None
    rows, heads, tokens, size = query.shape
    groups = heads // key.shape[1]
    hidden, causal = _halves(reader, attention_mask, prefix[0].shape[2], groups)
    # The heads of a group read the same keys: as further queries, they need no copy of them.
    folded = query.reshape(rows, key.shape[1], groups * tokens, size)
    shared = [t.expand(rows, -1, -1, -1) for t in prefix]
    out = _joined(
        _half(folded, shared[0], shared[1], hidden, scaling),
        _half(folded, key, value, causal, scaling),
    )
    return out.reshape(rows, heads, tokens, size).transpose(1, 2).contiguous(), None


def _halves(reader: Reader, mask: Tensor, prefix: int, groups: int) -> tuple[Tensor | None, Tensor]:
    """The mask of the prefix, None where all of it is seen, and that of the rows' own tokens."""
    known = reader.split.get(id(mask))
    if known is None or known[0] is not mask:
        before, after = mask[..., :prefix], mask[..., prefix:]
        hidden = _of_half(before, groups) if bool(before.any()) else None
        if len(reader.split) > 3:
            reader.split.clear()
        known = mask, hidden, _of_half(after, groups)
        reader.split[id(mask)] = known
    return known[1], known[2]


def _of_half(mask: Tensor, groups: int) -> Tensor:
    """The mask of folded queries: hidden keys far down, rows at addresses that kernels can read."""
    # The least number would overflow where a half is hidden as a whole: kernels scale it further.
    folded = mask.clamp(min=_HIDDEN).repeat(1, 1, groups, 1)
    width = folded.shape[-1]
    return pad(folded, (0, -width % _ALIGNED))[..., :width]


def _half(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None
) -> tuple[Tensor, Tensor]:
    """Attention and the logarithm of its sum of exponentials (rows, heads, queries)."""
    if query.device.type == "cpu":
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, total = flash(query, key, value, 0.0, False, attn_mask=mask, scale=scaling)
        return out, total
    if mask is not None:
        mask = mask.expand(len(query), query.shape[1], -1, -1)
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    out, total, *_ = efficient(query, key, value, mask, True, 0.0, False, scale=scaling)
    return out, total[..., : query.shape[2]]


def _joined(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    weight = torch.sigmoid(other[1] - one[1])[..., None]
    return torch.lerp(one[0].float(), other[0].float(), weight.float()).to(one[0].dtype)


@cache
def _held(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this device's kernels give what plain attention gives, tried out once."""
    make = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, 3, n, 32, generator=make).to(device, dtype) for n in (5, 41, 41)
    )
    mask = torch.zeros(2, 1, 5, 41, device=device, dtype=dtype)
    # One row sees nothing of the first half, and each not all of the second.
    mask[0, :, :, :24] = mask[..., 37:] = torch.finfo(dtype).min
    want = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    try:
        got = _joined(
            _half(query, key[:, :, :24], value[:, :, :24], _of_half(mask[..., :24], 1), None),
            _half(query, key[:, :, 24:], value[:, :, 24:], _of_half(mask[..., 24:], 1), None),
        )
    except (RuntimeError, NotImplementedError, AttributeError):
        # Not there, or not for this device or dtype: the prefix is copied.
        return False
    return torch.allclose(got.float(), want.float(), atol=1e-5 if dtype == torch.float32 else 2e-2)


AttentionInterface.register(SHARED, attend)
