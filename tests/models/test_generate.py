"""Greedy generation equals one prompt at a time through transformers, for each model family."""

from __future__ import annotations

import copy
import itertools
import random
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)

from epigone.errors import ModelError
from epigone.models import generate as generation
from epigone.models.generate import generate

VOCAB = 61
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**SIZES),
    "gpt2": GPT2Config(
        vocab_size=VOCAB,
        n_embd=32,
        n_layer=3,
        n_head=4,
        n_positions=96,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "gemma3": Gemma3TextConfig(
        **SIZES,
        head_dim=8,
        sliding_window=7,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "qwen2": Qwen2Config(**SIZES),
    "mistral": MistralConfig(**SIZES, sliding_window=9),
}


def tiny(name: str, config: Any = None) -> Any:
    """A random model whose output depends on its input: weights ten times the usual size."""
    torch.manual_seed(11)
    config = config or CONFIGS[name]
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    with torch.no_grad():
        for name_, p in model.named_parameters():
            if p.ndim > 1:
                p.mul_(10.0 if "wte" not in name_ and "embed" not in name_ else 25.0)
    return model


def long_tiny(name: str) -> Any:
    """The same with 256 positions."""
    config = copy.deepcopy(CONFIGS[name])
    config.max_position_embeddings = 256
    return tiny(name, config)


def one_by_one(model: Any, prompt: list[int], n: int) -> list[int]:
    ids = torch.tensor([prompt])
    out: list[int] = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=n,
        eos_token_id=None,
        pad_token_id=0,
    )[0, len(prompt) :].tolist()
    return out


def upto(ids: list[int], stops: frozenset[int]) -> list[int]:
    return list(itertools.takewhile(lambda t: t not in stops, ids))


def prompts(n: int, shared: int, seed: int = 3) -> list[list[int]]:
    rng = random.Random(seed)
    head = [rng.randrange(3, VOCAB) for _ in range(shared)]
    return [
        head + [rng.randrange(3, VOCAB) for _ in range(rng.choice([1, 2, 5, 11, 23]))]
        for _ in range(n)
    ]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("shared", [0, 20])
def test_equals_one_by_one(name: str, shared: int) -> None:
    model = tiny(name)
    asked = prompts(8, shared)
    said = [one_by_one(model, p, 16) for p in asked]
    stops = frozenset({said[0][4], said[1][10]})
    got = generate(model, asked, max_new_tokens=16, stop_ids=stops, batch_rows=4)
    want = [upto(s, stops) for s in said]
    assert [list(g.ids) for g in got] == want
    assert len({tuple(w) for w in said}) > 4  # the model does say different things
    assert "end" in {g.stop for g in got}
    assert all((g.stop == "length") == (len(g.ids) == 16) for g in got)


def test_a_given_prefix_none_and_the_found_one_agree() -> None:
    model = tiny("gemma3")
    asked = prompts(5, 20)
    runs = [
        generate(model, asked, max_new_tokens=9, stop_ids=frozenset(), prefix=p)
        for p in (None, (), asked[0][:20], asked[0][:3])
    ]
    assert all(r == runs[0] for r in runs)
    with pytest.raises(ValueError, match="prefix"):
        generate(model, asked, max_new_tokens=9, stop_ids=frozenset(), prefix=[VOCAB - 1] * 3)


def test_the_prefix_runs_once_and_rows_leave() -> None:
    model = tiny("llama")
    shapes: list[tuple[int, int]] = []
    model.model.register_forward_pre_hook(
        lambda m, a, kw: shapes.append(tuple(kw["input_ids"].shape)), with_kwargs=True
    )
    asked = [[*prompts(1, 20)[0][:20], t] for t in range(3, 11)]
    got = generate(model, asked, max_new_tokens=12, stop_ids=frozenset({7, 19, 30, 44}))
    assert shapes[:2] == [(1, 20), (8, 1)]
    # After the prefill, each forward holds exactly the rows that are not finished; on a CPU five
    # to fifteen of them are filled up to a faster sixteen.
    steps = [sum(len(g.ids) > k for g in got) for k in range(11)]
    assert shapes[2:] == [(16 if 4 < n < 16 else n, 1) for n in steps if n]
    assert min(steps) < 8


def test_stops_at_the_end_of_the_positions() -> None:
    model = tiny("gpt2")
    got = generate(model, [[5] * 90, [5, 6]], max_new_tokens=40, stop_ids=frozenset())
    assert [len(g.ids) for g in got] == [7, 40]  # positions 90..95 are fed, the last one predicts
    assert got[0].stop == "length"
    with pytest.raises(ModelError, match="prompt 1 "):
        generate(model, [[5], [5] * 96], max_new_tokens=1, stop_ids=frozenset())
    with pytest.raises(ModelError, match="prompt 0 "):
        generate(model, [[]], max_new_tokens=1, stop_ids=frozenset())


class Letters:
    """A tokenizer of one letter a token."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(chr(97 + i % 26) for i in ids)


def test_stop_text_cuts_and_ends_the_row() -> None:
    model = tiny("llama")
    asked = prompts(6, 0)
    full = generate(model, asked, max_new_tokens=24, stop_ids=frozenset(), tokenizer=Letters())
    stop = (full[0].text or "")[5:8]
    cut = generate(
        model,
        asked,
        max_new_tokens=24,
        stop_ids=frozenset(),
        tokenizer=Letters(),
        stop_texts=[stop],
    )
    for whole, got in zip(full, cut, strict=True):
        assert whole.text is not None and len(whole.text) == 24
        assert got.text == whole.text.split(stop)[0]
        assert (got.stop == "text") == (stop in whole.text)
        if got.stop == "text":
            assert len(got.ids) == whole.text.index(stop) + 3
    with pytest.raises(ValueError, match="tokenizer"):
        generate(model, asked, max_new_tokens=1, stop_ids=frozenset(), stop_texts=["a"])


def test_progress_never_falls_and_ends_at_all() -> None:
    seen: list[float] = []
    model = tiny("llama")
    generate(
        model,
        prompts(7, 0),
        max_new_tokens=10,
        stop_ids=frozenset({7, 19, 30}),
        batch_rows=3,
        progress=lambda done, total, note="": seen.append(done / total),
    )
    assert seen == sorted(seen) and seen[-1] == 1.0
    assert generate(model, [], max_new_tokens=3, stop_ids=frozenset()) == []


@pytest.mark.parametrize(("name", "shared"), [("llama", 20), ("gemma3", 0)])
def test_rows_that_outgrow_their_slots_and_leave_little_room(
    name: str, shared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = long_tiny(name)
    asked = prompts(5, shared)
    said = [one_by_one(model, p, 90) for p in asked]
    # Room for three rows of the longest prompt with all that it may write.
    room = 3.5 * 2 * 3 * 2 * 8 * 4 * (max(map(len, asked)) - shared + 90)
    monkeypatch.setattr(generation, "KV_LEAST", room)
    monkeypatch.setattr(generation, "KV_SHARE", 0.0)
    monkeypatch.setattr(generation, "USUAL", 1000)
    seen: list[int] = []
    forward = model.forward

    def counted(*args: Any, **named: Any) -> Any:
        seen.append(len(named["input_ids"]))
        return forward(*args, **named)

    monkeypatch.setattr(model, "forward", counted)
    got = generate(model, asked, max_new_tokens=90, stop_ids=frozenset())
    assert [list(g.ids) for g in got] == said
    assert max(seen) == 3
