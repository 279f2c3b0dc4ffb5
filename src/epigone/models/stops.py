"""Where an answer ends, and its text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from epigone.models import newlines
from epigone.models.sampling import Pick
from epigone.schema import Progress, silent


@dataclass(frozen=True, slots=True)
class Generated:
    """One prompt's continuation.

    `ids` holds no end token. `text` is decoded without special tokens and cut before the stop
    text; it is None where no tokenizer was given.
    """

    ids: tuple[int, ...]
    text: str | None
    stop: Literal["end", "length", "text"]

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Generated:
        """The inverse of `dataclasses.asdict`, through JSON."""
        return cls(tuple(told["ids"]), told["text"], told["stop"])


@dataclass(frozen=True, slots=True)
class Stops:
    """What ends a row: an id, a text, `max_new` tokens, or `limit` positions.

    `newline` is the id of the token that stands for a line break (see `newlines.mark_id`).
    """

    ids: frozenset[int]
    texts: tuple[str, ...]
    max_new: int
    limit: int
    tokenizer: Any
    newline: int | None = None

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, without special tokens."""
        return newlines.decode(self.tokenizer, ids, self.newline)

    def hit(self, ids: list[int]) -> bool:
        """Whether a stop text ends in the newest token."""
        if not self.texts:
            return False
        # A token has a byte at least and a character at most four, so this tail holds the text.
        tail = self.decode(ids[-4 * max(map(len, self.texts)) - 8 :])
        return any(t in tail for t in self.texts) and any(t in self.decode(ids) for t in self.texts)

    def result(self, ids: list[int], stop: Literal["end", "length", "text"]) -> Generated:
        """A finished row."""
        if self.tokenizer is None:
            return Generated(tuple(ids), None, stop)
        text = self.decode(ids)
        cut = min((at for t in self.texts if (at := text.find(t)) >= 0), default=len(text))
        return Generated(tuple(ids), text[:cut], stop)


def _nothing(answers: Mapping[int, Generated]) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Hooks:
    """What happens between forwards: tokens are picked, progress is told, answers are finished."""

    pick: Pick
    progress: Progress = silent
    finished: Callable[[Mapping[int, Generated]], None] = _nothing
