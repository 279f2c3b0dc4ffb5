"""Optimisers, updating in place so that no second copy of the model is ever held."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

FLOOR = 1e-3  # smallest parameter scale
DECAY = 0.95  # exponent of the second moment's decay
MOMENTUM = 0.9


def learning_rate(peak: float, warmup_steps: int) -> Callable[[int], float]:
    """Linear from 0 over `warmup_steps`, then constant; the first step is step 0.

    Given the number of warm-up steps, nothing in it depends on how long the run goes on, so every
    amount lies on one trunk.
    """
    return lambda step: peak * min(1.0, step / warmup_steps) if warmup_steps else peak


def clip_(gradients: Iterable[Tensor], limit: float) -> float:
    """Scale gradients in place to a global norm of at most `limit`; the norm before is returned."""
    grads = list(gradients)
    norm = math.sqrt(
        sum(float(g.double().pow(2).sum()) if g.numel() < 1024 else _square(g) for g in grads)
    )
    if norm > limit:
        for g in grads:
            g.mul_(limit / norm)
    return norm


def _square(g: Tensor) -> float:
    return float(torch.linalg.vector_norm(g, dtype=torch.float32).double()) ** 2


class ParameterScaled:
    """Adam-like steps rescaled by the RMS of each parameter tensor; unfactored Adafactor.

    With step t = 1, 2, ... and, per tensor p with gradient g (already clipped):

        b2 = 1 - t^-0.95
        v  = b2 v + (1 - b2) (g^2 + 1e-30)
        u  = lr g / sqrt(v) * max(RMS(p), 1e-3)
        m  = 0.9 m + 0.1 u            (kept in bf16, applied before rounding)
        p  = p - m - lr wd p

    This is what EasyLM ran for "The False Promise of Imitating Proprietary LLMs" through
    optax's adafactor.
    """

    def __init__(self, parameters: Iterable[tuple[str, Tensor]], weight_decay: float) -> None:
        self.parameters = dict(parameters)
        self.weight_decay = weight_decay
        self.v = {n: torch.zeros_like(p, dtype=torch.float32) for n, p in self.parameters.items()}
        self.m = {n: torch.zeros_like(p, dtype=torch.bfloat16) for n, p in self.parameters.items()}

    def state(self) -> dict[str, Tensor]:
        """Every tensor that a resumed run needs."""
        return {f"v.{n}": t for n, t in self.v.items()} | {f"m.{n}": t for n, t in self.m.items()}

    @torch.no_grad()
    def step(self, count: int, lr: float) -> None:
        """Apply step `count` (1 is the first) and consume the gradients."""
        b2 = 1.0 - count**-DECAY
        for name, p in self.parameters.items():
            if p.grad is None:
                continue
            g, v, m = p.grad, self.v[name], self.m[name]
            scale = lr * max(float(torch.linalg.vector_norm(p)) / math.sqrt(p.numel()), FLOOR)
            # In row slices: a temporary of a 262,144-row embedding would cost 670 MB.
            for gs, vs, ms, ps in zip(*(_slices(t) for t in (g, v, m, p)), strict=True):
                vs.mul_(b2).addcmul_(gs, gs, value=1.0 - b2).add_((1.0 - b2) * 1e-30)
                gs.mul_(torch.rsqrt(vs)).mul_(scale * (1.0 - MOMENTUM)).add_(ms, alpha=MOMENTUM)
                ms.copy_(gs)
                if self.weight_decay:
                    gs.add_(ps, alpha=lr * self.weight_decay)
                ps.sub_(gs)
            p.grad = None


class AdamW:
    """AdamW with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2)."""

    def __init__(self, parameters: Iterable[tuple[str, Tensor]], weight_decay: float) -> None:
        self.parameters = dict(parameters)
        self._inner = torch.optim.AdamW(
            list(self.parameters.values()), lr=0.0, betas=(0.9, 0.999), weight_decay=weight_decay
        )
        for p in self.parameters.values():
            self._inner.state[p] = {
                "step": torch.zeros((), dtype=torch.float32),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": torch.zeros_like(p),
            }

    def state(self) -> dict[str, Tensor]:
        """Every tensor that a resumed run needs."""
        return {
            f"{key}.{n}": tensor
            for n, p in self.parameters.items()
            for key, tensor in self._inner.state[p].items()
        }

    def step(self, count: int, lr: float) -> None:
        """Apply step `count` and drop the gradients."""
        for group in self._inner.param_groups:
            group["lr"] = lr
        self._inner.step()
        self._inner.zero_grad(set_to_none=True)


Optimizer = ParameterScaled | AdamW
OPTIMIZERS: dict[str, type[ParameterScaled] | type[AdamW]] = {
    "parameter-scaled": ParameterScaled,
    "adamw": AdamW,
}


def _slices(t: Tensor, elements: int = 1 << 22) -> list[Tensor]:
    if t.ndim < 2 or t.numel() <= elements:
        return [t]
    return list(torch.split(t, max(1, elements // (t.numel() // t.shape[0]))))
