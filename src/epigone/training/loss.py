"""Cross entropy of the supervised tokens, with logits only where there is loss."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# Logits held at once: 512 x 262,144 x 4 bytes = 537 MB for the largest vocabularies.
CHUNK_ELEMENTS = 1 << 26


class _HeadLoss(Function):
    """sum_i w_i * -log softmax(h_i W^T)[y_i], its gradients computed in forward, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        most = max(1, CHUNK_ELEMENTS // head.shape[0])
        # Chunks of equal size: a small last one would run at a fraction of the speed.
        chunks = max(1, math.ceil(hidden.shape[0] / most))
        rows = max(1, math.ceil(hidden.shape[0] / chunks))
        # With bf16 compute the products run in the hidden states' dtype, the softmax in fp32.
        matrix = head.to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden)
        # The head's gradient goes straight into its .grad: a second buffer of its size would be
        # 670 MB for a vocabulary of 262,144. So the loss must not be scaled after this, and each
        # forward must be followed by its backward; `supervised_loss` is the only caller.
        taken: Tensor | None = None
        if ctx.needs_input_grad[1]:
            taken = head.grad = torch.zeros_like(head) if head.grad is None else head.grad
        total = hidden.new_zeros((), dtype=torch.float32)
        # One buffer for all chunks: fresh pages for each cost a tenth of the time.
        buffer = hidden.new_empty((rows, head.shape[0]))
        for i in range(0, hidden.shape[0], rows):
            h, y, w = hidden[i : i + rows], targets[i : i + rows], weights[i : i + rows]
            logits = torch.mm(h, matrix.t(), out=buffer[: len(h)]).float()
            logits -= logits.amax(dim=1, keepdim=True)
            picked = logits.gather(1, y[:, None]).squeeze(1)
            logits.exp_()
            norm = logits.sum(dim=1)
            total += ((norm.log() - picked) * w).sum()
            logits.mul_((w / norm)[:, None])
            logits.scatter_add_(1, y[:, None], -w[:, None])
            grad = logits.to(hidden.dtype)
            torch.mm(grad, matrix, out=grad_hidden[i : i + rows])
            if taken is not None and grad.dtype == taken.dtype:
                taken.addmm_(grad.t(), h)
            elif taken is not None:
                taken.add_(grad.t() @ h)
        ctx.save_for_backward(grad_hidden)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (grad_hidden,) = ctx.saved_tensors
        if float(upstream) != 1.0:
            raise RuntimeError("the head's gradient was taken for an unscaled loss")
        return grad_hidden, None, None, None


def supervised_loss(
    model: Any, ids: Tensor, positions: Tensor, where: tuple[Tensor, Tensor], weights: Tensor
) -> Tensor:
    """Weighted sum of token losses of one micro-batch.

    ids, positions: (rows, length); `positions` restarts at every packed piece, which is what keeps
    pieces from attending to one another. where: (row, column) of each supervised token, column
    at least 1; weights: (supervised,). A scalar in fp32.
    """
    rows, columns = where
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    plain = _plain_head(model, head)
    # The head has made the gradient of a tied matrix; the embedding then only adds the rows that
    # were read, and not another gradient of the whole matrix's size. (On a GPU in no fixed order.)
    tied = plain and embedding.weight is head.weight
    embedding.sparse = tied and ids.device.type == "cpu"
    # use_cache=False and no attention mask: with either, transformers no longer isolates packed
    # pieces by their positions and contaminates them in silence.
    out = model.base_model(
        input_ids=ids, position_ids=positions, attention_mask=None, use_cache=False
    )
    hidden = out.last_hidden_state[rows, columns - 1]
    if plain:
        loss: Tensor = _HeadLoss.apply(  # type: ignore[no-untyped-call]
            hidden, head.weight, ids[rows, columns], weights
        )
        return loss
    logits = _finish(model, head(hidden)).float()
    losses = torch.nn.functional.cross_entropy(logits, ids[rows, columns], reduction="none")
    return (losses * weights).sum()


def _plain_head(model: Any, head: Any) -> bool:
    config = model.config
    bias: Tensor | None = getattr(head, "bias", None)
    return (
        isinstance(head, torch.nn.Linear)
        and bias is None
        and getattr(config, "final_logit_softcapping", None) is None
        and getattr(config, "logit_scale", None) is None
        and getattr(config, "logits_scaling", None) is None
    )


def _finish(model: Any, logits: Tensor) -> Tensor:
    config = model.config
    cap = getattr(config, "final_logit_softcapping", None)
    if getattr(config, "logit_scale", None) is not None:
        logits = logits * config.logit_scale
    if getattr(config, "logits_scaling", None) is not None:
        logits = logits / config.logits_scaling
    return logits if cap is None else torch.tanh(logits / cap) * cap
