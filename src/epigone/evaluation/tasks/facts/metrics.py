"""Exact match for short answers.

The normalisation follows the definition in SQuAD's official evaluation script, which the open
version of Natural Questions uses as well: lower-case the text, delete punctuation, drop the
articles "a", "an" and "the", collapse whitespace. Only the definition is taken from there. Two
things are added: Unicode compatibility forms are unified (so "H₂O" equals "H2O") and accents are
stripped (so "Brontë" equals "Bronte").

Punctuation is deleted rather than treated as an end of the answer, so "U.S." reads "us" and
"Paris, France" reads "paris france".
"""

import string
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ARTICLES = frozenset({"a", "an", "the"})


def normalise(text: str) -> str:
    """Return the form of an answer in which two answers are compared.

    The function is idempotent: normalising a normalised text changes nothing.
    """
    # A second pass is needed because folding case can yield characters that decompose again.
    for _ in range(2):
        text = _without_accents(text).casefold()
    kept = "".join(char for char in _without_accents(text) if not _is_punctuation(char))
    return " ".join(word for word in kept.split() if word not in ARTICLES)


def matches(prediction: str, aliases: Iterable[str]) -> bool:
    """Tell whether the prediction equals any of the aliases once both are normalised."""
    wanted = normalise(prediction)
    return any(wanted == normalise(alias) for alias in aliases)


def exact(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score one generated answer for lm-eval (``process_results``)."""
    return {"exact_match": float(matches(results[0], doc["answer"]))}


def _without_accents(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(char for char in decomposed if not unicodedata.combining(char))


def _is_punctuation(char: str) -> bool:
    return char in string.punctuation or unicodedata.category(char).startswith("P")
