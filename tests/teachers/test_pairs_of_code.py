"""Pairs whose answers are code of several lines, in fences or without."""

from __future__ import annotations

import pytest

from epigone.teachers.pairs import Labels, Pair, Unpaired

CYPHER = Labels("Question", "Cypher")
ONE = Pair("Who wrote it?", "MATCH (a)-[:WROTE]->(b)\nWHERE b.x = 'it'\nRETURN a.name")
TWO = Pair("When?", "MATCH (b) RETURN b.year")


@pytest.mark.parametrize(
    "text",
    [
        CYPHER.shown([ONE, TWO]),
        f"Question: {ONE.question}\nCypher:\n```cypher\n{ONE.answer}\n```\n\n"
        f"Question: {TWO.question}\nCypher:\n```\n{TWO.answer}\n```\n",
        f"1. **Question:** {ONE.question}\n**Cypher:**\n```cypher\n{ONE.answer}\n```\n\n"
        f"2. **Question:** {TWO.question}\n**Cypher:** `{TWO.answer}`",
        f"```\n{CYPHER.shown([ONE, TWO])}\n```",
        f"```text\n{CYPHER.shown([ONE, TWO])}\n```\n",
        f"Q: {ONE.question}\nC: ````cypher\n{ONE.answer}\n````\nQ: {TWO.question}\nC: {TWO.answer}",
    ],
)
def test_code_is_read_without_its_fence(text: str) -> None:
    assert [*CYPHER.parse(text)] == [ONE, TWO]


@pytest.mark.parametrize(
    "answer",
    [
        "Use `len` or `sum`",
        "`a` and `b`",
        "Like this:\n```\nx\n```",
        "```\nx\n```\nand\n```\ny\n```",
        "MATCH (a:`Book`) RETURN a.`title`",
    ],
)
def test_code_among_words_stays_as_it_is(answer: str) -> None:
    labels = Labels()
    assert [*labels.parse(labels.shown([Pair("How?", answer)]))] == [Pair("How?", answer)]


def test_an_empty_fence_is_an_empty_half() -> None:
    assert [*CYPHER.parse("Question: a\nCypher: ```\n\n```")] == [Unpaired("an empty half", "a")]
