from __future__ import annotations

import inspect
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigone.corpus import rules
from epigone.corpus.html import is_site_html, to_markdown
from epigone.corpus.rules import RULES, Turns
from epigone.schema import Message, Role
from epigone.study.specs import RULES as RULES_ON

LETTERS: dict[str, Role] = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}


def turns(*texts: str) -> Turns:
    """Turns of texts like "u:hello"."""
    return tuple(Message(LETTERS[t[0]], t[2:]) for t in texts)


def clean(given: Turns) -> Turns:
    """What the rules leave that are on by default, but for those that bound lengths."""
    for rule in RULES:
        if RULES_ON[rule.__name__] and rule.__name__ not in ("too_long", "too_short"):
            given = rule(given)
    return given


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["a:x", "u:q", "a:y"], ["u:q", "a:y"]),
        (["s:be kind", "a:x", "u:q", "a:y"], ["s:be kind", "u:q", "a:y"]),
        (["t:x", "a:x", "u:q", "a:y"], ["u:q", "a:y"]),
        (["a:x"], []),
        ([], []),
        (["u:q", "a:y", "u:more"], ["u:q", "a:y"]),
        (["u:q"], []),
        (["s:only"], []),
        (["u:a", "u:b", "a:y"], ["u:a\n\nb", "a:y"]),
        (["u:a", "u: a ", "a:y"], ["u:a", "a:y"]),
        (["u:go on", "u:", "a:y"], ["u:go on", "a:y"]),
        (["u:q", "a:y", "s:", "a:y"], ["u:q", "a:y"]),
        (["u:q", "a:x", "s:now", "a:y"], ["u:q", "a:x", "s:now", "a:y"]),
        (["u:q", "a:one", "a:two"], ["u:q", "a:one\n\ntwo"]),
        (["u:q", "a:f()", "t:1", "t:2", "a:y"], ["u:q", "a:f()", "t:1", "t:2", "a:y"]),
        (["u:q", "a:", "u:r", "a:y"], ["u:q\n\nr", "a:y"]),
        (["u:q", "a:\u200b", "u:r", "a:y"], ["u:q\n\nr", "a:y"]),
        (["u:q", "a:x", "u:", "a:y", "u:r", "a:z"], ["u:q", "a:x"]),
        (["u:Write of rain", "a:network error", "u:Please try again", "a:Rain is wet."],
         ["u:Write of rain\n\nPlease try again", "a:Rain is wet."]),
        (["u:What does toString of {} give?", "a:[object Object]"],
         ["u:What does toString of {} give?", "a:[object Object]"]),
        (["u:Translate 'annullato'", "a:Cancelled"], ["u:Translate 'annullato'", "a:Cancelled"]),
        (["u:hello", "a:Cancelled"], []),
        (["u: \n", "a:y", "u:r", "a:z"], ["u:r", "a:z"]),
        (["s: ", "u:r", "a:z"], ["u:r", "a:z"]),
        (["u:q", "a:Too many requests in 1 hour. Try again later.", "u:q", "a:y"], ["u:q", "a:y"]),
        (["u:q", "a:ok", "u:r", "a:network error"], ["u:q", "a:ok"]),
        (["u:q", "a:network error\n\nOnly one message at a time. Please allow any other "
          "responses to complete before sending another message, or wait one minute."], []),
        (["s:*This conversation is shared from [**X**](https://x)*", "u:q", "a:y"], ["u:q", "a:y"]),
    ],
)  # fmt: skip
def test_what_is_left_of_a_dirty_conversation(before: list[str], after: list[str]) -> None:
    assert clean(turns(*before)) == turns(*after)


