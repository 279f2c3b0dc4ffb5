from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from epigone.study.declare import Recipe
from epigone.study.specs import RecipeSpec
from epigone.training import loss as loss_module
from epigone.training.blocks import Block, Piece
from epigone.training.data import micro_batches
from epigone.training.loss import plain_head, supervised_loss
from epigone.training.schedule import Batch


def recipe(**settings: Any) -> RecipeSpec:
    return Recipe().resolved().model_copy(update=settings)


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


def nll(model: Any, many: list[Piece]) -> tuple[torch.Tensor, int]:
    """Sum of losses with one ordinary forward per piece: no packing, every logit computed."""
    total, n = torch.zeros(()), 0
    for piece in many:
        ids = torch.tensor([piece.ids])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        mask = torch.tensor(piece.supervised[1:])
        losses = cross_entropy(logits, ids[0, 1:], reduction="none")
        total = total + losses[mask].sum()
        n += int(mask.sum())
    return total, n


def plain(model: Any, many: list[Piece]) -> torch.Tensor:
    total, n = nll(model, many)
    return total / n


def blocks_of(many: list[Piece], size: int = 3) -> tuple[Block, ...]:
    return tuple(Block(tuple(many[i : i + size])) for i in range(0, len(many), size))


def found(
    model: Any, blocks: tuple[Block, ...], tokens: int = 4096, base: Any = None, **settings: Any
) -> torch.Tensor:
    text = settings.pop("text", ())
    parts = [
        supervised_loss(model, micro, plain=True, direct=True, base=base)[0]
        for micro in micro_batches(Batch(blocks, None, text), recipe(**settings), tokens)
    ]
    return torch.stack(parts).sum()


