"""Shared-prefix scoring equals one plain forward a request, for each model family."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)

from epigone.models.likelihood import Request
from epigone.models.score import loglikelihoods, overlong

VOCAB = 53
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**SIZES),
    "gpt2": GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=3, n_head=4, n_positions=64),
    "gemma3": Gemma3TextConfig(
        **SIZES,
        head_dim=8,
        sliding_window=7,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "qwen2": Qwen2Config(**SIZES),
    "mistral": MistralConfig(**SIZES, sliding_window=9),
}


def tiny(name: str) -> Any:
    """A random model with weights large enough that its probabilities differ."""
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="sdpa").eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.mul_(6.0)
    return model


def plain(model: Any, request: Request) -> tuple[float, bool]:
    """One full forward, log_softmax everywhere."""
    context, continuation = list(request[0]), list(request[1])
    ids = (context + continuation)[-(64 + 1) :]
    with torch.no_grad():
        logits = model(torch.tensor([ids[:-1]]), use_cache=False).logits[0].double()
    tail = logits.log_softmax(-1)[-len(continuation) :]
    value = sum(float(tail[i, t]) for i, t in enumerate(continuation))
    return value, tail.argmax(-1).tolist() == continuation


def requests(seed: int = 1) -> list[Request]:
    """Two subjects with a prefix each, questions of several choices, and a loner."""
    rng = random.Random(seed)

    def some(n: int) -> list[int]:
        return [rng.randrange(VOCAB) for _ in range(n)]

    found: list[Request] = [(some(3), some(4)), (some(1), some(1))]
    start = some(2)
    for _ in range(2):
        subject = start + some(22)
        for _ in range(4):
            question = subject + some(rng.randrange(1, 9))
            found += [(question, [c]) for c in (3, 4, 5, 6)]
            found += [(question, some(rng.randrange(2, 5))) for _ in range(2)]
    rng.shuffle(found)
    return found


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("batch_tokens", [None, 24])
def test_equals_a_plain_forward(name: str, batch_tokens: int | None) -> None:
    model = tiny(name)
    asked = requests()
    # One continuation that is greedy for certain.
    context = asked[0][0]
    with torch.no_grad():
        asked.append((context, [int(model(torch.tensor([list(context)])).logits[0, -1].argmax())]))
    got = loglikelihoods(model, asked, batch_tokens=batch_tokens)
    want = [plain(model, r) for r in asked]
    assert [g for _, g in got] == [w for _, w in want]
    assert got[-1][1]
    assert [v for v, _ in got] == pytest.approx([v for v, _ in want], abs=1e-5)
    assert max(v for v, _ in want) - min(v for v, _ in want) > 3  # not all the same


def test_each_prefix_runs_once_and_choices_share_a_row() -> None:
    model = tiny("llama")
    tokens: list[int] = []
    scored: list[int] = []
    model.model.register_forward_pre_hook(
        lambda m, a, kw: tokens.append(kw["input_ids"].numel()), with_kwargs=True
    )
    model.lm_head.register_forward_pre_hook(lambda m, a: scored.append(a[0].numel() // 32))
    rng = random.Random(0)
    subject = [rng.randrange(VOCAB) for _ in range(40)]
    asked = [([*subject, 10 + q, 7, 8], [c]) for q in range(10) for c in (1, 2, 3, 4)]
    loglikelihoods(model, asked)
    assert tokens == [40, 30]  # 40 requests of 43 tokens are 1,720 tokens
    assert scored == [1, 10]


def test_overlong_requests_lose_the_left_and_are_counted() -> None:
    model = tiny("gpt2")
    rng = random.Random(2)
    long = [rng.randrange(VOCAB) for _ in range(70)]
    asked: list[Request] = [(long, [4, 5]), (long, [4]), (long[:63], [4, 5]), (long[:64], [4, 5])]
    assert overlong(model, asked) == 3
    got = loglikelihoods(model, asked)
    assert [v for v, _ in got] == pytest.approx([plain(model, r)[0] for r in asked], abs=1e-5)
    with pytest.raises(ValueError, match="request 1: the continuation"):
        loglikelihoods(model, [([1], [2]), ([1], [2] * 65)])


def test_edges() -> None:
    model = tiny("llama")
    assert loglikelihoods(model, []) == []
    assert loglikelihoods(model, [([1, 2], [])]) == [(0.0, True)]
    with pytest.raises(ValueError, match="request 0 has no context"):
        loglikelihoods(model, [([], [1])])
    seen: list[tuple[float, float]] = []
    loglikelihoods(model, requests(), progress=lambda d, t, note="": seen.append((d, t)))
    assert seen == sorted(seen) and seen[-1] == (50, 50)


SMALL = tiny("gemma3")


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 1),
            st.integers(0, 30),
            st.lists(st.integers(0, 2), max_size=3),
            st.lists(st.integers(0, 2), min_size=1, max_size=3),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_mixture_of_prefixes(shapes: list[tuple[int, int, list[int], list[int]]]) -> None:
    stems = ([7 + i % 5 for i in range(30)], [7 + i % 3 for i in range(30)])
    asked = [([1, *stems[s][:n], *more], tail) for s, n, more, tail in shapes]
    got = loglikelihoods(SMALL, asked, batch_tokens=40)
    want = [plain(SMALL, r) for r in asked]
    assert [v for v, _ in got] == pytest.approx([v for v, _ in want], abs=1e-5)
