"""Lists, summaries, headings and code in answers, whether they are markdown or plain text.

Read line by line and not by a markdown parser: much of what models write is no sound markdown,
and what a reader calls a list or a heading is often marked in no way that markdown knows. How
often this is right is measured on real answers in bench/style.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from epigone.evaluation.formulas import closes
from epigone.evaluation.prose import FENCE, LONGEST, paragraphs, prose_lines

_HEADING = 80

# A bullet needs a following space, so that "**bold**" and "-5" are none; "* * *" is a rule.
_ITEM = re.compile(
    r"\s{0,12}(?:>\s{0,4}){0,3}(?!([-*])(?:\s{0,4}\1){2,80}\s*$)(?:\*\*)?(?:[-*+\u2022\u2023\u25e6\u2043\u2013]|\(?\d{1,3}[.):]|"
    r"\(?[a-zA-Z][.)]|\(?[ivx]{1,5}[.)]|step \d{1,2}[.:)])(?:\*\*)?\s+\S",
    re.IGNORECASE,
)
# "Term: what it is" or "Term - what it is".
_TERM = re.compile(r"\s{0,8}([A-Z0-9][^.!?:\n]{0,40}?)(?:: | [-\u2013] )\s{0,2}\S")
_CODE_LINE = re.compile(
    r".{0,300}[;{]\s*$|\s{0,40}[\]})]{1,4}[;,]?\s*$|\s{0,40}</?[a-zA-Z!][^<>\n]{0,200}>\s*$|"
    r"\s{0,40}(?:def|class) \w.{0,200}:\s*$|import [\w{*]|from [\w.]{1,60} import |#include\b|"
    r"SELECT\b|\s{0,40}(?:const|let|var|public|private|function) .{0,200}[=({]|"
    r"\s{0,40}[\w.\[\]]{1,60} [+-]?= \S|\s{0,40}\"[^\"\n]{1,60}\"\s?: \S"
)
# No "finally" and "in general": in ChatGPT's answers they begin a last step or a caveat.
_SUMS_UP = re.compile(
    r"(?:in (?:conclusion|summary|short|brief|closing|essence|the end)|overall|ultimately|"
    r"to (?:sum(?:mari[sz]e)?(?: (?:it )?(?:all )?up)?|conclude)|in sum|all in all|"
    r"altogether|summary|conclusion|as a whole|by \w{1,20}ing)\b",
    re.IGNORECASE,
)
_SUMMARY_BELOW = re.compile(
    r"(?:(?:\d{1,2}|[IVX]{1,5})[.)] )?(?:in |the )?(?:summary|conclusions?|takeaways?|"
    r"(?:final|closing) thoughts|key takeaways?|bottom line|tl;?dr)",
    re.IGNORECASE,
)
_UNDERLINE = re.compile(r"\s{0,3}(?:={3,}|-{3,})\s*$")
_MARKDOWN_HEADING = re.compile(r"\s{0,3}#{1,6}\s+\S|\s{0,3}(\*\*|__)(?=\S)[^*_]{1,90}\1:?\s*$")
# A part that is counted, or what such a part of a text is called.
_COUNTED = re.compile(
    r"(?:step|phase|week|day|module|chapter|subchapter|part|section|page|lesson|unit|act|scene|"
    r"stage|option|verse|scenario) (?:\d{1,3}|[IVX]{1,5})\b|\(?(?:verse|chorus|bridge|intro|"
    r"outro|title)\b|[IVX]{1,5}\. ",
    re.IGNORECASE,
)
# A line with one of these is the beginning of a sentence that leads to what follows.
_LEADS = re.compile(
    r"\b(?:here|hers?|follow\w*|this|that|these|those|is|are|was|were|will|can|could|would|should|"
    r"may|might|must|you|your|we|our|i|let|example|such|note|includ\w+|like|as|if|"
    r"have|has|do|does|dear|best|sincerely|regards|subject|re|e\.g|output|sure)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_][\w'\u2019-]{0,60}")


def has_list(text: str) -> bool:
    """Whether an answer holds a list outside code: two items or more.

    An item is a line with a bullet, number, letter or "Step 1:" before it. Without marks, three
    short lines in a row are a list if each begins with a term of its own and a colon or dash.
    """
    lines = prose_lines(text)
    if sum(bool(_ITEM.match(line)) for line in lines) >= 2:
        return True
    return any(_terms(run) for run in _runs(lines))


def has_summary(text: str) -> bool:
    """Whether the last paragraph, but for an offer of help, sums up.

    It is prose without items that begins with a closing formula or stands below one as a heading.
    """
    parts = paragraphs(text)
    if len(parts) > 1 and not _SUMS_UP.match(_bare(parts[-1])) and closes(parts[-1]):
        parts.pop()
    if len(parts) < 2 or any(_ITEM.match(line) for line in parts[-1].splitlines()):
        return False
    below = len(parts) > 2 and _SUMMARY_BELOW.fullmatch(_bare(parts[-2]))
    return bool(below or _SUMS_UP.match(_bare(parts[-1])))


def has_headings(text: str) -> bool:
    """Whether a line of its own names the part below it, by markdown or by how it is written.

    In plain text that is a short line above others, at the beginning or after an empty line, which
    is no sentence and leads to none: with a colon behind it, with capitals, or counted.
    """
    lines = prose_lines(text)
    for i, line in enumerate(lines):
        if _MARKDOWN_HEADING.match(line):
            return True
        alone = i == 0 or not lines[i - 1].strip()
        below = lines[i + 1 : i + 3]
        if alone and any(x.strip() for x in below) and _plain_heading(line):
            return True
        if alone and below and _UNDERLINE.match(below[0]) and _underlined(line):
            return True
    return False


def has_code(text: str) -> bool:
    """Whether an answer holds code on lines of its own: a fence, or two such lines in a row."""
    previous = False
    for line in text.splitlines():
        if FENCE.match(line[:LONGEST]):
            return True
        # Items of a legal text end with semicolons as well.
        now = bool(_CODE_LINE.match(line[:LONGEST])) and not _ITEM.match(line[:LONGEST])
        if now and previous:
            return True
        previous = now
    return False


def _bare(paragraph: str) -> str:
    return paragraph.strip("*_#> :")


def _runs(lines: Sequence[str]) -> Iterator[list[str]]:
    run: list[str] = []
    for line in (*lines, ""):
        if line.strip():
            run.append(line)
        elif run:
            yield run
            run = []


def _terms(run: Sequence[str]) -> bool:
    """Whether lines are three terms or more; speakers come again, terms do not."""
    terms = [m[1] for line in run if (m := _TERM.match(line))]
    return len(terms) >= 3 and len(terms) >= len(run) - 1 and len(set(terms)) == len(terms)


def _underlined(line: str) -> bool:
    """Whether a line above a rule is its heading, and no sentence, item or row of a table.

    In small letters it is a comment of code that markdown has lost its mark of.
    """
    text = line.strip().strip("*_")
    named = 2 < len(text) <= _HEADING and _WORD.search(text) and not text[0].islower()
    return bool(named and text[-1] not in ".!?,;:|" and not _ITEM.match(line))


def _plain_heading(line: str) -> bool:
    text = line.strip().strip("*_")
    if not 2 < len(text) <= _HEADING or (text[-1] in '.!?,;`"\u201d])' and text[0] != "("):
        return False
    if _COUNTED.match(text):
        return True
    names = _WORD.findall(text)
    if _ITEM.match(line) or not names or _LEADS.search(text) or text.isupper():
        return False
    if text[-1] == ":":
        return text[0].isupper() and len(names) <= 6
    long = [n for n in names if len(n) > 3]
    return 2 <= len(names) <= 12 and text[0].isupper() and all(n[0].isupper() for n in long)
