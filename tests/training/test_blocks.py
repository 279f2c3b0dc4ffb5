from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from epigone.models.chat import Tokens
from epigone.training.blocks import BlockStats, Piece, cut, pack

MASKS = st.lists(st.booleans(), min_size=1, max_size=60)


@given(MASKS, st.integers(2, 20))
def test_cutting_loses_no_supervised_token_without_a_count(mask: list[bool], block: int) -> None:
    stats = BlockStats()
    tokens = Tokens(list(range(len(mask))), mask)
    pieces = cut(tokens, block, stats)
    assert sum(p.targets for p in pieces) + stats.supervised_lost == sum(mask)
    assert sum(len(p.ids) for p in pieces) + stats.unsupervised_dropped == len(mask)


@given(MASKS, st.integers(2, 20))
def test_pieces_are_in_order_and_end_with_a_target(mask: list[bool], block: int) -> None:
    pieces = cut(Tokens(list(range(len(mask))), mask), block, BlockStats())
    flat = [i for p in pieces for i in p.ids]
    assert flat == sorted(flat)
    for piece in pieces:
        assert len(piece.ids) <= block
        assert piece.supervised[-1]
        assert not piece.supervised[0]
        for i, s in zip(piece.ids, piece.supervised, strict=True):
            assert not s or mask[i]


def test_only_the_first_token_of_a_continued_piece_is_lost() -> None:
    stats = BlockStats()
    pieces = cut(Tokens(list(range(8)), [False] * 2 + [True] * 6), 4, stats)
    assert [p.ids for p in pieces] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert [p.targets for p in pieces] == [2, 3]
    assert stats.supervised_lost == 1


def test_a_conversation_without_targets_gives_no_piece_and_is_counted() -> None:
    stats = BlockStats()
    assert cut(Tokens([1, 2, 3], [False] * 3), 8, stats) == []
    assert stats.without_targets == 1


PIECES = st.lists(
    st.integers(1, 16).map(lambda n: Piece(tuple(range(n)), (False,) * (n - 1) + (True,))),
    max_size=30,
)


@given(PIECES)
def test_packing_keeps_every_piece_once_within_the_block(pieces: list[Piece]) -> None:
    blocks = pack(pieces, 16)
    packed = [p for b in blocks for p in b.pieces]
    assert sorted(map(id, packed)) == sorted(map(id, pieces))
    assert all(sum(len(p.ids) for p in b.pieces) <= 16 for b in blocks)
    # first fit: two blocks that are both at most half full would have been one
    assert sum(sum(len(p.ids) for p in b.pieces) <= 8 for b in blocks) <= 1


@given(PIECES)
def test_packing_is_deterministic(pieces: list[Piece]) -> None:
    assert pack(pieces, 16) == pack(list(pieces), 16)
