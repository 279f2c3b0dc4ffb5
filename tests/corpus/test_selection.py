from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigone.corpus import selection
from epigone.corpus.selection import Entry
from epigone.schema import Message


def make(row_id: str, *texts: str, part: bool = False) -> Entry:
    messages = [Message(("user", "assistant")[i % 2], t) for i, t in enumerate(texts)]
    return selection.entry(row_id, messages, part=part, source=0, place=0)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Hello  World\n", " hello world", True),
        ("ﬁne Straße", "fine strasse", True),
        ("a\u00a0b", "a b", True),
        ("caf\u00e9", "cafe\u0301", True),
        ("hello world", "hello, world", False),
    ],
)
def test_what_counts_as_one_query(one: str, other: str, same: bool) -> None:
    assert (selection.query_hash(one) == selection.query_hash(other)) is same


entries = st.lists(
    st.tuples(st.sampled_from("pqrs"), st.sampled_from(["a", "bb", "cc"]), st.sampled_from("12")),
    max_size=12,
).map(lambda rows: [make(i, q, a) for q, a, i in rows])


@given(entries, st.randoms(use_true_random=False), st.integers(0, 3))
def test_nothing_depends_on_the_order_of_the_input(
    given_entries: list[Entry], rng: random.Random, seed: int
) -> None:
    def outcome(rows: list[Entry]) -> list[list[tuple[str, str]]]:
        held = selection.hold_out(rows, 2, seed, lambda e: True)
        lists = (selection.in_order(rows, seed), held)
        return [[(e.id, e.content) for e in rows] for rows in lists]

    shuffled = list(given_entries)
    rng.shuffle(shuffled)
    assert outcome(given_entries) == outcome(shuffled)


def test_the_split_does_not_change_for_other_rows_but_by_making_room() -> None:
    rows = [make(str(i), f"query {i}", "a") for i in range(200)]
    few, more = ([e.id for e in selection.hold_out(rows, n, 0, lambda e: True)] for n in (20, 60))
    assert few == more[:20]
    half = [e.id for e in selection.hold_out(rows[:100], 200, 0, lambda e: True)]
    every = [e.id for e in selection.hold_out(rows, 200, 0, lambda e: True)]
    assert half == [i for i in every if int(i) < 100]


def test_the_seed_changes_the_split_and_the_order() -> None:
    rows = [make(str(i), f"query {i}", "a") for i in range(50)]
    assert selection.in_order(rows, 0) != selection.in_order(rows, 1)
    first, second = (selection.hold_out(rows, 50, s, lambda e: True) for s in (0, 1))
    assert first != second


def test_only_what_fits_and_begins_at_the_beginning_is_held_out() -> None:
    rows = [make(str(i), f"query {i}", "a", part=i % 2 == 1) for i in range(20)]
    held = selection.hold_out(rows, 20, 0, lambda e: e.id != "4")
    assert {e.id for e in held} == {str(i) for i in range(0, 20, 2)} - {"4"}


def test_content_hash_tells_apart_what_joins_to_the_same_text() -> None:
    one = [Message("user", "a\nuser 1 b")]
    two = [Message("user", "a"), Message("user", "b")]
    assert selection.content_hash(one) != selection.content_hash(two)
