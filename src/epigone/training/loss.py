"""Cross entropy of the supervised tokens, with logits only where there is loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from torch.utils.checkpoint import checkpoint

from epigone.training.attention import BY_PIECE

# Logits held at once: 512 x 262,144 x 4 bytes = 537 MB for the largest vocabularies.
CHUNK_ELEMENTS = 1 << 26


@dataclass(frozen=True, slots=True)
class Micro:
    """One micro-batch: tensors whose losses add up to those of the whole batch.

    ids, positions: (rows, length); `positions` restarts at every packed piece, which is what keeps
    pieces from attending to one another. rows, columns: (supervised,), where the targets stand,
    column at least 1. weights: (supervised,), each token's share of the batch's loss; `kl` the
    weight of its divergence from the base. source, source_mask: (rows, source length), what an
    encoder-decoder reads, else None. lengths: of the pieces, where all lie in one row.
    """

    ids: Tensor
    positions: Tensor
    rows: Tensor
    columns: Tensor
    weights: Tensor
    kl: Tensor | None = None
    source: Tensor | None = None
    source_mask: Tensor | None = None
    lengths: tuple[int, ...] = ()

    @property
    def computed(self) -> int:
        """Number of tokens that go through the model, padding among them."""
        return self.ids.numel() + (0 if self.source is None else self.source.numel())

    def to(self, device: torch.device) -> Micro:
        """The same on a device."""
        moved: dict[str, Any] = {
            n: t.to(device, non_blocking=True)
            for n in self.__slots__
            if isinstance(t := getattr(self, n), Tensor)
        }
        return replace(self, **moved)


def hidden_states(model: Any, micro: Micro) -> Tensor:
    """What the model's head is given for each supervised token: (supervised, width).

    Raises RuntimeError for a model whose forward never calls its output embeddings.
    """
    taken: list[Tensor] = []

    def take(_: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor]:
        hidden = arguments[0]
        taken.append(hidden[micro.rows, micro.columns - 1])
        # The logits of all positions would be most of the work; those of one are thrown away.
        return (hidden[:1, :1],)

    hook = model.get_output_embeddings().register_forward_pre_hook(take)
    try:
        if micro.source is None:
            # use_cache=False and no attention mask: with either, transformers no longer isolates
            # packed pieces by their positions and contaminates them in silence.
            model(
                input_ids=micro.ids,
                position_ids=micro.positions,
                attention_mask=None,
                use_cache=False,
                **_pieces(model, micro),
            )
        else:
            model(
                input_ids=micro.source,
                attention_mask=micro.source_mask,
                decoder_input_ids=micro.ids,
                use_cache=False,
            )
    finally:
        hook.remove()
    if len(taken) != 1:
        raise RuntimeError("the model does not use its output embeddings once in a forward pass")
    return taken[0]


def _pieces(model: Any, micro: Micro) -> dict[str, Any]:
    """Where the pieces of a flat micro-batch end, for the attentions that ask for it."""
    name = model.config._attn_implementation
    if name == BY_PIECE:
        return {"piece_lengths": micro.lengths or piece_lengths(micro.positions)}
    if "flash" not in name or not micro.lengths:
        return {}
    # Flash attention would find them in the positions, for which every layer waits for the GPU.
    ends = torch.tensor([0, *accumulate(micro.lengths)], dtype=torch.int32).to(micro.ids.device)
    most = max(micro.lengths)
    return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": most,
            "max_length_k": most}  # fmt: skip


def piece_lengths(positions: Tensor) -> tuple[int, ...]:
    """Lengths of the pieces of one row, whose positions start anew."""
    starts = (positions[0] == 0).nonzero().flatten().tolist()
    return tuple(b - a for a, b in pairwise([*starts, positions.shape[1]]))


class _HeadLoss(Function):
    """sum_i w_i * -log softmax(h_i W^T)[y_i], its gradients computed in forward, chunk by chunk.

    With `base`, the same with kl_i * KL(softmax(b_i V^T) || softmax(h_i W^T)) added, for the
    base's hidden states b and head V.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        weights: Tensor,
        base: tuple[Tensor, Tensor, Tensor] | None,
        direct: bool,
    ) -> tuple[Tensor, Tensor]:
        most = max(1, CHUNK_ELEMENTS // head.shape[0])
        # Chunks of equal size: a small last one would run at a fraction of the speed.
        chunks = max(1, math.ceil(hidden.shape[0] / most))
        rows = max(1, math.ceil(hidden.shape[0] / chunks))
        # With bf16 compute the products run in the hidden states' dtype, the softmax in fp32.
        matrix = head.to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden)
        # The head's gradient goes straight into its .grad where it may: a second buffer of its size
        # would be 670 MB for a vocabulary of 262,144. So the loss must not be scaled after this,
        # and each forward must be followed by its backward; `supervised_loss` is the only caller.
        taken: Tensor | None = None
        if ctx.needs_input_grad[1]:
            taken = head.grad if direct else None
            if taken is None:
                taken = torch.zeros_like(head, dtype=torch.float32 if not direct else None)
            if direct:
                head.grad = taken
        parts = hidden.new_zeros(2, dtype=torch.float32)
        # One buffer for all chunks: fresh pages for each cost a tenth of the time.
        buffer = hidden.new_empty((rows, head.shape[0]))
        for i in range(0, hidden.shape[0], rows):
            h, y, w = hidden[i : i + rows], targets[i : i + rows], weights[i : i + rows]
            logits = torch.mm(h, matrix.t(), out=buffer[: len(h)]).float()
            grad = _chunk(logits, y, w, _of_base(base, i, rows), parts).to(hidden.dtype)
            torch.mm(grad, matrix, out=grad_hidden[i : i + rows])
            if taken is not None and grad.dtype == taken.dtype:
                taken.addmm_(grad.t(), h)
            elif taken is not None:
                taken.add_(grad.t() @ h)
        ctx.save_for_backward(
            grad_hidden, *([] if direct or taken is None else [taken.to(head.dtype)])
        )
        ctx.mark_non_differentiable(parts)
        return parts.sum(), parts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, *taken = ctx.saved_tensors
        # On a GPU the look would wait for all the work before it.
        if upstream.device.type == "cpu" and float(upstream) != 1.0:
            raise RuntimeError("the head's gradient was taken for an unscaled loss")
        return grad_hidden, (taken[0] if taken else None), None, None, None, None


