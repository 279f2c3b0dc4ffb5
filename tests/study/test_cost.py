from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    T5Config,
)

from epigone.evaluation.catalogue import TASKS as FOLDER
from epigone.evaluation.catalogue import known_tasks
from epigone.models import sizes
from epigone.study import cost
from epigone.study.cost import Shape
from epigone.study.declare import Recipe
from epigone.study.specs import FeedbackSpec, LoraSpec, ModelSpec, RecipeSpec
from epigone.training.optimizer import OPTIMIZERS

ROWS, LENGTH, TAUGHT = 3, 32, 20
PAPER = Recipe().resolved()
TINY = Shape(10_000, 2_000, 2, 16, 100, 16, 16)

LLAMA = LlamaConfig(
    vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=3,
    num_attention_heads=6, num_key_value_heads=2, head_dim=16, tie_word_embeddings=False,
)  # fmt: skip
GPT2 = GPT2Config(
    vocab_size=97, n_embd=48, n_layer=2, n_head=4, n_positions=64, resid_pdrop=0.0,
    embd_pdrop=0.0, attn_pdrop=0.0,
)  # fmt: skip
GEMMA = Gemma3TextConfig(
    vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=1, head_dim=16, layer_types=["full_attention"] * 2,
)  # fmt: skip
T5 = T5Config(
    vocab_size=97, d_model=48, d_kv=8, d_ff=64, num_layers=2, num_decoder_layers=3, num_heads=4,
    feed_forward_proj="gated-gelu", dropout_rate=0.0, decoder_start_token_id=0,
)  # fmt: skip


def matrices(config: PretrainedConfig, model: Any) -> Shape:
    """The shape of a model, without the norms and biases that no product has."""
    body = sum(
        p.numel()
        for name, p in model.named_parameters()
        if p.ndim == 2 and not any(t in name for t in ("wte", "wpe", "embed", "shared", "lm_head"))
        and "relative_attention_bias" not in name
    )  # fmt: skip
    head = getattr(config, "head_dim", None) or getattr(config, "d_kv", None)
    heads = config.num_attention_heads
    head = head or config.hidden_size // heads
    double = config.is_encoder_decoder
    return Shape(
        parameters=body,
        embeddings=0,
        layers=config.num_decoder_layers if double else config.num_hidden_layers,
        width=config.hidden_size,
        vocabulary=config.vocab_size,
        attention=heads * head,
        kv=(getattr(config, "num_key_value_heads", None) or heads) * head,
        encoder=config.num_hidden_layers if double else 0,
    )


def step(model: Any, *, backward: bool = True) -> None:
    """A forward pass whose logits are made at some positions only, and the backward pass."""
    ids = torch.zeros((ROWS, LENGTH), dtype=torch.long)
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    loss = model.get_output_embeddings()(hidden[:, :TAUGHT]).float().logsumexp(-1).sum()
    if backward:
        loss.backward()


