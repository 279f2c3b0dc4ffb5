"""HTML of the ChatGPT site, as ShareGPT exported it, back to Markdown."""

from __future__ import annotations

import re

# Class names that the site itself gives; HTML that a user or the model wrote does not have them.
_SITE = re.compile(
    r'<(?:div|p|span|pre)\b[^>]*\bclass="[^"]*\b'
    r"(?:markdown prose|prose w-full|whitespace-pre-wrap)\b"
)
_BARE = re.compile(r"<(?:p|ul|ol)>.*</(?:p|ul|ol|pre|table|blockquote)>", re.DOTALL)
_LANGUAGE = re.compile(r"\blanguage-([\w+#.-]+)")


def is_site_html(text: str) -> bool:
    """Whether a turn is HTML of the site's export, and not Markdown that speaks of HTML."""
    if "<" not in text:
        return False
    if _SITE.search(text):
        return True
    bare = text.strip()
    return "```" not in bare and " class=" not in bare and _BARE.fullmatch(bare) is not None


def to_markdown(text: str) -> str:
    """Markdown of the site's HTML; code blocks keep their language and lose their buttons.

    A text that is nested too deeply to be converted is returned as it is.
    """
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    try:
        soup = BeautifulSoup(text, "html.parser")
        for button in soup.find_all("button"):
            button.decompose()
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
        converter = MarkdownConverter(
            heading_style="ATX",
            bullets="-",
            escape_asterisks=False,
            escape_underscores=False,
            escape_misc=False,
            code_language_callback=lambda block: str(block.get("data-language", "")),
        )
        converted = str(converter.convert_soup(soup))
    except RecursionError:
        return text
    return converted.strip()
