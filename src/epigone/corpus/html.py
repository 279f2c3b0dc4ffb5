"""HTML of the ChatGPT site, as ShareGPT exported it, back to Markdown."""

from __future__ import annotations

import functools
import re
from typing import Any

# What the site itself wraps a turn in, perhaps behind an answer counter. HTML that a user or the
# model wrote does not begin so. Runs are bounded, so that no text makes a search quadratic.
_WRAPPED = re.compile(
    r"\s*(?:\d+ / \d+\s*)?(?:<div[^<>]{0,300}>\s*){0,4}"
    r"<(?:div|p|span)\b[^<>]{0,300}\bclass=\"[^\"<>]{0,300}"
    r"(?:\bmarkdown prose\b|\bprose w-full\b|min-h-\[20px\][^\"<>]{0,200}\bwhitespace-pre-wrap\b)"
)
_PLAIN = r"(?:p|ul|ol|pre|table|blockquote|h[1-6])"
_BARE = re.compile(rf"\s*(?:<div>\s*)?<{_PLAIN}>")
_BARE_END = re.compile(rf"</{_PLAIN}>\s*(?:</div>)?\s*\Z")
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|nbsp|#39|#x27);")
_LANGUAGE = re.compile(r"\blanguage-([\w+#.-]+)")
_BACKTICKS = re.compile(r"^\s*(`{3,})", re.MULTILINE)


def is_site_html(text: str) -> bool:
    """Whether a turn is wrapped in HTML of the site's export."""
    return _WRAPPED.match(text) is not None


def is_bare_html(text: str) -> bool:
    """Whether all of a turn is HTML without classes, which an export or the model may have made."""
    return (
        _BARE.match(text) is not None
        and _BARE_END.search(text[-40:]) is not None
        and "```" not in text
        and " class=" not in text
    )


def has_entities(text: str) -> bool:
    """Whether a turn holds &lt; and the like, and no tags."""
    return _ENTITY.search(text) is not None and re.search(r"</?\w", text) is None


def to_markdown(text: str) -> str:
    """Markdown of the site's HTML; code blocks keep their language and lose their buttons.

    A prompt keeps its line breaks and indentation. What the parser cannot take, as HTML that is
    nested too deeply, is returned as it is.
    """
    from bs4 import BeautifulSoup

    converter = _converter()
    try:
        soup = BeautifulSoup(text, "html.parser")
        if "whitespace-pre-wrap" in text[:1_000] and "markdown prose" not in text[:1_000]:
            return str(soup.get_text()).strip("\n")
        _prepare(soup)
        return str(converter.convert_soup(soup)).strip()
    except Exception:  # HTML from anywhere meets parsers that were written for pages
        return text


def _prepare(soup: Any) -> None:
    """Take out what is not said: buttons, the second rendering of formulas, odd attributes."""
    for button in soup.find_all("button"):
        button.decompose()
    for formula in soup.find_all(class_="katex"):
        source = formula.find("annotation")
        if source is not None:
            formula.replace_with(f"${source.get_text()}$")
    for tag in soup.find_all(["td", "th", "ol"]):
        for name in ("colspan", "start"):
            value = str(tag.get(name, "1"))
            if not (value.isascii() and value.isdigit() and int(value[:9]) <= 100):
                del tag[name]
    for block in soup.find_all("pre"):
        code = block.find("code")
        if code is None:
            continue
        named = _LANGUAGE.search(" ".join(code.get("class") or ()))
        if named:
            block["data-language"] = named[1]
        code.string = code.get_text()
        block.clear()
        block.append(code)


@functools.cache
def _converter() -> Any:
    from markdownify import MarkdownConverter

    class Converter(MarkdownConverter):
        """With fences longer than those inside, and cells whose bars part nothing."""

        def convert_pre(self, el: Any, text: str, parent_tags: set[str]) -> str:
            inside = max((len(found) for found in _BACKTICKS.findall(text)), default=0)
            fence = "`" * max(3, inside + 1)
            language = str(el.get("data-language", ""))
            return f"\n\n{fence}{language}\n{text.strip(chr(10))}\n{fence}\n\n" if text else ""

        def convert_td(self, el: Any, text: str, parent_tags: set[str]) -> str:
            return str(super().convert_td(el, _cell(text), parent_tags))  # type: ignore[misc]

        def convert_th(self, el: Any, text: str, parent_tags: set[str]) -> str:
            return str(super().convert_th(el, _cell(text), parent_tags))  # type: ignore[misc]

    return Converter(
        heading_style="ATX",
        bullets="-",
        escape_asterisks=False,
        escape_underscores=False,
        escape_misc=False,
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
