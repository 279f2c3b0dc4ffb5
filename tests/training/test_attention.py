from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from epigone.training.attention import BY_PIECE, attend
from epigone.training.loss import Micro, hidden_states
from epigone.training.model import _by_piece


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
    assert _by_piece(tiny)
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


def test_a_model_that_it_would_change_keeps_its_own_attention(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epigone.training.attention.scaled_dot_product_attention",
                        lambda q, k, v, **_: v)  # fmt: skip
    assert not _by_piece(tiny.eval())
    assert tiny.config._attn_implementation == "sdpa"
