from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPTNeoConfig, GPTNeoForCausalLM, OPTConfig, OPTForCausalLM

from epigone.training.attention import BY_PIECE, attend
from epigone.training.isolation import _reach, by_piece, isolates
from epigone.training.loss import Micro, hidden_states

from .conftest import llama


@pytest.mark.parametrize("lengths", [(30,), (1, 1, 20), (9, 12, 7, 2)])
def test_flat_pieces_get_the_logits_and_gradients_of_the_pieces_alone(
    tiny: Any, lengths: tuple[int, ...]
) -> None:
    tiny.eval()
    ids = torch.randint(0, 128, (1, sum(lengths)))
    pieces = ids.split(list(lengths), dim=1)
    rows = [tiny(input_ids=p, use_cache=False).logits[0] for p in pieces]
    weights = torch.randn(sum(lengths), 128)

    def gradients(loss: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad(loss, list(tiny.parameters())))

    expected = torch.cat(rows)
    wanted = gradients((expected * weights).sum())
    assert by_piece(tiny, 512)
    assert tiny.config._attn_implementation == BY_PIECE
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    columns = torch.arange(1, sum(lengths) + 1)
    micro = Micro(ids, positions, torch.zeros_like(columns), columns, torch.ones(len(columns)))
    logits = tiny.get_output_embeddings()(hidden_states(tiny, micro))
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)
    for a, b in zip(gradients((logits * weights).sum()), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("causal", "given"),
    [(True, {"softcap": 30.0}), (True, {"s_aux": torch.zeros(2)}), (False, {})],
)
def test_what_it_would_leave_out_is_refused(causal: bool, given: dict[str, Any]) -> None:
    module = nn.Module()
    module.is_causal = causal  # type: ignore[assignment]
    q = torch.randn(1, 2, 4, 8)
    with pytest.raises(ValueError, match="attention by pieces"):
        attend(module, q, q, q, None, **given)


def test_a_window_that_only_masks_know_is_not_lost() -> None:
    model = llama().eval()
    model.config.sliding_window = 16
    assert _reach(model) == 16
    assert not by_piece(model, 17)
    assert model.config._attn_implementation == "sdpa"
    assert by_piece(model, 16)


def test_compiled_layers_keep_masks_and_learn_from_the_same_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EPIGONE_COMPILE", "1")
    model = llama().eval()
    assert not by_piece(model, 64)
    assert model.config._attn_implementation == "sdpa"
    # OPT's masks know nothing of positions.
    torch.manual_seed(0)
    opt = OPTForCausalLM(OPTConfig(vocab_size=128, hidden_size=32, num_hidden_layers=2, ffn_dim=64,
                                   num_attention_heads=2, word_embed_proj_dim=32,
                                   attn_implementation="sdpa")).eval()  # fmt: skip
    assert not isolates(opt)
    assert by_piece(opt, 64)
    assert isolates(opt)


def test_a_model_with_an_attention_of_its_own_keeps_it() -> None:
    config = GPTNeoConfig(vocab_size=128, hidden_size=32, num_layers=2, num_heads=2,
                          attention_types=[[["global", "local"], 1]])  # fmt: skip
    neo = GPTNeoForCausalLM(config).eval()
    before = neo.config._attn_implementation
    assert not by_piece(neo, 64)
    assert neo.config._attn_implementation == before


def test_a_model_that_it_would_change_keeps_its_own_attention(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epigone.training.attention.scaled_dot_product_attention",
                        lambda q, k, v, **_: v)  # fmt: skip
    assert not by_piece(tiny.eval(), 512)
    assert tiny.config._attn_implementation == "sdpa"
