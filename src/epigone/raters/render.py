"""A model's text as HTML that can do nothing: no markup, links, images or invisible characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import MutableMapping, Sequence
from functools import lru_cache
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererProtocol
from markdown_it.token import Token
from markupsafe import Markup, escape

# Characters that are laid out at once, and those that a rater can unfold below them.
SHOWN, FOLDED = 12_000, 100_000
_MARKS = 4
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# Characters without width, marks of languages and annotations, and fillers that look like spaces.
_HIDDEN = re.compile(
    "[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u2060-\u2065\u206a-\u206f\u3164"
    "\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_JOINERS = re.compile("[\u200c\u200d]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TAGS = {
    "blockquote", "br", "code", "em", "h3", "hr", "li", "ol", "p", "pre", "s", "span", "strong",
    "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
_CLASSES = {"span": {"link", "url", "image"}, "h3": {"l1", "l2", "l3"}}


def scrubbed(text: str) -> str:
    """A text whose order and looks are what they seem.

    Controls of direction are shown by their code, characters without width are dropped but for
    joiners inside words and signs that need them, and of stacked marks a few remain.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isascii():
        return _CONTROL.sub("\ufffd", text)
    text = re.sub("[\u2028\u2029\u0085]", "\n", text)
    text = _CONTROL.sub("\ufffd", _HIDDEN.sub("", text))
    text = _BIDI.sub(lambda found: f"\u27e6U+{ord(found[0]):04X}\u27e7", text)
    return _unstacked(_JOINERS.sub(_joiner, text))


@lru_cache(maxsize=256)
def answer(text: str) -> Markup:
    """An output as HTML: markdown laid out, everything else as the text that it is."""
    if not text.strip():
        return Markup('<p class="none">(This answer is empty.)</p>')
    shown, folded, lost = text[:SHOWN], text[SHOWN:FOLDED], len(text) - FOLDED
    laid_out = _MARKDOWN.render(scrubbed(shown))
    made = nh3.clean(
        laid_out, tags=_TAGS, attributes={"ol": {"start"}}, allowed_classes=_CLASSES,
        url_schemes=set(), link_rel=None,
    )  # fmt: skip
    return Markup(made) + _fold(folded, lost)


@lru_cache(maxsize=256)
def plain(text: str) -> Markup:
    """A prompt as HTML: the text as it was written, line by line."""
    shown, folded, lost = text[:SHOWN], text[SHOWN:FOLDED], len(text) - FOLDED
    return Markup('<div class="plain">{}</div>').format(scrubbed(shown)) + _fold(folded, lost)


def _fold(text: str, lost: int) -> Markup:
    if not text:
        return Markup("")
    end = f"\n[{lost:,} more characters are not shown]" if lost > 0 else ""
    return Markup(
        "<details><summary>Show the rest ({} characters)</summary>"
        '<div class="plain">{}</div></details>'
    ).format(f"{len(text):,}", scrubbed(text) + end)


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


def _unstacked(text: str) -> str:
    run, kept = 0, []
    for character in text:
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


def _markdown() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False, "breaks": True})
    made.enable(["table", "strikethrough"])
    for name, rule in (
        ("link_open", _link_open), ("link_close", _link_close), ("image", _image),
        ("heading_open", _heading_open), ("heading_close", _heading_close),
    ):  # fmt: skip
        made.add_render_rule(name, rule)
    return made


_MARKDOWN = _markdown()
