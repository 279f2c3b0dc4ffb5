"""What of an answer is prose: its lines outside of fenced code, and its paragraphs."""

from __future__ import annotations

import re

# No line is looked at further for code.
LONGEST = 400
FENCE = re.compile(r"\s{0,12}(`{3,}|~{3,})([^`\n]{0,80})$")
_EMPTY_LINE = re.compile(r"\n[^\S\n]*\n")


def prose_lines(text: str) -> list[str]:
    """The lines outside of fenced code; an open fence has no end."""
    lines: list[str] = []
    fence = ""
    for line in text.splitlines():
        found = FENCE.match(line[:LONGEST])
        if found is None:
            if not fence:
                lines.append(line)
        elif not fence:
            fence = found[1]
        elif found[1].startswith(fence) and not found[2].strip():
            fence = ""
    return lines


def paragraphs(text: str) -> list[str]:
    """The stretches of prose between empty lines, without space around them."""
    parts = (p.strip() for p in _EMPTY_LINE.split("\n".join(prose_lines(text))))
    return [p for p in parts if p]