def _of_base(
    base: tuple[Tensor, Tensor, Tensor] | None, start: int, rows: int
) -> tuple[Tensor, Tensor] | None:
    if base is None:
        return None
    hidden, head, weights = base
    return (hidden[start : start + rows] @ head.t()).float(), weights[start : start + rows]


def _chunk(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    base: tuple[Tensor, Tensor] | None,
    parts: Tensor,
) -> Tensor:
    """Add (cross entropy, divergence) to `parts`; the gradient takes the place of the logits."""
    logits -= logits.amax(dim=1, keepdim=True)
    picked = logits.gather(1, targets[:, None]).squeeze(1)
    if base is not None:
        of_base, kl = base
        log_p = log_softmax(of_base, dim=1)
        p = log_p.exp()
        # sum p (log p - x) + log sum exp x, for the student's logits x
        divergence = (p * log_p.sub_(logits)).sum(dim=1)
    logits.exp_()
    norm = logits.sum(dim=1)
    log_norm = norm.log()
    parts[0] += ((log_norm - picked) * weights).sum()
    if base is None:
        logits.mul_((weights / norm)[:, None])
    else:
        parts[1] += ((divergence + log_norm) * kl).sum()
        logits.mul_(((weights + kl) / norm)[:, None]).sub_(p.mul_(kl[:, None]))
    return logits.scatter_add_(1, targets[:, None], -weights[:, None])


