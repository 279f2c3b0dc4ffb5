"""Whether and how a base keeps packed pieces apart, measured on the base itself."""

from __future__ import annotations

import logging
import math
import os
from typing import Any

import torch
from torch import Tensor
from transformers.utils.import_utils import is_flash_attn_2_available

from epigone.training.attention import BY_PIECE, watched
from epigone.training.layout import COMPILE
from epigone.training.loss import Micro, hidden_states, piece_lengths

_LOG = logging.getLogger(__name__)


def isolates(model: Any, tolerance: float = 1e-3) -> bool:
    """Whether positions that start anew keep a model from seeing an earlier piece of its row.

    Architectures that read no positions (recurrences, ALiBi) do not: their pieces are given rows
    of their own.
    """
    device = next(model.parameters()).device
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(3, 15, device=device)[None] % vocabulary
    positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6]], device=device)
    both = hidden(model, ids, positions)[5:]
    alone = hidden(model, ids[:, 5:], positions[:, 5:])
    return _close(both, alone, tolerance)


def _close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    most = tolerance / 10 * float(expected.abs().max())
    return bool(torch.allclose(found, expected, rtol=tolerance, atol=most))


def by_piece(model: Any, block: int) -> bool:
    """Use attention by pieces, without padding or masks, where it keeps them apart; whether it did.

    `block` is the most tokens of a piece. Else the model is left as it was.
    """
    before = model.config._attn_implementation
    if before != "sdpa":
        return False
    expected = hidden(model, *_few_tokens(model))
    windows: set[int | None] = set()
    with watched(windows):
        good = _fits(BY_PIECE, model, expected, 1e-3)
    # A window that an architecture puts into its masks alone would be lost with them.
    good &= _reach(model) >= block or any(w is not None for w in windows)
    if not good:
        model.set_attn_implementation(before)
        return False
    if os.environ.get(COMPILE):
        # Compiled layers would be compiled again for every other set of lengths; where masks do it
        # too, what is learnt stays the same.
        model.set_attn_implementation(before)
        if isolates(model):
            return False
        model.set_attn_implementation(BY_PIECE)
    return True


def flash(model: Any, compute: torch.dtype, block: int) -> bool:
    """Use flash attention on a GPU where it is installed and keeps pieces apart; as `by_piece`."""
    device = next(model.parameters()).device
    if device.type != "cuda" or compute == torch.float32 or not is_flash_attn_2_available():
        return False
    before = model.config._attn_implementation
    with torch.autocast("cuda", dtype=compute):
        expected = hidden(model, *_few_tokens(model))
        good = _fits("flash_attention_2", model, expected, 0.05)
    good &= before == BY_PIECE or _reach(model) >= block
    if not good:
        model.set_attn_implementation(before)
    return good


def _fits(attention: str, model: Any, expected: Tensor, tolerance: float) -> bool:
    """Set an attention; whether it gives what the model's own does, and keeps pieces apart."""
    try:
        model.set_attn_implementation(attention)
        # Architectures that know no other attention than their own only log a warning.
        if model.config._attn_implementation != attention:
            return False
        found = hidden(model, *_few_tokens(model))
        return _close(found, expected, tolerance) and isolates(model, tolerance)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        # Whatever an architecture, a head size or a GPU has against it: its own attention does.
        _LOG.warning("%s does not fit: %s", attention, f"{type(error).__name__}: {error}"[:200])
        return False


def _reach(model: Any) -> float:
    """Tokens that attention reaches back in every layer."""
    config = model.config.get_text_config()
    found = (getattr(config, n, None) for n in ("sliding_window", "attention_chunk_size"))
    return min((n for n in found if isinstance(n, int)), default=math.inf)


def _few_tokens(model: Any) -> tuple[Tensor, Tensor]:
    device = next(model.parameters()).device
    ids = torch.arange(3, 10, device=device)[None] % model.get_input_embeddings().weight.shape[0]
    return ids, torch.arange(7, device=device)[None]


def hidden(model: Any, ids: Tensor, positions: Tensor) -> Tensor:
    """What the head is given for each token of one row, in fp32 and without gradients."""
    columns = torch.arange(1, ids.shape[1] + 1, device=ids.device)
    rows = torch.zeros_like(columns)
    weights = torch.ones(len(columns), device=ids.device)
    lengths = piece_lengths(positions)
    micro = Micro(ids, positions, rows, columns, weights, lengths=lengths)
    with torch.no_grad():
        return hidden_states(model, micro).float()