@pytest.mark.parametrize(
    "reply",
    [
        "I'm sorry, but as an AI language model I cannot help with that.",
        "A network error means that the connection broke.",
        "Something went wrong that night, and nobody knew why.",
        "Cancelled flights are refunded.",
        "Error: 1064 - You have an error in your SQL syntax",
        "Sorry.",
    ],
)
def test_refusals_and_answers_about_errors_stay(reply: str) -> None:
    before = turns("u:q", f"a:{reply}")
    assert clean(before) == before


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("write it2 / 2", "write it"),
        ("write it. 3 / 3", "write it."),
        ("write it.\n1 / 2", "write it."),
        ("write it11 / 13", "write it"),
        ("go onShare Prompt", "go on"),
        ("go on1 / 1\nShare Prompt", "go on"),
        ("go on\n \n \n 지금 번역하기", "go on"),
        ("go onCopyCopy HTMLRead Aloud⏹️ Stop7 chars | 2 words", "go on"),
        ("simplify 1 / 2", "simplify 1 / 2"),
        ("what is 10 / 5", "what is 10 / 5"),
        ("what is x=1 / 2", "what is x=1 / 2"),
        ("what is 3+1 / 2", "what is 3+1 / 2"),
        ("in 2 / 2 time, a waltz", "in 2 / 2 time, a waltz"),
        ("What is 4 / 4", "What is 4 / 4"),
        ("Simplify: 2 / 2", "Simplify: 2 / 2"),
        ("Simplify the fraction\n3 / 4", "Simplify the fraction\n3 / 4"),
        ("I would say that the score is 10 / 10", "I would say that the score is 10 / 10"),
        ("1 / 1", "1 / 1"),
        ("worked, you are the BEST 1 / 1", "worked, you are the BEST"),
        (
            "List the sites,\nand the diabetic ulcers\n2 / 2",
            "List the sites,\nand the diabetic ulcers",
        ),
        ("hide the button labelled Stop generating", "hide the button labelled Stop generating"),
        (
            "```html\n<button>\n  Copy code\n</button>\n```",
            "```html\n<button>\n  Copy code\n</button>\n```",
        ),
        ("```\nCopy code\nx = 1\n```", "```\nx = 1\n```"),
        ("count to 100 words", "count to 100 words"),
        ("python\nCopy code\nx = 1", "python\nx = 1"),
        ("```pythonCopy code\nx = 1\n```", "```python\nx = 1\n```"),
        ("pythonCopy code\nx = 1", "python\nx = 1"),
        ("Copy code from the file", "Copy code from the file"),
        ("hello Copy1,024 chars / 200 words", "hello "),
    ],
)
def test_texts_of_buttons_and_counters(before: str, after: str) -> None:
    (user,) = rules.site_artefacts(turns(f"u:{before}"))
    assert user.content == after


def test_counters_are_taken_from_prompts_alone() -> None:
    before = turns("u:q", "a:The share is 2 / 2")
    assert rules.site_artefacts(before) == before


@pytest.mark.parametrize(
    ("reply", "refuses"),
    [
        ("I'm sorry, but I cannot assist with that.", True),
        ("I must decline this request.", True),
        ("As a language model, I cannot do this.", True),
        ("As an AI, I like all weather.", True),
        ("I'm just an AI, I can't access the internet.", True),
        ("My apologies, but I cannot provide that.", True),
        ("I am sorry for the confusion. I cannot open links.", True),
        ("I\u2019m sorry, I don\u2019t have access to that file.", True),
        ("Unfortunately, I am not able to see images.", True),
        ("I'm not going to lie, this is a great recipe.", False),
        ("I don't have to be an expert to say: use Python.", False),
        ("I can't wait to help you! Here is the plan.", False),
        ("I cannot recommend this enough.", False),
        ("ChatGPT is marketed as an AI assistant.", False),
        ("I'm sorry for your loss. Here is a letter.", False),
    ],
)
def test_what_counts_as_a_refusal(reply: str, refuses: bool) -> None:
    before = turns("u:p", "a:x", "u:q", f"a:{reply}", "u:r", "a:y")
    assert rules.refusals(before) == (before[:2] if refuses else before)


EXPORTED = (
    '<div class="markdown prose w-full break-words dark:prose-invert light"><p>Use <code>a_b</code>'
    " &lt;now&gt;, it is *not* <strong>hard</strong>:</p>"
    '<pre><div class="bg-black"><div class="flex"><span>python</span><button>Copy code</button>'
    '</div><div class="p-4"><code class="!whitespace-pre hljs language-python">'
    '<span class="hljs">if</span> a &lt; b:\n\n\n    print(a_b)\n</code></div></div></pre>'
    "<ol><li>one</li><li>two</li></ol></div>"
)


def test_site_html_becomes_markdown_with_its_code() -> None:
    assert is_site_html(EXPORTED)
    assert to_markdown(EXPORTED) == (
        "Use `a_b` <now>, it is *not* **hard**:\n\n"
        "```python\nif a < b:\n\n\n    print(a_b)\n```\n\n"
        "1. one\n2. two"
    )


