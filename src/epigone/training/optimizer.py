"""Optimisers, updating in place so that no second copy of the model is ever held."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from epigone.study.specs import RecipeSpec
from epigone.training.parallel import World, local

FLOOR = 1e-3  # smallest parameter scale
DECAY = 0.95  # exponent of the second moment's decay
MOMENTUM = 0.9
# What 0.9 becomes beside a momentum in bf16: JAX rounds the factor and the product, and so steps
# are 1.5% shorter than the formula says.
_HALF_MOMENTUM = 0.8984375


def clip_(parameters: Mapping[str, Tensor], limit: float, world: World) -> float:
    """Scale gradients in place to a global norm of at most `limit`; the norm before is returned."""
    grads = {n: p.grad for n, p in parameters.items() if p.grad is not None}
    norm = math.sqrt(float(world.square_sums(grads).sum())) if grads else 0.0
    if norm > limit:
        for g in grads.values():
            local(g).mul_(limit / norm)
    return norm


class ParameterScaled:
    """Adam-like steps rescaled by the RMS of each parameter tensor; unfactored Adafactor.

    With step t = 1, 2, ... and, per tensor p with gradient g (already clipped):

        b2 = 1 - t^-0.95
        v  = b2 v + (1 - b2) (g^2 + 1e-30)
        u  = lr g / sqrt(v) * max(RMS(p), 1e-3)
        m  = 0.9 m + 0.1 u            (kept in bf16, applied before rounding; 0.9 is rounded)
        p  = p - m - lr (wd p + pull (p - p_base))

    This is what EasyLM ran for "The False Promise of Imitating Proprietary LLMs" through
    optax's adafactor; the last term is decay to the base.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        recipe: RecipeSpec,
        world: World | None = None,
        base: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._parameters = parameters
        self._decay, self._pull = recipe.weight_decay, recipe.decay_to_base
        self._world, self._base = world or World(), base or {}
        self._v = {n: torch.zeros_like(local(p).data) for n, p in parameters.items()}
        self._m = {
            n: torch.zeros_like(local(p).data, dtype=torch.bfloat16) for n, p in parameters.items()
        }

    def state(self) -> dict[str, Tensor]:
        """Every tensor that a resumed run needs."""
        kept = {"v": self._v, "m": self._m}
        return {
            f"{key}.{n}": _like(t, self._parameters[n])
            for key, own in kept.items()
            for n, t in own.items()
        }

    @torch.no_grad()
    def step(self, count: int, lr: float) -> None:
        """Apply step `count` (1 is the first) and consume the gradients."""
        b2 = 1.0 - count**-DECAY
        moved = {n: p for n, p in self._parameters.items() if p.grad is not None}
        sizes = [p.numel() for p in moved.values()]
        squares = self._world.square_sums(moved).tolist() if moved else []
        for (name, p), square, size in zip(moved.items(), squares, sizes, strict=True):
            scale = lr * max(math.sqrt(square / size), FLOOR)
            own, grad = local(p), local(p.grad)  # type: ignore[arg-type]
            base = self._base.get(name)
            # In row slices: a temporary of a 262,144-row embedding would cost 670 MB.
            parts = zip(
                _slices(grad), _slices(self._v[name]), _slices(self._m[name]), _slices(own),
                _slices(own if base is None else base), strict=True,
            )  # fmt: skip
            for gs, vs, ms, ps, bs in parts:
                vs.mul_(b2).addcmul_(gs, gs, value=1.0 - b2).add_((1.0 - b2) * 1e-30)
                ms.mul_(_HALF_MOMENTUM if ms.dtype == torch.bfloat16 else MOMENTUM)
                gs.mul_(torch.rsqrt(vs)).mul_(scale * (1.0 - MOMENTUM)).add_(ms)
                ms.copy_(gs)
                if self._decay:
                    gs.add_(ps, alpha=lr * self._decay)
                if base is not None and self._pull:
                    gs.add_(ps - bs, alpha=lr * self._pull)
                ps.sub_(gs)
            p.grad = None


class AdamW:
    """AdamW with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

    With decay to the base, the same decay has the base's weights as its target as well (L2-SP,
    Li et al. 2018).
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        recipe: RecipeSpec,
        world: World | None = None,
        base: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._parameters = parameters
        self._pull, self._base = recipe.decay_to_base, base or {}
        # Its parameters are this process's own parts, which share their memory with the model's.
        self._own = {n: local(p).detach() for n, p in parameters.items()}
        self._inner = torch.optim.AdamW(
            list(self._own.values()),
            lr=0.0,
            betas=(0.9, 0.999),
            weight_decay=recipe.weight_decay,
            # One pass over memory; the other ways make temporaries, on a GPU as large as the model.
            fused=True,
        )
        for p in self._own.values():
            self._inner.state[p] = {
                "step": torch.zeros((), dtype=torch.float32, device=self._step_device(p)),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": torch.zeros_like(p),
            }

    @staticmethod
    def _step_device(p: Tensor) -> torch.device:
        # The fused optimiser counts on the GPU.
        return p.device if p.device.type == "cuda" else torch.device("cpu")

    def state(self) -> dict[str, Tensor]:
        """Every tensor that a resumed run needs."""
        return {
            f"{key}.{n}": tensor if key == "step" else _like(tensor, self._parameters[n])
            for n, p in self._own.items()
            for key, tensor in self._inner.state[p].items()
        }

    @torch.no_grad()
    def step(self, count: int, lr: float) -> None:
        """Apply step `count` and drop the gradients."""
        for group in self._inner.param_groups:
            group["lr"] = lr
        for name, p in self._own.items():
            grad = self._parameters[name].grad
            p.grad = None if grad is None else local(grad)
            if self._pull and name in self._base:
                for ps, bs in zip(_slices(p), _slices(self._base[name]), strict=True):
                    ps.sub_(ps - bs, alpha=lr * self._pull)
        self._inner.step()
        self._inner.zero_grad(set_to_none=True)
        for q in self._parameters.values():
            q.grad = None


Optimizer = ParameterScaled | AdamW
OPTIMIZERS: dict[str, type[ParameterScaled] | type[AdamW]] = {
    "parameter-scaled": ParameterScaled,
    "adamw": AdamW,
}


def _like(part: Tensor, parameter: Tensor) -> Tensor:
    # A checkpoint has to know of which whole tensor this is a part.
    if not isinstance(parameter, DTensor):
        return part
    return DTensor.from_local(
        part,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def _slices(t: Tensor, elements: int = 1 << 22) -> list[Tensor]:
    if t.ndim < 2 or t.numel() <= elements:
        return [t]
    return list(torch.split(t, max(1, elements // (t.numel() // t.shape[0]))))
