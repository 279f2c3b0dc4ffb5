"""Pairs read from what teachers write, and told apart from those that are there."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from epigone.corpus.contamination import Index, Item, words
from epigone.teachers.pairs import NEAR, Labels, Pair, Pool, Unpaired, rouge_l

LABELS = Labels()
CYPHER = Labels("Question", "Cypher")
# Line ends of other kinds are none of a label's.
_ENDS = ":\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
halves = (
    st.text(st.characters(codec="utf-8", exclude_characters=_ENDS), min_size=1)
    .map(str.strip)
    .filter(lambda t: t and not t.endswith("**"))
)


@pytest.mark.parametrize(
    "text",
    [
        "Question: who was it\nAnswer: Bach\n\nQuestion: when\nAnswer: 1750",
        "Q: who was it\nA: Bach\nQ: when\nA: 1750\n",
        "Two:\n\n1. Question: who was it\n  Answer: Bach\n2. Question: when\n  Answer: 1750",
        "**Question:** who was it\n**Answer:** Bach\n\n---\n\n**Question:** when\n**Answer:** 1750",
        "**Question 1:** who was it\n**Answer 1:** Bach\n**Question 2:** when\n**Answer 2**: 1750",
        "- question : who was it\n- answer : Bach\n- QUESTION: when\n- ANSWER: 1750",
        "### Question: who was it\n### Answer: Bach\n\n### Question: when\n### Answer: 1750\n\n3.",
        "Question: who was it Answer: Bach\nQuestion: when **Answer:** 1750",
        "**Question: who was it**\n**Answer: Bach**\n\n**Question: when**\n**Answer: 1750**",
    ],
)  # fmt: skip
def test_the_ways_in_which_pairs_are_written(text: str) -> None:
    assert [*LABELS.parse(text)] == [Pair("who was it", "Bach"), Pair("when", "1750")]


def test_what_lacks_a_half_is_told() -> None:
    assert [*LABELS.parse("I cannot do that.")] == [Unpaired("no pair in it", "I cannot do that.")]
    found = [*LABELS.parse("Answer: 1\nQuestion: a\nQuestion: b\nAnswer: 2\nQuestion: c\nAnswer:")]
    assert found == [
        Unpaired("an answer without a question", "1"),
        Unpaired("a question without an answer", "a"),
        Pair("b", "2"),
        Unpaired("an empty half", "c"),
    ]


def test_answers_of_several_lines_stay_whole() -> None:
    text = "Question: all\nCypher: MATCH (n)\nWHERE n.a = 1\nRETURN *\n\nQ: none\nC: RETURN 1"
    assert [*CYPHER.parse(text)] == [
        Pair("all", "MATCH (n)\nWHERE n.a = 1\nRETURN *"),
        Pair("none", "RETURN 1"),
    ]


@given(st.lists(st.tuples(halves, halves), max_size=4))
def test_what_is_shown_is_read_back(told: list[tuple[str, str]]) -> None:
    # A line that looks as the number of the next pair is none of an answer.
    pairs = [Pair(q, a) for q, a in told if "\n" not in q + a]
    found = [*LABELS.parse(LABELS.shown(pairs))]
    assert found == (pairs or [Unpaired("no pair in it", "")])


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    for found in LABELS.parse(text):
        assert isinstance(found, Unpaired) or (found.question and found.answer)


@pytest.mark.parametrize(
    "text",
    ["*" * 300_000, "- " * 150_000, "Question " * 40_000, " \t" * 10**5],
)
def test_long_lines_of_marks_do_not_keep_it_busy(text: str) -> None:
    # In quadratic time this would not end today.
    assert [*LABELS.parse(text)] == [Unpaired("no pair in it", text)]


@pytest.mark.parametrize("between", ["\n" * 300_000, "\r\n" * 100_000, "\n \t" * 100_000])
def test_an_answer_of_empty_lines_does_not_either(between: str) -> None:
    ((pair),) = LABELS.parse(f"Question: a\nAnswer: b{between}c")
    assert isinstance(pair, Pair)
    assert pair.answer.split() == ["b", "c"]
    assert [*LABELS.parse(f"Question: a\nAnswer: b{between}3.")] == [Pair("a", "b")]


def test_questions_about_two_things_are_two_if_their_answers_are() -> None:
    pool = Pool()
    pool.add(Pair("what is the capital of france", "Paris"))
    assert pool.refuse(Pair("what is the capital of spain", "Madrid")) == ""
    near = "nearly asked already"
    assert pool.refuse(Pair("what is the capital of spain", "Paris")) == near
    assert pool.refuse(Pair("what was the capital of france", "Lyon")) == near
    assert pool.refuse(Pair("what is the old capital of france", "Lyon")) == near
    pool.add(Pair("when was the war of 1812 over", "1815"))
    assert pool.refuse(Pair("when was the war of 1914 over", "1918")) == ""


@given(
    st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abcd"), max_size=12)
)
def test_rouge_l_is_that_of_the_library(one: list[str], other: list[str]) -> None:
    class Blanks:
        def tokenize(self, text: str) -> list[str]:
            return text.split()

    theirs = RougeScorer(["rougeL"], tokenizer=Blanks()).score(" ".join(one), " ".join(other))
    assert rouge_l(one, other) == pytest.approx(theirs["rougeL"].fmeasure)


def test_near_copies_are_those_of_a_comparison_of_all_with_all() -> None:
    draw = random.Random(7)
    vocabulary = [f"w{i}" for i in range(14)]
    pool, kept = Pool(), []
    for _ in range(400):
        question = " ".join(draw.choices(vocabulary, k=draw.randint(2, 9)))
        said = question.split()
        near = any(rouge_l(said, other) >= NEAR for other in kept)
        same = said in kept
        refused = pool.refuse(Pair(question, "x"))
        assert refused == ("asked already" if same else "nearly asked already" if near else "")
        if not refused:
            pool.add(Pair(question, "x"))
            kept.append(said)
    assert len(kept) > 50


def test_items_of_an_evaluation_do_not_join() -> None:
    pool = Pool(Index([Item("nq/3", "who sang the song that everybody knows by heart")]))
    assert pool.refuse(Pair("Who sang the song that everybody knows by heart?", "x")) == (
        "an item of the evaluation: nq/3"
    )
    assert pool.refuse(Pair("who wrote the song", "x")) == ""
    assert pool.refuse(Pair("?!", "x")) == "a question without words"
    assert words("?!") == []
