"""A report as one Markdown file, for GitHub and for papers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from epigone.report.blocks import Block, Figure, Heading, Paragraph, Table

_ALWAYS = re.compile(r"([\\`*_{}\[\]<>#|~$&!@^])")
# What would begin a list, a rule or an underline at the start of a line.
_FIRST = re.compile(r"^(\d{1,9})?([-+.)=](?=[\s=-]|$))")
_LINK = re.compile(r"(?i)\b(www)\.|(:)//")


def markdown(blocks: Sequence[Block], folder: str) -> str:
    """GitHub-flavoured Markdown; figures are `folder`/NAME.svg beside the file."""
    return "\n\n".join(_block(b, folder) for b in blocks) + "\n"


def escaped(text: str) -> str:
    """Any text as Markdown that shows just this text, on one line."""
    text = " ".join(text.split())
    text = _ALWAYS.sub(r"\\\1", text)
    text = _LINK.sub(lambda m: f"{m[1]}\\." if m[1] else "\\://", text)
    return _FIRST.sub(lambda m: f"{m[1] or ''}\\{m[2]}", text)


def _block(block: Block, folder: str) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {escaped(block.text)}"
    if isinstance(block, Paragraph):
        strong = f"**{escaped(block.strong)}** " if block.strong else ""
        return strong + escaped(block.text)
    if isinstance(block, Figure):
        image = f"![{escaped(f'{block.title}. {block.words}')}]({folder}/{block.name}.svg)"
        return f"{image}\n\n*{escaped(block.title)}.* {escaped(block.caption)}".rstrip()
    return _table(block)


def _table(table: Table) -> str:
    lines = [f"**{escaped(table.caption)}**", "", _row(table.header)]
    lines.append("|" + " --- |" * len(table.header))
    return "\n".join([*lines, *map(_row, table.rows)])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escaped(c) for c in cells) + " |"
