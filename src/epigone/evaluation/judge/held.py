"""Whether an answer holds a right one, once both are made alike."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from epigone.evaluation.words import UNSPACED
from epigone.schema import Sample

# A sign or a point belongs to its number, a point or comma to the digits on both sides of it, and
# plus or sharp to the letters before it: -5, .5, 3.5, 1,000, C++, C#.
_WORD = re.compile(
    r"(?:(?<![\w.,)])-(?=\.?\d))?(?:(?<!\w)\.(?=\d))?[^\W_]+(?:(?<=\d)[.,](?=\d)[^\W_]+)*"
    r"(?:(?<=[^\W\d_])(?:\+\+|[+#](?!\w)))?|%"
)
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?\D*")
_POINT = re.compile(r"^(-?)\.(?=\d)")
_UNSPACED = re.compile(f"[{UNSPACED}]")
_SPACE = re.compile(r"\s+")


def marks(
    answers: Mapping[str, Sample], n: int | None, references: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Whether an answer holds one of its references, where there are any (see `holds`)."""
    return {
        item: float(any(holds(sample.output, right) for right in references[item]))
        for item, sample in list(answers.items())[:n]
        if item in references
    }


def holds(text: str, reference: str) -> bool:
    """Whether a text holds a reference as whole words in their order, without regard to case.

    In scripts without spaces it holds it anywhere, but for a part of a number or of a Latin word.
    """
    if _UNSPACED.search(reference):
        wanted = re.escape(_SPACE.sub("", _alike(reference)))
        found = rf"(?<![0-9a-z.,-]){wanted}" if re.match(r"[0-9a-z]", wanted) else wanted
        if re.search(r"[0-9a-z]$", wanted):
            found += r"(?![0-9a-z]|[.,]\d)"
        return re.search(found, _SPACE.sub("", _alike(text))) is not None
    said, wanted_words = words(text), words(reference)
    return bool(wanted_words) and f" {' '.join(wanted_words)} " in f" {' '.join(said)} "


def words(text: str) -> list[str]:
    """The words and numbers of a text, in small letters: 1,000 as 1000, .5 as 0.5."""
    return [
        word.replace(",", "") if _THOUSANDS.fullmatch(word) else _POINT.sub(r"\g<1>0.", word)
        for word in _WORD.findall(_alike(text))
    ]


def _alike(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().replace("\u2212", "-")
