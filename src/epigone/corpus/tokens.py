"""Counting tokens as a reference tokenizer does, without special ones."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epigone.errors import CorpusError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# What tokenizers differ in: contractions, runs of spaces, digits, scripts, marks, joined emoji.
_PROBE = (
    "It's I'LL we'd\n't don\u2019t   of\t\ttabs \r\n\n\n  x=1;\n    return [0.25, 1234567]",
    "na\u00efve e\u0301 \u00df \u0130\u0131 \u65e5\u672c\u8a9e \u0627\u0644 \u0e19\u0e33"
    " \ud55c\uad6d \u00bd\u2167\u2460 \u0663",
    "\u200b\u200d\u3000\u00a0\u2028 \U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea <b>&amp;</b>",
    "    \x0b\x0c\x85 <s></s><unk><unk><pad><|im_start|><|endoftext|><bos> a_b-c/d\\e ```py\n```",
)


def load_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer that counts every token; raises CorpusError for a file that holds none."""
    from tokenizers import Tokenizer

    try:
        tokenizer: Tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise CorpusError(
            "no tokenizer can be read", value=str(path), fix=str(error)[:200]
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


class TokenCounter:
    """Counts by fastokens, several times as fast as tokenizers, where both agree on a probe."""

    def __init__(self, path: Path) -> None:
        """Load the tokenizer; raises CorpusError for a file that holds none."""
        tokenizer = load_tokenizer(path)
        self._slow: Tokenizer | None = tokenizer
        self._fast = _fast(path)
        if self._fast is not None and [len(self._fast.encode(t)) for t in _PROBE] == [
            len(tokenizer.encode(t, add_special_tokens=False)) for t in _PROBE
        ]:
            self._slow = None

    def __call__(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        if self._slow is None:
            return [len(self._fast.encode(text)) for text in texts]
        found = self._slow.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding) for encoding in found]


# The process that loaded fastokens. Its threads do not survive a fork: in a child of a process
# that has used it, it would wait for them for ever.
_loaded_by = 0


def _fast(path: Path) -> Any:
    global _loaded_by
    if "fastokens" in sys.modules and _loaded_by != os.getpid():
        return None
    import fastokens

    _loaded_by = os.getpid()
    try:
        tokenizer = fastokens.Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
    except Exception:  # a kind of tokenizer that it does not know
        return None
    return tokenizer
