from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from epigone.study.declare import Recipe
from epigone.study.specs import RecipeSpec
from epigone.training import optimizer
from epigone.training.optimizer import AdamW, ParameterScaled, clip_
from epigone.training.parallel import World

from .optax_adafactor import DECAY, FOUND, LR, SHAPES, WARMUP, given


def recipe(**settings: Any) -> RecipeSpec:
    return Recipe().resolved().model_copy(update={"weight_decay": 0.0, **settings})


def scaled(p: torch.Tensor, **settings: Any) -> ParameterScaled:
    return ParameterScaled({"p": p}, recipe(**settings))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("momentum", ["float32", "bfloat16"])
def test_parameter_scaled_is_optaxs_unfactored_adafactor(
    shape: tuple[int, ...], momentum: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizer, "_slices", lambda t: list(t.split(2)))
    start, *gradients = given()[str(shape)]
    expected = np.load(FOUND)[momentum + str(shape)]
    p = torch.nn.Parameter(torch.tensor(start))
    own = scaled(p, weight_decay=DECAY)
    if momentum == "float32":
        own._m = {n: m.float() for n, m in own._m.items()}
    for t, g in enumerate(gradients):
        p.grad = torch.tensor(g)
        own.step(t + 1, LR * min(1.0, t / WARMUP))
    # Relative to the tensor: single numbers that pass through 0 have no relative error.
    error = np.abs(p.detach().numpy() - expected).max() / np.abs(start).max()
    # Where fp32 sums lie at a border, bf16 momentum may round the other way.
    assert error < (1e-6 if momentum == "float32" else 1e-5)


def test_the_first_step_moves_by_a_tenth_of_lr_times_the_scale() -> None:
    p = torch.nn.Parameter(torch.full((4,), 2.0))
    own = scaled(p)
    p.grad = torch.tensor([1.0, -5.0, 0.1, 3.0])
    own.step(1, 0.01)
    moved = 2.0 - p.detach()
    torch.testing.assert_close(
        moved, torch.tensor([1.0, -1.0, 1.0, 1.0]) * 0.002, rtol=1e-4, atol=0
    )


def test_a_zero_tensor_moves_by_the_floor() -> None:
    p = torch.nn.Parameter(torch.zeros(3))
    own = scaled(p)
    p.grad = torch.ones(3)
    own.step(1, 1.0)
    torch.testing.assert_close(p.detach(), torch.full((3,), -1e-4), rtol=1e-4, atol=0)


def test_bf16_masters_would_not_learn_and_fp32_ones_do() -> None:
    # A relative step of 2e-3 lies below bf16's resolution of 2^-8.
    moved = {}
    for dtype in (torch.float32, torch.bfloat16):
        p = torch.nn.Parameter(torch.full((8,), 1.5, dtype=dtype))
        own = scaled(p)
        for t in range(1, 11):
            p.grad = torch.ones_like(p)
            own.step(t, 2e-3)
        moved[dtype] = bool((p != 1.5).any())
    assert moved == {torch.float32: True, torch.bfloat16: False}


def test_adamw_is_torchs_and_resumes_from_its_state() -> None:
    torch.manual_seed(0)
    a, b = (torch.nn.Parameter(torch.arange(6.0)) for _ in range(2))
    own = AdamW({"p": a}, recipe(weight_decay=0.1))
    theirs = torch.optim.AdamW([b], lr=1e-2, betas=(0.9, 0.999), weight_decay=0.1, foreach=False)
    for t in range(1, 6):
        g = torch.randn(6)
        a.grad, b.grad = g.clone(), g.clone()
        own.step(t, 1e-2)
        theirs.step()
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    assert set(own.state()) == {"step.p", "exp_avg.p", "exp_avg_sq.p"}


@pytest.mark.parametrize("kind", [ParameterScaled, AdamW])
def test_decay_to_the_base_pulls_by_lr_times_its_weight_and_no_further(kind: Any) -> None:
    base = torch.tensor([1.0, -2.0, 0.5])
    p = torch.nn.Parameter(base + torch.tensor([0.5, 0.25, -1.0]))
    own = kind({"p": p}, recipe(decay_to_base=0.2), World(), {"p": base})
    p.grad = torch.zeros(3)
    before = p.detach() - base
    own.step(1, 0.5)
    torch.testing.assert_close(p.detach() - base, before * (1 - 0.5 * 0.2), rtol=1e-5, atol=1e-6)


def test_clipping_to_the_global_norm() -> None:
    parameters = {n: torch.nn.Parameter(torch.zeros(k)) for n, k in (("a", 2000), ("b", 3))}
    parameters["a"].grad, parameters["b"].grad = torch.full((2000,), 1.0), torch.full((3,), 2.0)
    assert clip_(parameters, 1.0, World()) == pytest.approx(math.sqrt(2000 + 12), rel=1e-6)
    after = sum(float((p.grad**2).sum()) for p in parameters.values() if p.grad is not None)
    assert math.sqrt(after) == pytest.approx(1.0, rel=1e-5)
    small = torch.nn.Parameter(torch.zeros(1))
    small.grad = torch.tensor([0.1])
    clip_({"s": small}, 1.0, World())
    assert small.grad.item() == pytest.approx(0.1)
