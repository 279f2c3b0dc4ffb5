from __future__ import annotations

import re
import time
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigone.raters.render import FOLDED, LINES, SHOWN, answer, plain, scrubbed, words

ALLOWED = {
    "blockquote", "br", "code", "details", "div", "em", "h3", "hr", "li", "ol", "p", "pre", "s",
    "span", "strong", "summary", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip


CLASSES = {"link", "url", "image", "none", "plain", "l1", "l2", "l3", "n4", "n9", "wide"}
BOX = {("tabindex", "0"), ("role", "group"), ("aria-label", "Table")}


class Seen(HTMLParser):
    """The elements and attributes of some HTML, as a parser of its own reads them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.text = ""
        self.feed(html.encode().decode())  # else its text would be escaped as it is read
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)><svg><script>alert(1)</script></svg>",
    "<iframe srcdoc='<script>parent.x=1</script>'></iframe>",
    "<style>*{display:none}</style><link rel=stylesheet href=//evil.example/x.css>",
    "<form action=//evil.example><button name=preference value=2>Next</button></form>",
    "<base href=//evil.example/><meta http-equiv=refresh content='0;url=//evil.example'>",
    "![x](https://evil.example/pixel.png)",
    "![x][1]\n\n[1]: https://evil.example/pixel.png 'title'",
    "[click](javascript:alert(1)) [click](data:text/html,<script>alert(1)</script>)",
    "[a](https://evil.example \"x\\\" onclick=alert(1) y=\")",
    "<https://evil.example/?q=<script>>",
    "`<script>alert(1)</script>`\n\n```html\"><script>alert(1)</script>\n<b>\n```",
    "| a | b |\n|:-:|-|\n| <i onclick=x> | [l](https://e.example) |",
    "</div></section></main><h1>Answer A wrote this</h1>",
    "&lt;script&gt;alert(1)&lt;/script&gt; &#60;script&#62;",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img onerror=x&gt;'>",
    "[x]: javascript:alert(1)\n\n[x]",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
]  # fmt: skip


def check(html: str) -> Seen:
    seen = Seen(html)
    assert seen.tags <= ALLOWED, seen.tags - ALLOWED
    for name, value in seen.attributes:
        assert (
            (name == "start" and (value or "").isdigit())
            or (name == "class" and value in CLASSES)
            or (name, value) in BOX
        ), (name, value)
    return seen


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_becomes_text(text: str) -> None:
    check(answer(text))
    assert check(plain(text)).text == scrubbed(text)


@given(st.text(alphabet="<>/\"'=`*_[]()!#|-:&;\\ \nascriptonxljv1.~", max_size=80))
def test_no_markdown_makes_anything_but_text(text: str) -> None:
    check(answer(text))


@given(st.text(max_size=60))
def test_no_text_can_turn_or_hide_itself(text: str) -> None:
    left = scrubbed(text)
    assert not set(left) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
    assert not set(left) & set("\u200b\u2060\ufeff\u00ad\u061c\x00\x1b\x85\u2028")
    left.encode("utf-8", "surrogatepass")
    assert scrubbed(left) == left


def test_directions_are_shown_and_what_has_no_width_is_dropped() -> None:
    assert scrubbed("a\u202eb\u202c") == "a\u27e6U+202E\u27e7b\u27e6U+202C\u27e7"
    assert scrubbed("pay\u200bpal\ufeff \U000e0041x") == "paypal x"
    assert scrubbed("a" + "\u0301" * 50) == "a" + "\u0301" * 4
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    persian = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    assert scrubbed(family) == family and scrubbed(persian) == persian
    assert scrubbed("a\r\nb\rc\td") == "a\nb\nc\td"


def test_markdown_is_laid_out_as_people_know_it() -> None:
    seen = check(
        answer("# Title\n\n1. one\n2. two\n\n**b** *e* `c`\n\n| a | b |\n|---|---|\n| 1 | 2 |")
    )
    assert {"h3", "ol", "li", "strong", "em", "code", "table", "th", "td"} <= seen.tags
    assert '<ol start="3">' in answer("3. three\n4. four")
    assert answer("a\nb") == "<p>a<br>\nb</p>\n"
    assert "h3" not in check(answer("#\n\ntext")).tags  # a heading without words


def test_links_lead_nowhere_but_are_told() -> None:
    html = answer("see [the recipe](https://example.org/a?b=1&c=2), <https://example.org>")
    seen = check(html)
    assert "a" not in seen.tags
    assert "the recipe (https://example.org/a?b=1&c=2), https://example.org" in seen.text
    assert seen.text.count("https://example.org") == 2
    assert "[image: a cat]" in check(answer("![a cat](https://example.org/cat.png)")).text


@pytest.mark.parametrize("text", ["a" * 300_000, "word " * 60_000, "# x\n" * 60_000])
def test_huge_texts_are_folded_and_cut(text: str) -> None:
    seen = check(answer(text))
    assert {"details", "summary"} <= seen.tags
    assert f"{len(text) - FOLDED:,} more characters are not shown" in seen.text
    assert len(answer("b" * SHOWN)) < SHOWN + 100


@pytest.mark.parametrize("html", [answer("```\n" + "\n" * 8_000 + "end"), plain("x\r" * 8_000)])
def test_long_texts_of_short_lines_are_folded(html: str) -> None:
    first, rest = html.split("<details>")
    assert first.count("\n") <= LINES + 2 and rest.count("\n") > 7_000
    assert "details" not in answer("x\n" * (LINES - 1) + "x" + "\n" * 8_000)


def test_what_the_parser_would_drop_stands_as_it_was_written() -> None:
    for deep in (
        "".join("  " * n + f"- level {n}\n" for n in range(100)), "> " * 40 + "level 99",
        "1. " * 12 + "level 99",
    ):  # fmt: skip
        assert "level 99" in check(answer(deep)).text
    assert "plain" not in answer("- " * 8 + "level 8")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("safe &#x202e;txet desrever&#x202c;", "safe ⟦U+202E⟧txet desrever⟦U+202C⟧"),
        ("&rlm;a&lrm;&#8294;b", "⟦U+200F⟧a⟦U+200E⟧⟦U+2066⟧b"),
        ("pay&ZeroWidthSpace;p&shy;al&NoBreak;", "paypal"),
        ("a" + 40 * "&#x300;", "a" + 4 * "\u0300"),
        ("*a&#x300;&#x301;&#x302;*&#x303;&#x304;", "a" + "\u0300\u0301\u0302\u0303"),
        ("![&#x202e;x](y) [p](<&#x202e;>)", "[image: &#x202e;x] p (%E2%80%AE)"),
        ("a\n# b&#x202e;", "a\nb⟦U+202E⟧"),
        ("&lt;b&gt; &amp;#x202e; `&#x202e;`", "<b> &#x202e; &#x202e;"),
    ],
)
def test_entities_are_no_way_around(text: str, told: str) -> None:
    html = answer(text)
    check(html)
    shown = words(html)
    assert re.sub("\n+", "\n", shown.strip()) == told


@given(st.text(alphabet="&#;x20e3b*_` \na\u0300\u202e", max_size=60))
def test_no_markdown_can_turn_or_hide_itself(text: str) -> None:
    shown = words(answer(text))
    assert scrubbed(shown) == shown


def test_long_numbers_of_lists_have_room() -> None:
    assert answer("1. a\n" * 99).startswith("<ol>\n")
    assert answer("1. a\n" * 100).startswith('<ol class="n4">\n')
    assert answer("98. a\n1. b\n   - c\n   - d\n").startswith('<ol start="98">\n')
    assert answer("98. a\n1. b\n1. c\n").startswith('<ol class="n4" start="98">\n')
    assert 'class="n9"' in answer("- 999999999. a\n") and '"0"' in answer("0. a\n")


@pytest.mark.parametrize(
    "piece", ["[", "![", "*a_", "> ", "`", "<", "- ", "a|", "[a](", "~~", "&", "\\", "1. ", "_*"]
)
def test_no_text_takes_long_to_lay_out(piece: str) -> None:
    began = time.process_time()
    check(answer(piece * (SHOWN // len(piece))))
    assert time.process_time() - began < 3.0


def test_an_empty_answer_is_told() -> None:
    for text in (" \n", "\u200b" * 9, "\u3164\u2800", "\n" * 200_000):
        assert "This answer is empty" in answer(text), text[:9]
    for text in ("[//]: # (text)", "&ZeroWidthSpace;", "```\n```", "- - -"):
        assert check(answer(text)).text == text