def counted(work: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("config", [LLAMA, GPT2, GEMMA], ids=["llama", "gpt2", "gemma3"])
def test_operations_are_those_that_torch_counts(config: PretrainedConfig) -> None:
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    shape = matrices(config, model)
    tokens, supervised = ROWS * LENGTH, ROWS * TAUGHT
    forward = counted(lambda: step(model, backward=False))
    assert forward == pytest.approx(cost.forward_flops(shape, tokens, supervised, LENGTH), rel=2e-3)
    both = counted(lambda: step(model))
    assert both == pytest.approx(cost.train_flops(shape, tokens, supervised, LENGTH), rel=2e-3)
    for name, p in model.named_parameters():
        # As with adapters: gradients flow through, but none is made of a frozen matrix.
        p.requires_grad_(any(t in name for t in ("wte", "embed_tokens")))
    model.get_output_embeddings().weight.requires_grad_(False)
    model.get_input_embeddings().register_forward_hook(lambda *x: x[2].requires_grad_(True))
    frozen = counted(lambda: step(model))
    lora = cost.train_flops(shape, tokens, supervised, LENGTH, lora=True)
    assert frozen == pytest.approx(lora, rel=2e-3)


def test_operations_of_an_encoder_decoder_are_those_that_torch_counts() -> None:
    model = AutoModelForSeq2SeqLM.from_config(T5, attn_implementation="eager")
    shape = matrices(T5, model)
    half = LENGTH // 2
    ids = torch.zeros((ROWS, half), dtype=torch.long)

    def work() -> None:
        model(input_ids=ids, labels=ids).loss.backward()

    expected = cost.train_flops(shape, ROWS * LENGTH, ROWS * half, LENGTH)
    assert counted(work) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(
    ("name", "tokens", "hours"),
    [
        ("llama-7b", 1.0e12, 82_432),
        ("llama-13b", 1.0e12, 135_168),
        ("llama-30b", 1.4e12, 530_432),
        ("llama-65b", 1.4e12, 1_022_362),
    ],
)
def test_hours_are_near_those_that_llama_took(name: str, tokens: float, hours: int) -> None:
    # Touvron et al. (2023), table 15: hours of A100-80GB, on blocks of 2,048 tokens.
    flops = cost.train_flops(sizes.known()[name], tokens, tokens, 2048)
    assert 0.9 < cost.flop_seconds(flops, cost.A100) / 3600 / hours < 1.45


def test_steps_are_those_of_the_paper_where_every_token_is_taught() -> None:
    whole = 1 / cost.PACKING
    found = cost.training(None, PAPER, [300_000, 150_000_000], whole)
    alone = cost.training(None, PAPER, [300_000], whole)
    assert alone.steps == 5
    assert found.reaches[0].steps == 5
    assert cost.training(None, PAPER, [150_000_000], whole).steps == 2_289
    # Each amount's part ends its own step.
    assert found.steps == 5 + -(-(150_000_000 - 300_000) // 65_536)
    assert found.reaches[0].rate(PAPER) == pytest.approx(2e-3 * 4 / 1000)
    assert found.reaches[1].rate(PAPER) == 2e-3


@given(
    st.lists(st.integers(1, 10**9), min_size=1, max_size=6, unique=True).map(sorted),
    st.sampled_from(["constant", "cosine", "wsd"]),
    st.floats(0.01, 1.0),
)
def test_a_trunk_costs_its_largest_amount_and_runs_apart_their_sum(
    amounts: list[int], schedule: str, share: float
) -> None:
    recipe = PAPER.model_copy(
        update={"schedule": schedule, "decay": 0.1 if schedule == "wsd" else 0.0}
    )
    found = cost.training(TINY, recipe, amounts, share)
    alone = [cost.training(TINY, recipe, [a], share) for a in amounts]
    assert found.apart == pytest.approx(sum(a.flops for a in alone))
    if schedule == "constant":
        assert found.flops == pytest.approx(alone[-1].flops)
        assert found.steps == found.reaches[-1].steps
    elif schedule == "cosine":
        assert found.flops == found.apart
        assert found.steps == sum(a.steps for a in alone)
        assert [r.steps for r in found.reaches] == [a.steps for a in alone]
    else:
        extra = 0.1 * sum(a.flops for a in alone[:-1])
        assert found.flops == pytest.approx(alone[-1].flops + extra)
    steps = [r.steps for r in found.reaches]
    assert steps == sorted(steps)
    assert all(r.tokens == pytest.approx(r.amount / share) for r in found.reaches)


def test_replay_and_kl_cost_what_they_add() -> None:
    plain = cost.training(TINY, PAPER, [1_000_000], 0.8)
    # A quarter of the loss: 32 x 0.25 / 0.75 blocks, rounded up, beside the 32 of the teacher.
    replay = PAPER.model_copy(update={"replay": 0.25})
    more = cost.training(TINY, replay, [1_000_000], 0.8)
    added = plain.steps * 11 * 2048
    assert more.steps == plain.steps
    assert more.tokens == pytest.approx(plain.tokens + added)
    assert more.flops == pytest.approx(plain.flops + cost.train_flops(TINY, added, added, 2048))
    kl = cost.training(TINY, PAPER.model_copy(update={"kl": 0.1}), [1_000_000], 0.8)
    assert kl.flops == pytest.approx(plain.flops * 4 / 3)


@pytest.mark.parametrize("optimizer", ["parameter-scaled", "adamw"])
def test_state_takes_the_bytes_that_the_optimiser_holds(optimizer: str) -> None:
    model = torch.nn.Linear(64, 64, bias=False)
    recipe = PAPER.model_copy(update={"optimizer": optimizer, "precision": "fp32"})
    state = OPTIMIZERS[optimizer](dict(model.named_parameters()), recipe).state()
    held = sum(t.nbytes for t in state.values() if t.ndim) + 2 * model.weight.nbytes
    shape = Shape(64 * 64, 0, 1, 0, 1, 1, 1)
    assert cost.train_memory(shape, recipe) == held


def test_llama_13b_fits_eight_a100_but_not_one_h200() -> None:
    shape = sizes.known()["llama-13b"]
    assert cost.train_memory(shape, PAPER) > 14 * 13.0e9 > cost.H200.memory
    assert cost.train_memory(shape, PAPER, 8) < cost.A100.memory / 2
    assert cost.train_memory(sizes.known()["llama-7b"], PAPER) < cost.H200.memory
    lora = PAPER.model_copy(update={"lora": LoraSpec(rank=16, alpha=32), "optimizer": "adamw"})
    activations = cost.ACTIVATION_BYTES * 2048 * shape.width * shape.layers
    assert cost.train_memory(shape, lora) == 2 * shape.parameters + activations
    held = PAPER.model_copy(update={"kl": 0.1, "decay_to_base": 0.1})
    assert cost.state_bytes(held) == 14 + 2 + 4
    assert cost.state_bytes(held.model_copy(update={"precision": "fp32"})) == 14 + 4 + 4
    assert cost.run_memory(shape) < cost.A100.memory


def test_writing_is_bound_by_reading_the_weights_or_by_starting_kernels() -> None:
    large = sizes.known()["llama-65b"]
    one = cost.answer_seconds(large, cost.A100, 1, 1, 100) - cost.answer_seconds(
        large, cost.A100, 1, 1, 0
    )
    weights = 2 * (large.parameters - large.embeddings + 32_000 * 8_192)
    assert one == pytest.approx(100 * weights / (2.039e12 * 0.6), rel=0.01)
    small = sizes.known()["smollm2-135m"]
    writing = cost.answer_seconds(small, cost.A100, 65, 1, 100) - cost.answer_seconds(
        small, cost.A100, 65, 1, 0
    )
    # 65 rows are two batches.
    assert writing == pytest.approx(2 * 100 * 30 * cost.LAUNCH_SECONDS)


def test_feedback_counts_both_answers_and_the_model_before() -> None:
    spec = FeedbackSpec(
        method="dpo", base=ModelSpec(kind="base", name="b"), sources=(), lr=1e-6, epochs=2
    )
    shape = Shape(1_000, 0, 0, 0, 0, 0, 0)
    # 300 rows of 400 bytes are 200 tokens a row as two sequences.
    assert cost.feedback_flops(shape, spec, 300, 300 * 400) == (2 * 6 + 2) * 1_000 * 60_000
    revise = spec.model_copy(update={"method": "revise", "block": 50})
    assert cost.feedback_flops(shape, revise, 300, 300 * 400) == 2 * 6 * 1_000 * 15_000


def test_every_benchmark_has_its_size() -> None:
    assert cost.TASKS.keys() == known_tasks().keys()

    def rows(*names: str) -> list[dict[str, Any]]:
        return [json.loads(r) for n in names for r in (FOLDER / n).read_text().splitlines()]

    def test_files(folder: str) -> list[str]:
        return [str(p.relative_to(FOLDER)) for p in sorted(Path(FOLDER, folder).glob("*_test*"))]

    facts, choices = rows("facts/facts.jsonl"), rows(*test_files("choices/data"))
    assert cost.TASKS["facts"].items == len(facts)
    assert cost.TASKS["choices"].items == len(choices)
    shots = "".join(
        f"Q: {r['question']}\nA: {r['answer'][0]}\n\n" for r in rows("facts/facts_shots.jsonl")
    )
    characters = len(shots) + sum(len(f"Q: {r['question']}\nA:") for r in facts) / len(facts)
    assert 2.5 < characters / cost.TASKS["facts"].prompt < 5
    question = sum(len(r["question"]) + sum(map(len, r["choices"])) + 27 for r in choices)
    assert 2.5 < 6 * question / len(choices) / cost.TASKS["choices"].prompt < 5


def test_a_warm_up_in_tokens_is_counted_in_supervised_ones() -> None:
    recipe: RecipeSpec = PAPER.model_copy(update={"warmup": 100_000.0, "warmup_unit": "tokens"})
    per_step = 32 * 2048 * cost.PACKING * 0.5
    assert cost.warmup_steps(recipe, 10, per_step) == -(-100_000 // per_step)
    share = PAPER.model_copy(update={"warmup": 0.1, "warmup_unit": "fraction"})
    assert cost.warmup_steps(share, 95, per_step) == 10
