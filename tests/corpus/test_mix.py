from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction

import pytest

from epigone.corpus import selection
from epigone.corpus.mix import mix
from epigone.corpus.pieces import pieces
from epigone.corpus.selection import Entry
from epigone.schema import Conversation, Message, Provenance


def rows(counts: list[int]) -> tuple[list[Entry], dict[int, int]]:
    """So many conversations of each source, with tokens by place."""
    rng = random.Random(1)
    entries, tokens = [], {}
    for source, count in enumerate(counts):
        for i in range(count):
            place = len(entries)
            messages = [Message("user", f"q {source} {i}"), Message("assistant", "a")]
            entries.append(
                selection.entry(f"{source}.{i}", messages, part=False, source=source, place=place)
            )
            tokens[place] = rng.randint(1, 100)
    return entries, tokens


def test_without_caps_and_weights_the_order_is_one_shuffle() -> None:
    entries, tokens = rows([30, 20])
    assert mix(entries, tokens, 3).order == selection.in_order(entries, 3)


def test_a_cap_keeps_the_first_of_the_order() -> None:
    entries, tokens = rows([30, 20])
    found = mix(entries, tokens, 0, caps=[0, 5])
    whole = selection.in_order(entries, 0)
    assert found.order == [e for e in whole if e in found.order]
    second = [e for e in whole if e.source == 1]
    assert [e for e in found.order if e.source == 1] == second[:5]
    assert found.over_cap == second[5:]


def test_every_prefix_has_the_shares_of_the_weights() -> None:
    entries, tokens = rows([300, 300, 300])
    weights = [Fraction(1), Fraction(2), Fraction(0)]
    found = mix(entries, tokens, 0, weights=weights)
    given = [0, 0, 0]
    for k, entry in enumerate(found.order, 1):
        given[entry.source] += tokens[entry.place]
        if k > 20:
            # No source is ahead of its share by more than its largest conversation.
            assert abs(2 * given[0] - given[1]) <= 2 * 100
    assert given[2] == 0
    assert len(found.order) + len(found.over_weight) == len(entries)
    # It ends where one source has no more.
    assert {e.source for e in found.over_weight} != {0, 1, 2}


@pytest.mark.parametrize("most", [0, 7, 10, 25, 1000])
def test_pieces_hold_whole_exchanges_and_lose_none(most: int) -> None:
    sizes = [3, 4, 30, 2, 5, 1]
    messages = [Message("system", "s s")]
    for i, n in enumerate(sizes):
        messages += [Message("user", f"q{i}"), Message("assistant", "a " * n)]
    whole = Conversation("c", tuple(messages), Provenance("s", "t"))

    def tokens(of: Sequence[Message]) -> list[int]:
        return [len(m.content.split()) for m in of]

    parts = pieces(whole, tokens(messages), most)
    said = [m for part, _ in parts for m in part.messages if m.role != "system"]
    assert said == [m for m in messages if m.role != "system"]
    assert [n for _, own in parts for n in own] == sizes
    assert len({part.id for part, _ in parts}) == len(parts)
    for part, own in parts:
        assert part.messages[0].role == "system"
        assert part.messages[1].role == "user"
        total = sum(tokens(part.messages))
        assert most == 0 or total <= most or len(own) == 1
    if most == 10:
        assert [own for _, own in parts] == [[3], [4], [30], [2], [5, 1]]
