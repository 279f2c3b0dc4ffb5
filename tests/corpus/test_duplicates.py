from __future__ import annotations

import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epigone.corpus import duplicates, selection
from epigone.corpus.duplicates import jaccard, shingles
from epigone.corpus.selection import Entry
from epigone.schema import Message

WORDS = [
    "the",
    "wind",
    "in",
    "west",
    "mountains",
    "will",
    "be",
    "sunny",
    "and",
    "warm",
    "with",
    "some",
    "rain",
    "from",
    "a",
    "far",
    "cold",
    "sea",
]


def make(row_id: str, *texts: str, part: bool = False) -> Entry:
    messages = [Message(("user", "assistant")[i % 2], t) for i, t in enumerate(texts)]
    bands = duplicates.bands([texts[0]])[0]
    return selection.entry(row_id, messages, part=part, source=0, bands=bands)


def ids(entries: list[Entry]) -> set[str]:
    return {e.id for e in entries}


def test_the_conversation_with_most_teacher_text_is_kept() -> None:
    long = "how do I get to the lake"
    rows = [
        make("1", long, "a"),
        make("2", f"{long.upper()} ?", "a", "r", "b"),
        make("3", "x", "a"),
    ]
    found = duplicates.same_query(rows)
    assert ids(found.kept) == {"2", "3"}
    assert [(copy.id, kept.id) for copy, kept in found.copies] == [("1", "2")]


def test_parts_that_go_on_with_the_same_word_are_no_copies() -> None:
    rows = [make(str(i), "continue", f"part {i}", part=True) for i in range(3)]
    assert ids(duplicates.same_query(rows).kept) == {"0", "1", "2"}
    twice = [*rows, make("again", "Continue", "part 1", part=True)]
    assert len(duplicates.same_query(twice).kept) == 3


def test_stages_and_parts_of_one_dialogue_are_forks_of_the_longest() -> None:
    turns = [f"turn {i}" for i in range(12)]
    rows = [
        make("whole", *turns),
        make("early", *turns[:4]),
        make("part", *turns[6:10], part=True),
        make("branch", *turns[:2], "something", "else", "entirely", "new"),
        make("other", "another", "thing"),
        make("longer", "hello", "there", *turns[:10]),
    ]
    found = duplicates.forks(rows)
    # The branch shares one of its three exchanges only.
    assert ids(found.kept) == {"whole", "branch", "other"}
    assert {kept.id for _, kept in found.copies} == {"whole"}


def sentence(rng: random.Random, n: int) -> list[str]:
    return rng.choices(WORDS, k=n)


def test_near_queries_are_those_of_brute_force() -> None:
    rng = random.Random(3)
    queries: dict[str, str] = {}
    for i in range(60):
        text = sentence(rng, rng.randint(3, 60))
        queries[f"{i}"] = " ".join(text)
        for j in range(rng.randint(0, 3)):
            other = list(text)
            for _ in range(rng.randint(0, 4)):
                other[rng.randrange(len(other))] = rng.choice(WORDS)
            queries[f"{i}.{j}"] = " ".join(other)
    rows = [make(name, text, "x" * rng.randint(1, 9)) for name, text in queries.items()]
    found = duplicates.near_query(rows, lambda e: queries[e.id])

    kept: list[Entry] = []
    for entry in sorted(rows, key=lambda e: e.rank):
        own = shingles(queries[entry.id])
        if not any(jaccard(own, shingles(queries[k.id])) >= duplicates.SIMILAR for k in kept):
            kept.append(entry)
    assert ids(found.kept) == ids(kept)
    assert 0 < len(found.copies) < len(rows)
    for copy, original in found.copies:
        alike = jaccard(shingles(queries[copy.id]), shingles(queries[original.id]))
        assert alike >= duplicates.SIMILAR
    assert all(
        jaccard(shingles(queries[a.id]), shingles(queries[b.id])) < duplicates.SIMILAR
        for a, b in combinations(found.kept, 2)
    )


def test_short_queries_are_only_compared_as_a_whole() -> None:
    rows = [make("f", "capital of France", "a"), make("g", "capital of Germany", "b")]
    found = duplicates.near_query(rows, lambda e: e.id)
    assert not found.copies


@given(
    st.lists(st.lists(st.sampled_from("abcd"), min_size=2, max_size=6), max_size=10),
    st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_the_order_of_the_input_changes_nothing(
    dialogues: list[list[str]], rng: random.Random
) -> None:
    texts = {f"{i}": " ".join(turns * 3) for i, turns in enumerate(dialogues)}
    rows = [
        make(name, texts[name], *turns, part=i % 3 == 0)
        for i, (name, turns) in enumerate(zip(texts, dialogues, strict=True))
    ]
    other = list(rows)
    rng.shuffle(other)
    steps = (
        duplicates.forks,
        duplicates.same_query,
        lambda entries: duplicates.near_query(entries, lambda e: texts[e.id]),
    )
    for step in steps:
        one, two = step(rows), step(other)
        assert [e.id for e in one.kept] == [e.id for e in two.kept]
        assert [(a.id, b.id) for a, b in one.copies] == [(a.id, b.id) for a, b in two.copies]


@pytest.mark.parametrize(("one", "other", "value"), [("", "", 0.0), ("a b c", "a b c", 0.0)])
def test_texts_without_shingles_are_not_alike(one: str, other: str, value: float) -> None:
    assert jaccard(shingles(one), shingles(other)) == value


def test_what_a_short_prompt_asks_is_told_by_the_next_ones_and_the_system() -> None:
    rows = [
        make("1", "Hello", "Hi!", "write of the sea and the wind", "x"),
        make("2", "hello!", "Hi!", "write of the mountains and snow", "x"),
        make("3", "hello", "Hi there, you!", "Write of the sea and the wind?", "x"),
    ]
    assert ids(duplicates.same_query(rows).kept) == {"2", "3"}
    for system, kept in ((("A", "B"), {"0", "1"}), (("A", "A"), {"1"})):
        asked = [
            selection.entry(
                str(i),
                [Message("system", s), Message("user", "what is it that the text says"),
                 Message("assistant", "x" * (i + 1))],
                part=False, source=0, bands=duplicates.bands(["what is it that the text says"])[0],
            )
            for i, s in enumerate(system)
        ]  # fmt: skip
        assert ids(duplicates.same_query(asked).kept) == kept
        assert (
            ids(duplicates.near_query(asked, lambda e: "what is it that the text says").kept)
            == kept
        )


def test_scripts_without_blanks_have_shingles_too() -> None:
    text = "\u8bf7\u4f60\u4e3a\u6211\u5199\u4e00\u7bc7\u5173\u4e8e\u6d77\u7684\u6587\u7ae0"
    other = text + "\u8c22\u8c22"
    assert jaccard(shingles(text), shingles(other)) >= duplicates.SIMILAR
    assert jaccard(shingles(text), shingles(text[::-1])) == 0


def test_of_one_text_under_several_terms_the_first_tie_stays_in_any_order() -> None:
    messages = [Message("user", "what is the weather like today"), Message("assistant", "sunny")]
    rows = [
        selection.entry("r", messages, part=False, source=i, tie=tie)
        for i, tie in enumerate(("2 b", "0 a", "1 c"))
    ]
    for order in (rows, rows[::-1]):
        assert [e.source for e in duplicates.same_query(order).kept] == [1]
