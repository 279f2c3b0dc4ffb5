"""Encoder-decoders: batches equal one prompt at a time through transformers, T5 and BART."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BartConfig, BartForConditionalGeneration, T5ForConditionalGeneration

from epigone.errors import ModelError
from epigone.models.chat import exchanges, source_ids, stop_ids, stop_texts
from epigone.models.encoder_decoder import start_id, stated_limit
from epigone.models.generate import generate
from epigone.models.likelihood import Request
from epigone.models.load import load
from epigone.models.score import loglikelihoods, overlong
from epigone.schema import Message

VOCAB = 100


@pytest.fixture(scope="module")
def t5(tiny_t5: Path) -> Any:
    # Double, so that what padding does to the order of sums is not measured.
    return load(tiny_t5, "fp32").model.double()


@pytest.fixture(scope="module")
def eager(tiny_t5: Path) -> Any:
    model: Any = T5ForConditionalGeneration.from_pretrained(tiny_t5, attn_implementation="eager")
    return model.eval().double()


def bart() -> Any:
    """A BART with learned positions, of which it has 24."""
    torch.manual_seed(3)
    model: Any = BartForConditionalGeneration(
        BartConfig(
            vocab_size=VOCAB, d_model=32, encoder_layers=2, decoder_layers=2,
            encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=48,
            decoder_ffn_dim=48, max_position_embeddings=24, forced_eos_token_id=None,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(10.0)
    return model


def some(rng: random.Random, n: int) -> list[int]:
    return [rng.randrange(3, VOCAB) for _ in range(n)]


def prompts(n: int, seed: int = 3) -> list[list[int]]:
    rng = random.Random(seed)
    return [[*some(rng, rng.choice([1, 2, 5, 11, 23])), 1] for _ in range(n)]


def one_by_one(model: Any, prompt: list[int], n: int) -> list[int]:
    out: list[int] = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        num_beams=1,
        max_new_tokens=n,
        eos_token_id=None,
    )[0, 1:].tolist()
    return out


def upto(ids: list[int], stops: frozenset[int]) -> list[int]:
    return list(itertools.takewhile(lambda t: t not in stops, ids))


def test_generation_equals_one_by_one(t5: Any, eager: Any) -> None:
    asked = prompts(9)
    said = [one_by_one(eager, p, 16) for p in asked]
    assert len({tuple(s) for s in said}) > 4  # the model does say different things
    stops = frozenset({said[0][4], said[1][10]})
    got = generate(t5, asked, max_new_tokens=16, stop_ids=stops, batch_rows=4)
    assert [list(g.ids) for g in got] == [upto(s, stops) for s in said]
    assert {"end"} <= {g.stop for g in got}
    assert all((g.stop == "length") == (len(g.ids) == 16) for g in got)
    assert got == generate(t5, asked, max_new_tokens=16, stop_ids=stops)


def test_rows_leave_and_sources_are_read_once(t5: Any) -> None:
    read: list[tuple[int, ...]] = []
    written: list[tuple[int, ...]] = []
    hooks = [
        half.register_forward_pre_hook(
            lambda m, a, kw, to=to: to.append(tuple(kw["input_ids"].shape)), with_kwargs=True
        )
        for half, to in ((t5.encoder, read), (t5.decoder, written))
    ]
    asked = prompts(6)
    free = generate(t5, asked, max_new_tokens=12, stop_ids=frozenset())
    read.clear()
    written.clear()
    stops = frozenset({free[0].ids[2], free[1].ids[5]})
    got = generate(t5, asked, max_new_tokens=12, stop_ids=stops)
    for hook in hooks:
        hook.remove()
    assert read == [(6, max(map(len, asked)))]
    # A row is run once for each of its ids, and once for its end.
    steps = [sum(len(g.ids) + (g.stop == "end") > k for g in got) for k in range(12)]
    assert written == [(n, 1) for n in steps if n]
    assert min(steps) < 6


def test_stop_texts_limits_and_progress(t5: Any, tiny_t5: Path) -> None:
    tokenizer = load(tiny_t5, "fp32").tokenizer
    asked = prompts(6)
    free = generate(t5, asked, max_new_tokens=20, stop_ids=frozenset(), tokenizer=tokenizer)
    text = max((g.text or "" for g in free), key=len)
    stop = text[3:6]
    seen: list[float] = []
    cut = generate(
        t5, asked, max_new_tokens=20, stop_ids=frozenset(), tokenizer=tokenizer, stop_texts=[stop],
        batch_rows=2, progress=lambda done, total, note="": seen.append(done / total),
    )  # fmt: skip
    assert stop and any(g.stop == "text" for g in cut)
    for whole, got in zip(free, cut, strict=True):
        assert got.text == (whole.text or "").split(stop)[0]
        assert (got.stop == "text") == (stop in (whole.text or ""))
    assert seen == sorted(seen) and seen[-1] == 1.0
    assert generate(t5, [], max_new_tokens=3, stop_ids=frozenset()) == []
    assert generate(t5, [[5]], max_new_tokens=0, stop_ids=frozenset())[0].ids == ()
    with pytest.raises(ModelError, match="prompt 1 "):
        generate(t5, [[5], []], max_new_tokens=1, stop_ids=frozenset())


def test_a_model_with_positions_ends_at_them() -> None:
    model = bart()
    asked = [[0, *p[:20], 2] for p in prompts(5)]
    said = [one_by_one(model, p, 10) for p in asked]
    got = generate(model, asked, max_new_tokens=10, stop_ids=frozenset())
    assert [list(g.ids) for g in got] == said
    assert len({tuple(s) for s in said}) > 2
    long = generate(model, [[5] * 24], max_new_tokens=40, stop_ids=frozenset())[0]
    assert (len(long.ids), long.stop) == (24, "length")
    with pytest.raises(ModelError, match="context of 24 tokens"):
        generate(model, [[5] * 25], max_new_tokens=1, stop_ids=frozenset())
    contexts: list[Request] = [([5] * 30, [7, 8]), ([5] * 24, [7, 8])]
    assert overlong(model, contexts) == 1
    first, second = loglikelihoods(model, contexts)
    assert first == second
    assert first[0] == pytest.approx(plain(model, contexts[1])[0], abs=1e-5)
    with pytest.raises(ValueError, match="request 0: the continuation"):
        loglikelihoods(model, [([1], [2] * 25)])


def plain(model: Any, request: Request) -> tuple[float, bool]:
    """One full forward, log_softmax everywhere."""
    context, continuation = list(request[0]), list(request[1])
    with torch.no_grad():
        logits = model(
            input_ids=torch.tensor([context]),
            decoder_input_ids=torch.tensor([[start_id(model), *continuation[:-1]]]),
            use_cache=False,
        ).logits[0]
    table = logits.double().log_softmax(-1)
    value = sum(float(table[i, t]) for i, t in enumerate(continuation))
    return value, table.argmax(-1).tolist() == continuation


def requests(seed: int = 1) -> list[Request]:
    """Questions of several choices, of one token and of more, in no order."""
    rng = random.Random(seed)
    found: list[Request] = [(some(rng, 1), some(rng, 1))]
    for length in (3, 9, 9, 31):
        question = some(rng, length)
        found += [(question, [c]) for c in (3, 4, 5, 6)]
        found += [(question, some(rng, rng.randrange(2, 6))) for _ in range(3)]
    rng.shuffle(found)
    return found


@pytest.mark.parametrize("batch_tokens", [None, 24])
def test_scores_equal_a_plain_forward(t5: Any, eager: Any, batch_tokens: int | None) -> None:
    asked = requests()
    greedy = one_by_one(eager, list(asked[0][0]), 3)
    asked += [(asked[0][0], greedy), (asked[0][0], [*greedy[:2], greedy[2] ^ 1])]
    got = loglikelihoods(t5, asked, batch_tokens=batch_tokens)
    want = [plain(eager, r) for r in asked]
    assert [g for _, g in got] == [w for _, w in want]
    assert (got[-2][1], got[-1][1]) == (True, False)
    assert [v for v, _ in got] == pytest.approx([v for v, _ in want], abs=1e-5)
    assert max(v for v, _ in want) - min(v for v, _ in want) > 3  # not all the same


def test_a_context_is_read_once_and_choices_share_a_row(t5: Any) -> None:
    read: list[int] = []
    written: list[tuple[int, ...]] = []
    hooks = [
        t5.encoder.register_forward_pre_hook(
            lambda m, a, kw: read.append(len(kw["input_ids"])), with_kwargs=True
        ),
        t5.decoder.register_forward_pre_hook(
            lambda m, a, kw: written.append(tuple(kw["input_ids"].shape)), with_kwargs=True
        ),
    ]
    loglikelihoods(t5, [([10 + q, 7, 1], [c]) for q in range(10) for c in (3, 4, 5, 6)])
    for hook in hooks:
        hook.remove()
    assert read == [10]
    assert written == [(10, 1)]


def test_edges_of_scoring(t5: Any) -> None:
    assert loglikelihoods(t5, []) == []
    assert loglikelihoods(t5, [([1, 2], [])]) == [(0.0, True)]
    with pytest.raises(ValueError, match="request 0 has no context"):
        loglikelihoods(t5, [([], [1])])
    seen: list[tuple[float, float]] = []
    asked = requests()
    loglikelihoods(t5, asked, progress=lambda d, t, note="": seen.append((d, t)))
    assert seen == sorted(seen) and seen[-1] == (len(asked), len(asked))


SMALL = bart()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(3, 5), min_size=1, max_size=8),
            st.lists(st.integers(3, 5), min_size=1, max_size=4),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_mixture_of_lengths(asked: list[tuple[list[int], list[int]]]) -> None:
    got = loglikelihoods(SMALL, asked, batch_tokens=20)
    assert [v for v, _ in got] == pytest.approx([plain(SMALL, r)[0] for r in asked], abs=1e-5)


def test_what_a_model_says_of_its_longest_input(t5: Any, tiny_t5: Path) -> None:
    tokenizer = load(tiny_t5, "fp32").tokenizer
    assert stated_limit(t5, tokenizer) is None
    tokenizer.model_max_length = 512
    assert stated_limit(t5, tokenizer) == 512
    assert stated_limit(bart(), tokenizer) == 24


def test_what_is_learned_from_exchanges_is_what_is_said(tiny_t5: Path) -> None:
    torch.manual_seed(0)
    loaded = load(tiny_t5, train=True)
    model, tokenizer = loaded.model, loaded.tokenizer
    talk = (
        Message("user", "Why glass?"),
        Message("assistant", "1 glass\n2 bread"),
        Message("user", "And?\nMore."),
        Message("assistant", "A rivers"),
    )
    # A tokenizer trained by several threads differs from run to run: at 1e-2, one in ten diverges.
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(100):
        for e in exchanges(tokenizer, talk):
            loss = model(input_ids=torch.tensor([e.source]), labels=torch.tensor([e.target])).loss
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    said = generate(
        model,
        [source_ids(tokenizer, talk[:1]), source_ids(tokenizer, talk[:3])],
        max_new_tokens=40,
        stop_ids=stop_ids(tokenizer),
        stop_texts=stop_texts(tokenizer),
        tokenizer=tokenizer,
    )
    assert [(s.text, s.stop) for s in said] == [("1 glass\n2 bread", "end"), ("A rivers", "end")]