def gradients(model: Any, loss: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
    model.zero_grad()
    loss().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(y, x, rtol=1e-4, atol=1e-6)


def test_packed_equals_one_by_one_in_loss_and_gradient(tiny: Any) -> None:
    many = pieces(6)
    assert found(tiny, blocks_of(many)).item() == pytest.approx(plain(tiny, many).item(), rel=1e-6)
    same(
        gradients(tiny, lambda: plain(tiny, many)),
        gradients(tiny, lambda: found(tiny, blocks_of(many))),
    )


def test_a_packed_neighbour_changes_nothing(tiny: Any) -> None:
    first, second, other = pieces(3)

    def total(*own: Piece) -> float:
        block = Block(own)
        return float(found(tiny, (block,)).detach()) * block.targets

    alone = total(first)
    assert total(second, first) - total(second) == pytest.approx(alone, rel=1e-5)
    assert total(other, first) - total(other) == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("tokens", [16, 64])
@pytest.mark.parametrize("kind", ["token-mean", "row-mean"])
def test_any_split_into_micro_batches_gives_the_same_gradient(
    tiny: Any, tokens: int, kind: str
) -> None:
    blocks = blocks_of(pieces(5), 1)
    assert len(list(micro_batches(Batch(blocks, None), recipe(loss=kind), 4096))) == 1
    whole = gradients(tiny, lambda: found(tiny, blocks, loss=kind))
    same(whole, gradients(tiny, lambda: found(tiny, blocks, tokens, loss=kind)))


@pytest.mark.parametrize("kind", ["token-mean", "row-mean"])
def test_all_rows_in_one_give_the_same_gradient(tiny: Any, kind: str) -> None:
    batch, asked = Batch(blocks_of(pieces(7)), None), recipe(loss=kind)

    def loss(flat: bool) -> torch.Tensor:
        (micro,) = micro_batches(batch, asked, 4096, flat=flat)
        assert micro.ids.shape[0] == (1 if flat else 3)
        return supervised_loss(tiny, micro, plain=True, direct=True)[0]

    assert (
        sum(b.width for b in batch.blocks)
        == next(micro_batches(batch, asked, 4096, flat=True)).ids.numel()
    )
    same(gradients(tiny, lambda: loss(False)), gradients(tiny, lambda: loss(True)))


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_any_split_over_ranks_gives_the_same_sum_in_the_same_number_of_parts(
    tiny: Any, ranks: int
) -> None:
    batch = Batch(blocks_of(pieces(5), 1), None, blocks_of(pieces(2, 7), 1))
    asked = recipe(replay=0.3)

    def losses(rank: int, of: int) -> list[float]:
        parts = micro_batches(batch, asked, 16, (rank, of))
        return [
            float(supervised_loss(tiny, m, plain=True, direct=False)[0].detach()) for m in parts
        ]

    split = [losses(rank, ranks) for rank in range(ranks)]
    assert len({len(own) for own in split}) == 1
    assert sum(map(sum, split)) == pytest.approx(sum(losses(0, 1)), rel=1e-6)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(("ranks", "tokens", "each"), [(4, 4096, 1), (3, 60, 2), (1, 30, 8)])
def test_every_rank_has_as_much_to_do(ranks: int, tokens: int, each: int, flat: bool) -> None:
    # Twelve rows of 10 tokens.
    blocks = tuple(Block((Piece((5,) * 10, b"\0" + b"\1" * 9),)) for _ in range(12))
    work = [
        [
            m.ids.numel()
            for m in micro_batches(Batch(blocks, None), recipe(), tokens, (r, ranks), flat=flat)
        ]
        for r in range(ranks)
    ]
    assert all(len(own) <= each for own in work)
    assert max(map(max, work)) <= tokens
    # No rank computes rows that weigh nothing.
    assert sum(map(sum, work)) == 120


def test_row_mean_is_the_mean_of_the_rows_means(tiny: Any) -> None:
    many = pieces(3)
    rows = [plain(tiny, [p]).item() for p in many]
    mean = found(tiny, blocks_of(many, 1), loss="row-mean").item()
    assert mean == pytest.approx(sum(rows) / 3, rel=1e-5)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_plain_text_has_its_share_of_the_loss_whatever_its_length(tiny: Any, share: float) -> None:
    teacher, text = pieces(4), pieces(3, 9)
    expected = (1 - share) * plain(tiny, teacher) + share * plain(tiny, text)
    value = found(tiny, blocks_of(teacher), replay=share, text=blocks_of(text, 1))
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_divergence_is_that_of_the_base_from_the_student_on_the_teachers_tokens(
    tiny: Any,
) -> None:
    base = copy.deepcopy(tiny).eval()
    with torch.no_grad():
        for p in base.parameters():
            p.add_(0.05 * torch.randn_like(p))
    many = pieces(4)

    def expected() -> torch.Tensor:
        total, n = nll(tiny, many)
        for piece in many:
            ids = torch.tensor([piece.ids])
            mask = torch.tensor(piece.supervised[1:])
            q, p = (
                log_softmax(m(input_ids=ids, use_cache=False).logits[0, :-1][mask], dim=1)
                for m in (tiny, base)
            )
            total = total + 0.3 * kl_div(q, p.detach(), reduction="sum", log_target=True)
        return total / n

    def own() -> torch.Tensor:
        return found(tiny, blocks_of(many), kl=0.3, base=base)

    assert own().item() == pytest.approx(expected().item(), rel=1e-5)
    same(gradients(tiny, expected), gradients(tiny, own))
    assert all(p.grad is None for p in base.parameters())


def test_there_is_no_divergence_from_oneself(tiny: Any) -> None:
    blocks = blocks_of(pieces(4))
    base = copy.deepcopy(tiny)
    with_kl = found(tiny, blocks, kl=10.0, base=base).item()
    assert with_kl == pytest.approx(found(tiny, blocks).item(), rel=1e-6)


@pytest.mark.parametrize("kl", [0.0, 0.3])
def test_every_way_to_the_loss_gives_the_same_gradient(
    tiny: Any, kl: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = copy.deepcopy(tiny)
    with torch.no_grad():
        base.get_output_embeddings().weight.mul_(1.5)
    (micro,) = micro_batches(Batch(blocks_of(pieces(3)), None), recipe(kl=kl), 4096)

    def way(**named: bool) -> Callable[[], torch.Tensor]:
        return lambda: supervised_loss(tiny, micro, base=base if kl else None, **named)[0]

    direct = gradients(tiny, way(plain=True, direct=True))
    same(direct, gradients(tiny, way(plain=True, direct=False)))
    same(direct, gradients(tiny, way(plain=False, direct=False)))
    monkeypatch.setattr(loss_module, "CHUNK_ELEMENTS", 128 * 5)
    same(direct, gradients(tiny, way(plain=True, direct=True)))
    same(direct, gradients(tiny, way(plain=False, direct=False)))


def test_logits_behind_another_head_are_made_in_chunks_and_again_for_the_gradient(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny.config, "final_logit_softcapping", 2.0, raising=False)
    (micro,) = micro_batches(Batch(blocks_of(pieces(3)), None), recipe(), 4096)
    sizes: list[int] = []
    whole = loss_module.finished

    def watched(model: Any, hidden: torch.Tensor) -> torch.Tensor:
        sizes.append(len(hidden))
        return whole(model, hidden)

    monkeypatch.setattr(loss_module, "finished", watched)

    def loss() -> torch.Tensor:
        return supervised_loss(tiny, micro, plain=plain_head(tiny), direct=True)[0]

    at_once = gradients(tiny, loss)
    assert sizes == [len(micro.weights)]
    sizes.clear()
    monkeypatch.setattr(loss_module, "CHUNK_ELEMENTS", 128 * 5)
    same(at_once, gradients(tiny, loss))
    assert max(sizes) == 5
    assert sum(sizes) == 2 * len(micro.weights)


def test_a_scaled_loss_is_refused_because_the_heads_gradient_is_already_taken(tiny: Any) -> None:
    with pytest.raises(RuntimeError, match="unscaled"):
        (found(tiny, blocks_of(pieces(2))) * 2).backward()


def test_the_heads_loss_and_gradients_are_those_of_cross_entropy() -> None:
    torch.manual_seed(0)
    h = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    y, weights = torch.tensor([0, 6, 3, 3, 1]), torch.rand(5)
    value, _ = loss_module._HeadLoss.apply(h, w, y, weights, None, True)
    expected = (cross_entropy(h @ w.t(), y, reduction="none") * weights).sum()
    value.backward()
    got = h.grad.clone(), w.grad.clone()
    h.grad = w.grad = None
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(got[0], h.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got[1], w.grad, rtol=1e-5, atol=1e-6)
