from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from epigone.training import optimizer
from epigone.training.optimizer import AdamW, ParameterScaled, clip_, learning_rate


def reference(p: np.ndarray, grads: list[np.ndarray], lr: float, wd: float) -> np.ndarray:
    """The published formula, step by step in float64."""
    v, m = np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(grads, 1):
        b2 = 1 - t**-0.95
        v = b2 * v + (1 - b2) * (g**2 + 1e-30)
        u = lr * g / np.sqrt(v) * max(np.sqrt(np.mean(p**2)), 1e-3)
        m = 0.9 * m + 0.1 * u
        p = p - (m + lr * wd * p)
        m = torch.tensor(m).to(torch.bfloat16).double().numpy()
    return p


@pytest.mark.parametrize("shape", [(7,), (5, 3), (40, 16)])
def test_parameter_scaled_follows_the_formula(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizer, "_slices", lambda t: list(t.split(2)))
    rng = np.random.default_rng(0)
    start = rng.normal(size=shape)
    grads = [rng.normal(size=shape) for _ in range(50)]
    p = torch.nn.Parameter(torch.tensor(start, dtype=torch.float32))
    own = ParameterScaled([("p", p)], weight_decay=1e-4)
    for t, g in enumerate(grads, 1):
        p.grad = torch.tensor(g, dtype=torch.float32)
        own.step(t, 2e-3)
    expected = reference(start, grads, 2e-3, 1e-4)
    # bf16 momentum may round the other way where fp32 and float64 lie at a border
    np.testing.assert_allclose(p.detach().numpy(), expected, rtol=2e-4, atol=1e-5)


def test_the_first_step_moves_by_a_tenth_of_lr_times_the_scale() -> None:
    p = torch.nn.Parameter(torch.full((4,), 2.0))
    own = ParameterScaled([("p", p)], weight_decay=0.0)
    p.grad = torch.tensor([1.0, -5.0, 0.1, 3.0])
    own.step(1, 0.01)
    moved = 2.0 - p.detach()
    torch.testing.assert_close(
        moved, torch.tensor([1.0, -1.0, 1.0, 1.0]) * 0.002, rtol=1e-4, atol=0
    )


def test_a_zero_tensor_moves_by_the_floor() -> None:
    p = torch.nn.Parameter(torch.zeros(3))
    own = ParameterScaled([("p", p)], weight_decay=0.0)
    p.grad = torch.ones(3)
    own.step(1, 1.0)
    torch.testing.assert_close(p.detach(), torch.full((3,), -1e-4), rtol=1e-4, atol=0)


def test_bf16_masters_would_not_learn_and_fp32_ones_do() -> None:
    # A relative step of 2e-3 lies below bf16's resolution of 2^-8.
    moved = {}
    for dtype in (torch.float32, torch.bfloat16):
        p = torch.nn.Parameter(torch.full((8,), 1.5, dtype=dtype))
        own = ParameterScaled([("p", p)], weight_decay=0.0)
        for t in range(1, 11):
            p.grad = torch.ones_like(p)
            own.step(t, 2e-3)
        moved[dtype] = bool((p != 1.5).any())
    assert moved == {torch.float32: True, torch.bfloat16: False}


def test_adamw_is_torchs_and_resumes_from_its_state() -> None:
    torch.manual_seed(0)
    a, b = (torch.nn.Parameter(torch.arange(6.0)) for _ in range(2))
    own = AdamW([("p", a)], weight_decay=0.1)
    theirs = torch.optim.AdamW([b], lr=1e-2, betas=(0.9, 0.999), weight_decay=0.1)
    for t in range(1, 6):
        g = torch.randn(6)
        a.grad, b.grad = g.clone(), g.clone()
        own.step(t, 1e-2)
        theirs.step()
    torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert set(own.state()) == {"step.p", "exp_avg.p", "exp_avg_sq.p"}


def test_clipping_to_the_global_norm() -> None:
    grads = [torch.full((2000,), 1.0), torch.full((3,), 2.0)]
    norm = clip_(grads, 1.0)
    assert norm == pytest.approx(math.sqrt(2000 + 12), rel=1e-6)
    assert math.sqrt(sum(float((g**2).sum()) for g in grads)) == pytest.approx(1.0, rel=1e-5)
    small = [torch.tensor([0.1])]
    clip_(small, 1.0)
    assert small[0].item() == pytest.approx(0.1)


def test_warm_up_starts_at_zero_and_then_stays() -> None:
    rate = learning_rate(2e-3, 4)
    assert [rate(i) for i in range(6)] == pytest.approx([0, 5e-4, 1e-3, 1.5e-3, 2e-3, 2e-3])
    assert learning_rate(1.0, 0)(0) == 1.0
