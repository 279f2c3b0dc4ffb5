"""One prefix in memory for all rows: what attention gives, whatever the kernels can do."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM, FalconConfig, PhiConfig

from epigone.errors import ModelError
from epigone.models import attention
from epigone.models.generate import generate
from epigone.models.kv import prefix_kv
from epigone.models.score import loglikelihoods

from .test_score import CONFIGS, SIZES, plain, requests, tiny

NAMES = [*CONFIGS, "phi"]


def model_of(name: str) -> torch.nn.Module:
    if name != "phi":
        return tiny(name)  # type: ignore[no-any-return]
    torch.manual_seed(5)
    return AutoModelForCausalLM.from_config(  # type: ignore[no-any-return]
        PhiConfig(**SIZES), attn_implementation="sdpa"
    ).eval()


@pytest.mark.parametrize("name", NAMES)
def test_the_prefix_is_read_in_its_place(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    longest = 0

    def half(query: torch.Tensor, key: torch.Tensor, *more: object) -> object:
        nonlocal longest
        if key.shape[2] > 20:
            # One row in memory, whatever the batch: nothing was repeated.
            assert key.stride(0) == 0 or len(key) == 1
            longest = max(longest, len(key))
        return true_half(query, key, *more)

    # Tried out once, and not here.
    assert attention._held(torch.device("cpu"), torch.float32)
    true_half = attention._half
    monkeypatch.setattr(attention, "_half", half)
    model = model_of(name)
    assert attention.shareable(model)
    asked = requests()
    for got, request in zip(loglikelihoods(model, asked), asked, strict=True):
        want = plain(model, request)
        assert got == (pytest.approx(want[0], abs=1e-5), want[1])
    assert longest > 1
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("name", NAMES)
def test_without_the_kernel_the_prefix_is_copied(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, asked = model_of(name), requests()
    prompts = [[*range(3, 40), i] for i in range(3, 9)]
    shared = loglikelihoods(model, asked)
    written = generate(model, prompts, max_new_tokens=6, stop_ids=frozenset())
    monkeypatch.setattr(attention, "_held", lambda *_: False)
    for got, want in zip(loglikelihoods(model, asked), shared, strict=True):
        assert got == (pytest.approx(want[0], abs=1e-5), want[1])
    assert generate(model, prompts, max_new_tokens=6, stop_ids=frozenset()) == written


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_halves_join_to_the_whole(dtype: torch.dtype) -> None:
    assert attention._held(torch.device("cpu"), dtype)
    make = torch.Generator().manual_seed(3)
    query, key, value = (torch.randn(2, 4, n, 16, generator=make).to(dtype) for n in (3, 30, 30))
    want = scaled_dot_product_attention(query, key, value)
    for cut in (1, 15, 29):
        got = attention._joined(
            attention._half(query, key[:, :, :cut], value[:, :, :cut], None, None),
            attention._half(query, key[:, :, cut:], value[:, :, cut:], None, None),
        )
        torch.testing.assert_close(
            got, want, atol=1e-5 if dtype == torch.float32 else 2e-2, rtol=1e-2
        )


def test_keys_of_another_hand_are_noticed() -> None:
    model = tiny("llama")
    with torch.inference_mode():
        cache = prefix_kv(model, list(range(20)))
    with pytest.raises(RuntimeError, match="not handed the keys"):
        cache.before(cache.kv[0][0].clone())


def test_distances_inside_masks_are_refused() -> None:
    config = FalconConfig(
        vocab_size=53, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=True
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(ModelError, match="ALiBi"):
        loglikelihoods(model, [([1, 2, 3], [4])])
