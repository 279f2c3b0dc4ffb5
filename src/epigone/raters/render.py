"""A model's text as HTML that can do nothing: no markup, links, images or invisible characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import MutableMapping, Sequence
from functools import lru_cache
from html import unescape
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererProtocol
from markdown_it.token import Token
from markupsafe import Markup, escape

# Characters and lines that are laid out at once, and characters that a rater can unfold below them.
SHOWN, LINES, FOLDED = 12_000, 300, 100_000
_MARKS = 4
_NESTING = 20
# Of what nh3 wrote: it escapes these signs everywhere else.
_TAG = re.compile("(<[^<>]*>)")
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# Characters without width, marks of languages and annotations, and fillers that look like spaces.
_HIDDEN = re.compile(
    "[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u2060-\u2065\u206a-\u206f\u3164"
    "\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_JOINERS = re.compile("[\u200c\u200d]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TAGS = {
    "blockquote", "br", "code", "div", "em", "h3", "hr", "li", "ol", "p", "pre", "s", "span",
    "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
_INLINE = {"code", "em", "s", "span", "strong"}
_CLASSES = {"span": {"link", "url", "image"}, "h3": {"l1", "l2", "l3"}, "ol": {"n4", "n9"},
            "div": {"wide"}}  # fmt: skip
_ATTRIBUTES = {"ol": {"start"}, "div": {"tabindex", "role", "aria-label"}}


def scrubbed(text: str, *, html: bool = False) -> str:
    """A text whose order and looks are what they seem.

    Controls of direction are shown by their code, characters without width are dropped but for
    joiners inside words and signs that need them, and of stacked marks a few remain, in HTML also
    where tags stand between them.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isascii():
        return _CONTROL.sub("\ufffd", text)
    text = re.sub("[\u2028\u2029\u0085]", "\n", text)
    text = _CONTROL.sub("\ufffd", _HIDDEN.sub("", text))
    text = _BIDI.sub(lambda found: f"\u27e6U+{ord(found[0]):04X}\u27e7", text)
    return _unstacked(_JOINERS.sub(_joiner, text), html)


@lru_cache(maxsize=256)
def answer(text: str) -> Markup:
    """An output as HTML: markdown laid out, everything else as the text that it is."""
    if not _visible(_HIDDEN.sub("", text)):
        return Markup('<p class="none">(This answer is empty.)</p>')
    shown, folded, lost = _parts(text)
    return _laid_out(shown) + _fold(folded, lost)


@lru_cache(maxsize=256)
def plain(text: str) -> Markup:
    """A prompt as HTML: the text as it was written, line by line."""
    shown, folded, lost = _parts(text)
    return _as_written(shown) + _fold(folded, lost)


def words(html: str) -> str:
    """The text that a reader of such HTML sees, without its layout."""
    pieces = [
        piece if not at % 2 else "" if piece.strip("</>").split(" ")[0] in _INLINE else "\n"
        for at, piece in enumerate(_TAG.split(html))
    ]
    return unescape("".join(pieces))


def _parts(text: str) -> tuple[str, str, int]:
    """What is laid out, what can be unfolded, and the number of characters beyond."""
    lost = len(text) - FOLDED
    text = scrubbed(text[:FOLDED])
    end = min(SHOWN, len(text))
    for number, line in enumerate(re.finditer("\n", text[:end])):
        if number == LINES - 1:
            end = line.end()
    # Lines without anything on them are no rest that is worth a click.
    return text[:end], text[end:] if lost > 0 or _visible(text[end:]) else "", lost


def _laid_out(text: str) -> Markup:
    env: Env = {}
    tokens = _MARKDOWN.parse(text, env)
    # The parser drops without a word what is nested deeper.
    if any(token.level >= _NESTING - 1 for token in tokens):
        return _as_written(text)
    made = nh3.clean(
        _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, env), tags=_TAGS,
        attributes=_ATTRIBUTES, allowed_classes=_CLASSES, url_schemes=set(), link_rel=None,
    )  # fmt: skip
    # Again: entities are characters only now.
    made = scrubbed(made, html=True)
    return Markup(made) if _visible(words(made)) else _as_written(text)


def _as_written(text: str) -> Markup:
    return Markup('<div class="plain">{}</div>').format(text)