@pytest.mark.parametrize(
    "text",
    [
        '<div class="modal fade" id="m"><p class="x">hi</p></div>',
        "The `<p>` tag\n\n```html\n<p>hi</p>\n```",
        "<p>hi</p>\n```\ncode\n```",
        "a < b and b > c",
        "1 &lt; 2",
    ],
)
def test_text_about_html_is_left_alone(text: str) -> None:
    before = turns(f"u:{text}", f"a:{text}")
    assert clean(before) == before


PROMPT = (
    '<div class="min-h-[20px] flex whitespace-pre-wrap">Fix:\n\ndef f(x):\n    if x &lt; 2:\n</div>'
)


def test_a_prompt_of_the_site_keeps_its_lines_and_indentation() -> None:
    assert to_markdown(PROMPT) == "Fix:\n\ndef f(x):\n    if x < 2:"
    given = turns(f"u:{PROMPT}", f"a:{EXPORTED}", "u:a &lt; b &amp;&amp; c", "a:<p>yes</p>")
    after = [m.content for m in rules.site_html(given)]
    assert after[2:] == ["a < b && c", "yes"]


@pytest.mark.parametrize(
    ("html", "markdown"),
    [
        (
            "<table><tr><th>x</th></tr><tr><td>a | b</td></tr></table>",
            "| x |\n| --- |\n| a \\| b |",
        ),
        (
            '<pre><code class="language-md">```py\nx\n```</code></pre>',
            "````md\n```py\nx\n```\n````",
        ),
        (
            '<p>so <span class="katex"><span class="katex-mathml"><math><mi>x</mi><annotation>x^2'
            '</annotation></math></span><span class="katex-html">x2</span></span></p>',
            "so $x^2$",
        ),
        ('<table><tr><td colspan="1000">a</td></tr></table>', "|  |\n| --- |\n| a |"),
        ('<ol start="\u00b2"><li>a</li></ol>', "1. a"),
        ("<h2>Title</h2><p>text</p>", "## Title\n\ntext"),
    ],
)
def test_html_of_replies(html: str, markdown: str) -> None:
    reply = f'<div class="markdown prose">{html}</div>'
    assert rules.site_html(turns("u:q", f"a:{reply}"))[1].content == markdown


@pytest.mark.parametrize("html", ["<p>It is <b>so</b></p>", "<div><p>so</p></div>"])
def test_bare_html_is_an_export_unless_somebody_asks_for_html(html: str) -> None:
    assert "<" not in rules.site_html(turns("u:q", f"a:{html}"))[1].content
    for before in (
        turns("u:Write a paragraph in HTML", f"a:{html}"),
        turns("u:q", f"a:{html}", "u:r", "a:plain"),
        turns(f"u:{html}", "a:plain"),
    ):
        assert rules.site_html(before) == before


def test_no_html_stops_a_build_or_takes_long() -> None:
    broken = '<div class="markdown prose"><p>see</p><![foo[ x</div>'
    assert to_markdown(broken) == broken
    for text in ("<p " * 100_000, '<p class="' * 50_000, "<div>" * 100_000, "&" * 300_000):
        before = turns(f"u:{text}", "a:x")
        assert rules.site_html(before) == before


def test_html_nested_too_deeply_is_left_as_it_is() -> None:
    text = '<div class="markdown prose">' + "<div>" * 20_000 + "x"
    assert to_markdown(text) == text


def test_every_rule_says_what_it_does() -> None:
    assert all((inspect.getdoc(rule) or "").endswith(".") for rule in RULES)
    assert len({rule.__name__ for rule in RULES}) == len(RULES)


messages = st.builds(
    Message,
    st.sampled_from(get_args(Role)),
    st.sampled_from(["", " ", "\u200b", "hello", "1 / 1", "network error", "again", "hello"]),
)


@given(st.lists(messages, max_size=9).map(tuple))
def test_what_is_left_is_a_dialogue_and_stays_as_it_is(before: Turns) -> None:
    after = clean(before)
    assert clean(after) == after
    if not after:
        return
    spoken = [m.role for m in after if m.role in ("user", "assistant")]
    assert spoken[0] == "user"
    assert spoken[-1] == after[-1].role == "assistant"
    assert all(m.content.strip("\u200b ") for m in after if m.role != "tool")
    said = [m for m in after if m.role != "system"]
    assert all(a.role != b.role or a.role == "tool" for a, b in pairwise(said)) or any(
        m.role == "system" for m in after
    )
