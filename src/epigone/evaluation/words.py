"""The words of a text, in any script."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

# Thai, Lao, Burmese, Khmer, kana and Han: words stand side by side. For a class of characters.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)


def words(text: str) -> list[str]:
    """Lower-case words: runs of letters and digits with their marks, with inner apostrophes.

    Of a script without spaces every character is one, with its marks: where its words end is not
    known without a dictionary.
    """
    return _word().findall(unicodedata.normalize("NFC", text.lower()))


@cache
def _word() -> re.Pattern[str]:
    marks = _marks()
    # A mark is no letter, so that each text can be read in one way only.
    letters = rf"[^\W_{UNSPACED}]"
    run = rf"{letters}+(?:[{marks}]+{letters}*)*"
    # Inner joiners that are not seen shape letters of Persian and of India's languages.
    return re.compile(rf"{run}(?:['\u2019\u200c\u200d]{run})*|(?=\w)[{UNSPACED}][{marks}]*")


def _marks() -> str:
    """Combining vowels, accents and signs that are no letters to `re`, for a class of characters.

    Those that choose the look of an emoji are none: no word goes on through them. Beyond the Basic
    Multilingual Plane `re` looks at one after the other, and few living scripts are.
    """
    found = [
        c
        for c in map(chr, range(0x300, 0x10000))
        if unicodedata.category(c) in ("Mn", "Mc") and not c.isalnum()
        and not unicodedata.name(c, "").startswith("VARIATION SELECTOR")
    ]  # fmt: skip
    return "".join(found)