def supervised_loss(
    model: Any,
    micro: Micro,
    *,
    plain: bool,
    direct: bool,
    base: Any = None,
    compute: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Weighted sum of the token losses of one micro-batch, and what it is made of.

    plain: the head is a product and nothing follows it (`plain_head`). direct: the head's gradient
    may be put where it belongs ahead of backward. base: a model to stay close to. compute: the
    dtype of the head's products. A scalar in fp32, and (cross entropy, divergence).
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    # The head has made the gradient of a tied matrix; the embedding then only adds the rows that
    # were read, and not another gradient of the whole matrix's size. (On a GPU in no fixed order.)
    tied = plain and direct and embedding.weight is head.weight
    embedding.sparse = tied and micro.ids.device.type == "cpu"
    # Norms under autocast give fp32, and the head's products are not autocast's to cast.
    hidden = hidden_states(model, micro).to(compute)
    targets = micro.ids[micro.rows, micro.columns]
    weights = micro.weights
    aside: tuple[Tensor, Tensor, Tensor] | None = None
    if base is not None:
        kl = torch.zeros_like(weights) if micro.kl is None else micro.kl
        with torch.no_grad():
            of_base = hidden_states(base, micro).to(compute)
        aside = of_base, base.get_output_embeddings().weight.detach().to(of_base.dtype), kl
    if plain:
        found: tuple[Tensor, Tensor] = _HeadLoss.apply(  # type: ignore[no-untyped-call]
            hidden, head.weight, targets, weights, aside, direct
        )
        return found
    return _other_head(model, base, hidden, targets, weights, aside)


def _other_head(
    model: Any,
    base: Any,
    hidden: Tensor,
    targets: Tensor,
    weights: Tensor,
    aside: tuple[Tensor, Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """The loss behind a head that is more than a product; backward makes the logits again."""
    rows = max(1, CHUNK_ELEMENTS // model.get_output_embeddings().weight.shape[0])
    whole = len(hidden) <= rows
    parts = hidden.new_zeros(2, dtype=torch.float32)
    for i in range(0, max(1, len(hidden)), rows):
        own = slice(i, i + rows)
        of_base = None if aside is None else (aside[0][own], aside[2][own])
        given = (model, base, hidden[own], targets[own], weights[own], of_base)
        parts = parts + (
            _parts(*given) if whole else checkpoint(_parts, *given, use_reentrant=False)
        )
    return parts.sum(), parts.detach()


def _parts(
    model: Any,
    base: Any,
    hidden: Tensor,
    targets: Tensor,
    weights: Tensor,
    of_base: tuple[Tensor, Tensor] | None,
) -> Tensor:
    logits = finished(model, hidden).float()
    nll = (cross_entropy(logits, targets, reduction="none") * weights).sum()
    if of_base is None:
        return torch.stack([nll, nll.new_zeros(())])
    states, kl = of_base
    with torch.no_grad():
        other = log_softmax(finished(base, states).float(), dim=1)
    each = kl_div(log_softmax(logits, dim=1), other, reduction="none", log_target=True)
    return torch.stack([nll, (each.sum(dim=1) * kl).sum()])


def finished(model: Any, hidden: Tensor) -> Tensor:
    """Logits of hidden states: the head, and what the model does to its outputs."""
    config = model.config
    logits: Tensor = model.get_output_embeddings()(hidden)
    cap = getattr(config, "final_logit_softcapping", None)
    if getattr(config, "logit_scale", None) is not None:
        logits = logits * config.logit_scale
    if getattr(config, "logits_scaling", None) is not None:
        logits = logits / config.logits_scaling
    bias = getattr(model, "final_logits_bias", None)
    if bias is not None:
        logits = logits + bias.to(logits)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def plain_head(model: Any) -> bool:
    """Whether logits are the product of hidden states and the output embeddings, and no more."""
    config, head = model.config, model.get_output_embeddings()
    return (
        isinstance(head, torch.nn.Linear)
        and getattr(head, "bias", None) is None
        and not hasattr(head, "lora_A")
        and getattr(model, "final_logits_bias", None) is None
        and all(
            getattr(config, name, None) is None
            for name in ("final_logit_softcapping", "logit_scale", "logits_scaling")
        )
    )
