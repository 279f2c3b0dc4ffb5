from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epigone.corpus.contamination import RUN, SHORTEST, Index, Item, words

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
INDEX = Index([Item("a/1", "Who wrote the old book?"), Item("b/2", "Which?", f"Which? {LONG}")])


@pytest.mark.parametrize(
    ("prompt", "reply", "name"),
    [
        ("who WROTE the old book", "", "a/1"),
        ("Question: who wrote the old book? Answer:", "", "a/1"),
        ("tell me", "You asked who wrote the old book.", "a/1"),
        ("who wrote the new book", "", ""),
        ("which", "", "b/2"),
        ("which one", "", ""),
        (f"so {LONG} indeed", "", "b/2"),
        (LONG.replace(" ", ", "), "", "b/2"),
        (" ".join(LONG.split()[:12]), "", ""),
        (" ".join(LONG.split()[:13]), "", "b/2"),
        ("", f"{LONG}", "b/2"),
    ],
)
def test_what_is_found(prompt: str, reply: str, name: str) -> None:
    assert INDEX.find([prompt], [reply]) == name


def test_nothing_is_found_without_items() -> None:
    assert Index([]).find(["anything at all, really anything"], ["x"]) == ""


def brute(items: list[Item], prompts: list[str], replies: list[str]) -> bool:
    texts = [words(t) for t in (*prompts, *replies)]
    for item in items:
        asked = words(item.question)
        if asked and any(words(p) == asked for p in prompts):
            return True
        runs = [asked] if SHORTEST <= len(asked) < RUN else []
        whole = words(item.text or item.question)
        runs += [whole[i : i + RUN] for i in range(len(whole) - RUN + 1)]
        for run in runs:
            for text in texts:
                if any(text[i : i + len(run)] == run for i in range(len(text) - len(run) + 1)):
                    return True
    return False


text = st.lists(st.sampled_from("ab"), max_size=16).map(" ".join)


@given(st.lists(text, max_size=3), text, text, st.randoms(use_true_random=False))
@settings(max_examples=150)
def test_the_index_finds_what_brute_force_finds(
    questions: list[str], prompt: str, reply: str, rng: random.Random
) -> None:
    items = [Item(f"i/{i}", q) for i, q in enumerate(questions)]
    if questions and rng.random() < 0.5:
        reply += f" z {rng.choice(questions)} z"
    assert bool(Index(items).find([prompt], [reply])) == brute(items, [prompt], [reply])
