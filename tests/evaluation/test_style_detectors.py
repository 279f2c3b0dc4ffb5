"""What counts as a list, a heading, code, a formula; and that no text stops the detectors."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from epigone.evaluation import formulas, prose, structure
from epigone.evaluation.formulas import (
    has_closing,
    has_disclaimer,
    has_opening,
    has_refusal,
    hedges,
)
from epigone.evaluation.prose import prose_lines
from epigone.evaluation.structure import (
    has_code,
    has_headings,
    has_list,
    has_summary,
)

DETECTORS = (
    has_list, has_summary, has_headings, has_code, has_opening, has_closing, has_refusal,
    has_disclaimer,
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a. one\nb. two", True),
        ("(a) one\n(b) two", True),
        ("**1.** one\n**2.** two", True),
        ("Step 1: mix\nStir well.\n\nStep 2: bake\nWait.", True),
        ("I. Origins\nII. Growth", True),
        ("Red - #f00\nGreen - #0f0\nBlue - #00f", True),
        ("Cost: low\nSpeed: high\nRisk: none", True),
        ("Ann: hello\nBob: hi\nAnn: how are you", False),  # a dialogue
        ("Cost: low\nSpeed: high", False),
        ("First, mix it. Second, bake it.\n\nThird, wait.", False),
        ("| - a | - b |\n| --- | --- |", False),
        ("````\n```\n- in\n- in\n```\n````", False),
        ("One.\n\n* * *\n\nTwo.\n\n- - -\n\nThree.", False),
        ("- - nested\n- - too", True),
        ("> - one\n> - two", True),
        ("> It rained.\n> It snowed.", False),
    ],
)
def test_lists_with_and_without_marks(text: str, expected: bool) -> None:
    assert has_list(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# Title\n\nText.", True),
        ("**Setup:**\n\nText.", True),
        ("Introduction\n\nText follows here.", False),  # one word needs a colon
        ("Materials:\n\n- paper\n- glue", True),
        ("Understanding the French Revolution\n\nIt began.", True),
        ("Week 1: how to begin\n\nText.", True),
        ("Introduction\n====\nText.", True),
        ("Text.\n\nSetting up\n---\nText.", True),
        ("load the data\n====\n\nx = read()", False),
        ("It rained.\n---\nText.", False),
        ("It rained\nand snowed\n---\nText.", False),
        ("- one\n---\nText.", False),
        ("| a |\n---\nText.", False),
        ("---\n---", False),
        ("(Verse 1)\nIt was a night", True),
        ("Here are some tips:\n\n- one\n- two", False),
        ("You can do this as follows:\n\n- one", False),
        ("Dear Dana,\n\nI miss you.", False),
        ("JOE:\nHello.", False),
        ("It rained.\n\nText.", False),
        ("A Last Line Alone", False),
        ("1. Mix\n\n2. Bake", False),
        ("```\n# comment\nx\n```", False),
        ("some words:\n\ntext", False),
    ],
)
def test_has_headings(text: str, expected: bool) -> None:
    assert has_headings(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Run:\n```sh\nls\n```", True),
        ("~~~\nx\n~~~", True),
        ("int a;\nint b;", True),
        ('{\n"name" : "x",\n"age" : 3\n}', True),
        ("def f(x):\n    return x\n\nx = f(1)\ny = 2", True),
        ("Use `ls` and `cd`.", False),
        ("a) the buyer;\nb) the seller;", False),
        ("One line;\n\nand another.", False),
        ("Plain text.\nMore text.", False),
    ],
)
def test_has_code(text: str, expected: bool) -> None:
    assert has_code(text) is expected


FORMULAS: list[tuple[Callable[[str], bool], str, bool]] = [
    (has_opening, "Sure! Here it is.", True),
    (has_opening, "Certainly, here it is.", True),
    (has_opening, "I apologize for the confusion. It is 4.", True),
    (has_opening, "You\u2019re welcome!", True),
    (has_opening, "Surely it is so.", False),
    (has_opening, "Great Britain is an island.", False),
    (has_opening, "Yes, it is possible.", False),
    (has_opening, "I'm sorry, but I can't do that.", False),
    (has_opening, "Here are ten ideas.", False),
    (has_closing, "Text.\n\nI hope this helps!", True),
    (has_closing, "Text.\n\nLet me know if you have any questions.\n\n```\ncode\n```", True),
    (has_closing, "Let me know what it is.\n\nText.", False),
    (has_closing, "word " * 200 + "I hope this helps!", True),
    (has_disclaimer, "word " * 200 + "I was trained on text.", True),
    (has_closing, "It hopes for the best.", False),
    (has_refusal, "I'm sorry, but I cannot help with that.", True),
    (has_refusal, "I am unable to open files.", True),
    (has_refusal, "I don't have access to your data.", True),
    (has_refusal, "I can't help but smile.", False),
    (has_refusal, "One cannot step into a river twice.", False),
    (has_refusal, "I'm sorry, but I can't.", True),
    (has_refusal, "I'm sorry, I can't, because it is secret.", True),
    (has_refusal, "I couldn't agree more.", False),
    (has_refusal, "I won't go into every detail, but here is the plan.", False),
    (has_refusal, "I won't go into that.", True),
    (has_refusal, "I cannot thank you enough.", False),
    (has_refusal, "I won't lie, it's good.", False),
    (has_refusal, "I can't tell you how happy I am!", False),
    (has_refusal, "I can't tell you the address.", True),
    (has_refusal, "\u201cI can't do it,\u201d she said.", False),
    (has_refusal, '"No," he said. "I can\'t do it," and left.', False),
    (has_refusal, "```\nI cannot do it\n```\nThis prints it.", False),
    (has_disclaimer, "As an AI developed by OpenAI, I have none.", True),
    (has_disclaimer, "As an AI model I have none.", True),
    (has_disclaimer, "Hello, I'm ChatGPT.", True),
    (has_disclaimer, 'It says "As an AI language model, I" too often.', False),
    (has_disclaimer, "As an AI language model, I have no body.", True),
    (has_disclaimer, "I\u2019m just a computer program, so I have none.", True),
    (has_disclaimer, "My knowledge cutoff is 2021.", True),
    (has_disclaimer, "A transformer is a language model.", False),
    (has_disclaimer, "Use it as an AI tool.", False),
    (has_disclaimer, "```\nAs an AI, I\n```", False),
]


@pytest.mark.parametrize(("detect", "text", "expected"), FORMULAS)
def test_formulas(detect: Callable[[str], bool], text: str, expected: bool) -> None:
    assert detect(text) is expected


def test_hedges_in_a_hundred_words() -> None:
    assert hedges("It may rain, and perhaps it will snow.") == pytest.approx(100 * 2 / 8)
    assert hedges("In May 2020 and May 2021 it rained.") == 0.0
    assert hedges("It may rain. Maybe not, PERHAPS.") == pytest.approx(50.0)
    assert hedges("Mayor Mighty seemed oftener.") == pytest.approx(25.0)
    assert hedges("") == 0.0
    assert hedges("```\nmaybe\n```") == 0.0
    # A paragraph is one line, however long.
    assert hedges("word " * 198 + "maybe perhaps") == pytest.approx(1.0)


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from('-*+1.)# \n`~:;{}aB\u2028\r\t\u200b\U0001f600|"=()'), max_size=80))
@example("```" * 5)
@example("\x0b\n\x85-")
def test_no_text_is_too_odd(text: str) -> None:
    for detect in DETECTORS:
        assert detect(text) in (True, False)
    assert hedges(text) >= 0
    assert len(prose_lines(text)) <= len(text.splitlines())


@given(st.lists(st.sampled_from(["- a", "2. b", "c", "", "x y z", "```"]), max_size=8))
def test_what_is_fenced_is_no_list(lines: list[str]) -> None:
    inside = [line for line in lines if line != "```"]
    assert not has_list("\n".join(["```", *inside, "```"]))


def test_patterns_repeat_nothing_without_end_within_a_repetition() -> None:
    """A bounded repetition of bounded parts is linear; every open one is of single characters."""
    patterns = [
        value
        for module in (structure, formulas, prose)
        for value in vars(module).values()
        if isinstance(value, re.Pattern)
    ]
    assert len(patterns) > 10
    for pattern in patterns:
        # A group that is repeated without end, or an open repetition of anything.
        assert not re.search(r"\)[*+]|\.[*+]|\)\{\d*,\}", pattern.pattern), pattern.pattern
