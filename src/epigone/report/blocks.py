"""What a printed report is made of: headings, paragraphs, tables and figures of safe text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epigone.report.text import number, visible
from epigone.schema import Interval

Show = Callable[[float | None], str]


@dataclass(frozen=True, slots=True)
class Heading:
    """A section's title; level 1 is the document's own."""

    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """One paragraph; `strong` are its first words, set apart."""

    text: str
    strong: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a header; the first column names the row."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart: its file's name, its title, what it shows in words, and its specification.

    `words` tell the chart's numbers to those who cannot see it.
    """

    name: str
    title: str
    caption: str
    words: str
    spec: Mapping[str, Any]


Block = Heading | Paragraph | Table | Figure


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[Block]:
    """A table, unless it has no rows."""
    found = tuple(tuple(map(line, row)) for row in rows)
    if found:
        yield Table(line(caption), tuple(map(line, header)), found)


def said(text: str, strong: str = "") -> Paragraph:
    """A paragraph of any text."""
    return Paragraph(line(text), line(strong))


def line(text: str) -> str:
    """Any text as one line that is safe to show as text."""
    return " ".join(visible(text).split())


def interval(found: Interval | None, show: Show = number) -> str:
    """A number with its 95% interval in brackets, or why there is none."""
    if found is None or found.value is None:
        return "not known"
    if found.low is None or found.high is None:
        return f"{show(found.value)} [no interval]"
    low, high = (show(x).removesuffix(" points") for x in (found.low, found.high))
    return f"{show(found.value)} [{low}, {high}]"
