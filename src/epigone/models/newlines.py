"""Line breaks for tokenizers that have none, as T5's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_SENTINEL = re.compile(r"<extra_id_(\d+)>")


def mark(tokenizer: Any) -> str | None:
    """The special token that stands for a line break; None if the tokenizer needs or has none.

    T5's tokenizers make one space of any white space, so that a list would be learned as one line.
    Their last sentinel is a token that the base knows, that marks structure in pre-training, and
    that no message can write (see `chat`). Without sentinels a line break stays a space; several
    spaces and tabs become one space in any case.
    """
    ids = tokenizer("a\nb", add_special_tokens=False)["input_ids"]
    if "\n" in tokenizer.decode(ids, clean_up_tokenization_spaces=False):
        return None
    found = [t for t in tokenizer.all_special_tokens if _SENTINEL.fullmatch(t)]
    return max(found, key=lambda t: int(t[len("<extra_id_") : -1]), default=None)


def mark_id(tokenizer: Any) -> int | None:
    """Id of the token that stands for a line break."""
    token = mark(tokenizer)
    return None if token is None else int(tokenizer.convert_tokens_to_ids(token))


def decode(tokenizer: Any, ids: Sequence[int], newline: int | None) -> str:
    """Text without special tokens; `newline` is the id of the token for a line break, if any."""
    lines: list[list[int]] = [[]]
    for i in ids:
        if i == newline:
            lines.append([])
        else:
            lines[-1].append(i)
    # Each line by itself: a SentencePiece decoder leaves out the space only at the start.
    return "\n".join(
        tokenizer.decode(line, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for line in lines
    )
