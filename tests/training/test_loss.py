from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from epigone.training import loss as loss_module
from epigone.training.blocks import Block, Piece
from epigone.training.loop import micro_batches
from epigone.training.loss import supervised_loss

CPU = torch.device("cpu")


def pieces(count: int, seed: int = 1) -> list[Piece]:
    made = []
    g = torch.Generator().manual_seed(seed)
    for _ in range(count):
        n = int(torch.randint(4, 20, (), generator=g))
        ids = tuple(torch.randint(3, 128, (n,), generator=g).tolist())
        mask = [False, *(torch.rand(n - 1, generator=g) < 0.6).tolist()]
        mask[-1] = True
        made.append(Piece(ids, tuple(mask)))
    return made


def plain(model: Any, many: list[Piece]) -> torch.Tensor:
    """Token-mean loss with one ordinary forward per piece: no packing, every logit computed."""
    total, n = torch.zeros(()), 0
    for piece in many:
        ids = torch.tensor([piece.ids])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        mask = torch.tensor(piece.supervised[1:])
        losses = cross_entropy(logits, ids[0, 1:], reduction="none")
        total = total + losses[mask].sum()
        n += int(mask.sum())
    return total / n


def packed(model: Any, blocks: list[Block], length: int) -> torch.Tensor:
    return summed(model, micro_batches(blocks, length, "token-mean", CPU))


def summed(model: Any, parts: list[Any]) -> torch.Tensor:
    return torch.stack([supervised_loss(model, *p) for p in parts]).sum()


def gradients(model: Any, loss: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
    model.zero_grad()
    loss().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_packed_equals_one_by_one_in_loss_and_gradient(tiny: Any) -> None:
    many = pieces(6)
    blocks = [Block(tuple(many[:3])), Block(tuple(many[3:]))]
    a, b = plain(tiny, many), packed(tiny, blocks, 64)
    assert b.item() == pytest.approx(a.item(), rel=1e-6)
    one_by_one = gradients(tiny, lambda: plain(tiny, many))
    for x, y in zip(one_by_one, gradients(tiny, lambda: packed(tiny, blocks, 64)), strict=True):
        torch.testing.assert_close(y, x, rtol=1e-4, atol=1e-6)


def test_a_packed_neighbour_changes_nothing(tiny: Any) -> None:
    first, second, other = pieces(3)
    ids = slice(0, first.targets)
    del ids
    alone = packed(tiny, [Block((first,))], 64) * first.targets
    with_second = packed(tiny, [Block((second, first))], 64) * (first.targets + second.targets)
    with_other = packed(tiny, [Block((other, first))], 64) * (first.targets + other.targets)
    only_second = packed(tiny, [Block((second,))], 64) * second.targets
    only_other = packed(tiny, [Block((other,))], 64) * other.targets
    assert (with_second - only_second).item() == pytest.approx(alone.item(), rel=1e-5)
    assert (with_other - only_other).item() == pytest.approx(alone.item(), rel=1e-5)


@pytest.mark.parametrize("tokens", [16, 64, 1024])
@pytest.mark.parametrize("kind", ["token-mean", "row-mean"])
def test_any_split_into_micro_batches_gives_the_same_gradient(
    tiny: Any, tokens: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = [Block((p,)) for p in pieces(5)]
    whole = list(micro_batches(blocks, 32, kind, CPU))
    assert len(whole) == 1
    expected = gradients(tiny, lambda: summed(tiny, whole))
    monkeypatch.setattr("epigone.training.loop.MICRO_TOKENS", tokens)
    parts = micro_batches(blocks, 32, kind, CPU)
    found = gradients(tiny, lambda: summed(tiny, parts))
    for x, y in zip(expected, found, strict=True):
        torch.testing.assert_close(y, x, rtol=1e-4, atol=1e-6)


def test_row_mean_is_the_mean_of_the_rows_means(tiny: Any) -> None:
    many = pieces(3)
    blocks = [Block((p,)) for p in many]
    parts = micro_batches(blocks, 32, "row-mean", CPU)
    found = summed(tiny, parts).item()
    rows = [plain(tiny, [p]).item() for p in many]
    assert found == pytest.approx(sum(rows) / 3, rel=1e-5)


def test_the_heads_chunks_change_nothing(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [Block(tuple(pieces(3)))]
    before = gradients(tiny, lambda: packed(tiny, blocks, 64))
    monkeypatch.setattr(loss_module, "CHUNK_ELEMENTS", 128 * 5)
    after = gradients(tiny, lambda: packed(tiny, blocks, 64))
    for x, y in zip(before, after, strict=True):
        torch.testing.assert_close(y, x, rtol=1e-5, atol=1e-7)


def test_a_scaled_loss_is_refused_because_the_heads_gradient_is_already_taken(tiny: Any) -> None:
    with pytest.raises(RuntimeError, match="unscaled"):
        (packed(tiny, [Block(tuple(pieces(2)))], 64) * 2).backward()


def test_the_heads_loss_and_gradients_are_those_of_cross_entropy() -> None:
    torch.manual_seed(0)
    h = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    y, weights = torch.tensor([0, 6, 3, 3, 1]), torch.rand(5)
    value = loss_module._HeadLoss.apply(h, w, y, weights)
    expected = (cross_entropy(h @ w.t(), y, reduction="none") * weights).sum()
    value.backward()
    got = h.grad.clone(), w.grad.clone()
    h.grad = w.grad = None
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(got[0], h.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got[1], w.grad, rtol=1e-5, atol=1e-6)
