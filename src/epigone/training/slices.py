"""Tensor parallelism: every process computes with a slice of each matrix (Shoeybi et al. 2019).

The first product of a pair is sliced by outputs, the second by inputs, so that one sum over the
processes stands behind each attention and each feed-forward layer. Embeddings, norms and the head
are whole in every process (and split by shards where there are shards as well).
"""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from epigone.errors import ModelError
from epigone.training.parallel import World

# Architectures for which transformers has no plan; `fused` is GPT-2's queries, keys and values in
# one matrix, `heads` an embedding with a column for each head.
_PLANS: dict[str, dict[str, str]] = {
    "gpt2": {
        r"h\.\d+\.attn\.c_attn": "fused",
        r"h\.\d+\.attn\.c_proj": "rowwise",
        r"h\.\d+\.mlp\.c_fc": "colwise",
        r"h\.\d+\.mlp\.c_proj": "rowwise",
    },
    "t5": {
        r".*\.(SelfAttention|EncDecAttention)": "heads",
        r".*\.(SelfAttention|EncDecAttention)\.[qkv]": "colwise",
        r".*\.(SelfAttention|EncDecAttention)\.o": "rowwise",
        r".*\.DenseReluDense\.wi(_[01])?": "colwise",
        r".*\.DenseReluDense\.wo": "rowwise",
    },
}
_STYLES = ("colwise", "rowwise", "fused", "heads", "replicated_with_grad_allreduce")


def slice_(model: Any, world: World) -> list[str]:
    """Slice the matrices of a model in place over the tensor axis.

    Names of parameters whose gradients are partial, to be summed over that axis, are returned.
    Raises ModelError for architectures that cannot be sliced so, and for heads that do not divide.
    """
    if world.layout.tensor == 1:
        return []
    size = world.layout.tensor
    styles = _plan(model)
    config = model.config
    for name in ("num_attention_heads", "num_key_value_heads", "num_heads", "n_head"):
        heads = getattr(config, name, None)
        if heads is not None and heads % size:
            raise ModelError(
                f"{heads} heads do not divide into {size} slices", fix="another tensor=N"
            )
    partial: list[str] = []
    for name, module in list(model.named_modules()):
        style = next((s for pattern, s in styles.items() if re.fullmatch(pattern, name)), None)
        if style == "colwise":
            _columns(module, world)
        elif style == "rowwise":
            _rows(module, world)
        elif style == "fused":
            partial += [f"{name}.weight", f"{name}.bias"]
            _fused(module, world)
            model.get_submodule(name.rpartition(".")[0]).split_size //= size
        elif style == "heads":
            if module.has_relative_attention_bias:
                partial.append(f"{name}.relative_attention_bias.weight")
            _heads(module, world)
        elif style is not None:
            partial += [f"{name}.{n}" for n, _ in module.named_parameters()]
    return partial


def _plan(model: Any) -> dict[str, str]:
    kind = model.config.model_type
    prefix = next(
        (n for n, m in model.named_modules() if m is model.base_model and m is not model), ""
    )
    plan = getattr(model.config, "base_model_tp_plan", None)
    if kind in _PLANS:
        own = _PLANS[kind]
    elif plan:
        own = {re.escape(n).replace(r"\*", r"\d+"): s for n, s in plan.items()}
    else:
        raise ModelError(
            "tensor parallelism knows no plan for this architecture",
            value=kind,
            fix="use shard=N instead",
        )
    for style in set(own.values()) - set(_STYLES):
        raise ModelError(
            f"{kind}: tensor parallelism cannot slice {style!r}", fix="use shard=N instead"
        )
    start = re.escape(prefix + ".") if prefix else ""
    return {start + pattern: style for pattern, style in own.items()}


class _Copy(Function):
    """The same input to all slices; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        grad = grad.contiguous().clone()
        dist.all_reduce(grad, group=ctx.group)
        return grad, None


class _Sum(Function):
    """The sum of all slices' outputs; each gets the whole gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        x = x.contiguous().clone()
        dist.all_reduce(x, group=group)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def _columns(module: Any, world: World) -> None:
    _distribute(module, "weight", Shard(1 if isinstance(module, Conv1D) else 0), world)
    _distribute(module, "bias", Shard(0), world)
    group = world.group("tensor")

    def forward(x: Tensor) -> Tensor:
        return _product(module, _Copy.apply(x, group), bias=True)  # type: ignore[no-untyped-call]

    module.forward = forward


def _rows(module: Any, world: World) -> None:
    _distribute(module, "weight", Shard(0 if isinstance(module, Conv1D) else 1), world)
    _distribute(module, "bias", Replicate(), world)
    group = world.group("tensor")

    def forward(x: Tensor) -> Tensor:
        y: Tensor = _Sum.apply(_product(module, x, bias=False), group)  # type: ignore[no-untyped-call]
        return y if module.bias is None else y + module.bias.to_local()

    module.forward = forward


def _product(module: Any, x: Tensor, *, bias: bool) -> Tensor:
    weight = module.weight.to_local()
    if isinstance(module, Conv1D):
        weight = weight.t()
    return linear(x, weight, module.bias.to_local() if bias and module.bias is not None else None)


def _fused(module: Any, world: World) -> None:
    # The columns of this process's heads lie apart in the three parts of the matrix, which no
    # sharding can say; the matrix stays whole, and the product takes the columns that it needs.
    size, at = world.layout.tensor, world.at("tensor")
    width = module.nf // 3
    own = width // size
    group = world.group("tensor")

    def columns(t: Tensor) -> Tensor:
        starts = (part * width + at * own for part in range(3))
        return torch.cat([t[..., s : s + own] for s in starts], dim=-1)

    def forward(x: Tensor) -> Tensor:
        x = _Copy.apply(x, group)  # type: ignore[no-untyped-call]
        return linear(x, columns(module.weight).t(), columns(module.bias))

    module.forward = forward


def _heads(module: Any, world: World) -> None:
    size, at = world.layout.tensor, world.at("tensor")
    own = module.n_heads // size
    module.n_heads = own
    whole = module.compute_bias

    def compute_bias(*arguments: Any, **named: Any) -> Tensor:
        biases: Tensor = whole(*arguments, **named)[:, at * own : (at + 1) * own]
        return biases

    module.compute_bias = compute_bias


def _distribute(module: Any, name: str, placement: Shard | Replicate, world: World) -> None:
    parameter = module._parameters.get(name)
    if parameter is None:
        return
    # Every process has loaded the same weights: nothing needs to be sent.
    sliced = distribute_tensor(
        parameter.data, world.along("tensor"), [placement], src_data_rank=None
    )
    module._parameters[name] = torch.nn.Parameter(sliced, requires_grad=parameter.requires_grad)