def _visible(text: str) -> bool:
    """Whether a reader would see anything."""
    return any(
        unicodedata.category(c) not in ("Zs", "Zl", "Zp", "Cc", "Cf", "Mn") and c != "\u2800"
        for c in text
    )


def _fold(text: str, lost: int) -> Markup:
    if not text:
        return Markup("")
    end = f"\n[{lost:,} more characters are not shown]" if lost > 0 else ""
    return Markup(
        "<details><summary>Show the rest ({} characters)</summary>"
        '<div class="plain">{}</div></details>'
    ).format(f"{len(text):,}", text + end)


def _joiner(found: re.Match[str]) -> str:
    text, at = found.string, found.start()
    around = text[at - 1 : at] + text[at + 1 : at + 2]
    needed = len(around) == 2 and all(_joins(c) for c in around)
    return found[0] if needed else ""


def _joins(character: str) -> bool:
    # Letters without case: Arabic, Persian, the scripts of India; signs: emoji and their tones.
    return unicodedata.category(character) in ("Lo", "Mn", "Mc", "So", "Sk") or (
        character == "\ufe0f"
    )


def _unstacked(text: str, html: bool) -> str:
    run, kept = 0, []
    for at, piece in enumerate(_TAG.split(text) if html else [text]):
        if at % 2:
            kept.append(piece)
            continue
        for character in piece:
            run = run + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
            if run <= _MARKS:
                kept.append(character)
    return "".join(kept)


Env = MutableMapping[str, Any]


def _link_open(
    self: RendererProtocol, tokens: Sequence[Token], at: int, options: Any, env: Env
) -> str:
    env.setdefault("links", []).append((str(tokens[at].attrGet("href") or ""), at))
    return '<span class="link">'


def _link_close(
    self: RendererProtocol, tokens: Sequence[Token], at: int, options: Any, env: Env
) -> str:
    href, start = env["links"].pop()
    words = "".join(token.content for token in tokens[start:at])
    told = "" if words == href else f' <span class="url">({escape(href)})</span>'
    return f"</span>{told}"


def _image(self: RendererProtocol, tokens: Sequence[Token], at: int, options: Any, env: Env) -> str:
    return f'<span class="image">[image: {escape(tokens[at].content or "no description")}]</span>'


def _heading_open(
    self: RendererProtocol, tokens: Sequence[Token], at: int, options: Any, env: Env
) -> str:
    # One level for all: the page's own outline stays whole whatever an answer holds.
    if not tokens[at + 1].content.strip():
        return "<p>"
    return f'<h3 class="l{min(int(tokens[at].tag[1]), 3)}">'


def _heading_close(
    self: RendererProtocol, tokens: Sequence[Token], at: int, options: Any, env: Env
) -> str:
    return "</h3>\n" if tokens[at - 1].content.strip() else "</p>\n"


def _table_open(
    self: RendererProtocol, tokens: Sequence[Token], at: int, options: Any, env: Env
) -> str:
    return '<div class="wide" tabindex="0" role="group" aria-label="Table">\n<table>\n'


def _table_close(
    self: RendererProtocol, tokens: Sequence[Token], at: int, options: Any, env: Env
) -> str:
    return "</table>\n</div>\n"


def _ordered_open(
    self: RendererProtocol, tokens: Sequence[Token], at: int, options: Any, env: Env
) -> str:
    # Long numbers need room, or their first digits are cut off.
    told = tokens[at].attrGet("start")
    level, last, number = tokens[at].level, at + 1, 0 if told is None else int(told) - 1
    while tokens[last].level != level:
        number += tokens[last].type == "list_item_open" and tokens[last].level == level + 1
        last += 1
    room = "" if number < 100 else ' class="n4"' if number < 10_000 else ' class="n9"'
    start = "" if told is None else f' start="{told}"'
    return f"<ol{room}{start}>\n"


def _markdown() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": _NESTING})
    made.enable(["table", "strikethrough"])
    for name, rule in (
        ("link_open", _link_open), ("link_close", _link_close), ("image", _image),
        ("heading_open", _heading_open), ("heading_close", _heading_close),
        ("table_open", _table_open), ("table_close", _table_close),
        ("ordered_list_open", _ordered_open),
    ):  # fmt: skip
        made.add_render_rule(name, rule)
    return made


_MARKDOWN = _markdown()
