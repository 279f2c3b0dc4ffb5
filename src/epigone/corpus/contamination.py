"""Which conversations hold what a study asks later: items of benchmarks, held-out prompts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass

from epigone.corpus.selection import spaced

# Words in a row that make two texts share a passage (Brown et al. 2020, appendix C).
RUN = 13
# A question of fewer words than this is found only where it is a whole prompt.
SHORTEST = 5
_WORD = re.compile(r"\w+")
_ASCII_WORDS = str.maketrans(
    {i: c.lower() if _WORD.match(c) else " " for i, c in enumerate(map(chr, range(128)))}
)


@dataclass(frozen=True, slots=True)
class Item:
    """Something that is asked later: its name, as facts/12, the question, and all of its text."""

    name: str
    question: str
    text: str = ""


def words(text: str) -> list[str]:
    """A text's words without case, accents of compatibility and punctuation.

    Of scripts without blanks between words, each letter is one.
    """
    if text.isascii():  # the same, and much faster
        return text.translate(_ASCII_WORDS).split()
    return _WORD.findall(spaced(unicodedata.normalize("NFKC", text).casefold()))


class Index:
    """Finds items in conversations: a run of 13 of an item's words, or its whole question."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._runs: dict[tuple[str, ...], str] = {}
        # What their runs begin with, and the words that are in any.
        self._beginnings: set[tuple[str, ...]] = set()
        self._vocabulary: set[str] = set()
        self._whole: dict[tuple[str, ...], str] = {}
        lengths = set()
        for item in items:
            asked = words(item.question)
            if asked:
                self._whole.setdefault(tuple(asked), item.name)
            if SHORTEST <= len(asked) < RUN:
                self._add(asked, item.name)
                lengths.add(len(asked))
            text = words(item.text or item.question)
            for start in range(len(text) - RUN + 1):
                self._add(text[start : start + RUN], item.name)
                lengths.add(RUN)
        self._lengths = sorted(lengths, reverse=True)

    def _add(self, run: Sequence[str], name: str) -> None:
        self._vocabulary.update(run)
        self._beginnings.add(tuple(run[:SHORTEST]))
        self._runs.setdefault(tuple(run), name)

    def find(self, prompts: Iterable[str], replies: Iterable[str] = ()) -> str:
        """The name of an item that a conversation holds, or nothing."""
        for text in prompts:
            said = words(text)
            if name := self._whole.get(tuple(said), "") or self._passage(said):
                return name
        for text in replies:
            if name := self._passage(words(text)):
                return name
        return ""

    def runs(self, prompts: Iterable[str]) -> set[tuple[str, ...]]:
        """All runs of the items' words, and items' questions that are a whole prompt."""
        found: set[tuple[str, ...]] = set()
        for text in prompts:
            said = words(text)
            if tuple(said) in self._whole:
                found.add(tuple(said))
            found.update(self._hits(said))
        return found

    def telling(self, items: Iterable[Item], common: Set[tuple[str, ...]]) -> set[tuple[str, ...]]:
        """The runs of items that are more than a few words behind or before a common one."""
        found: set[tuple[str, ...]] = set()
        for item in items:
            asked = tuple(words(item.question))
            own = [1] * len(asked)
            for length in (*self._lengths, len(asked)):
                for start in range(len(asked) - length + 1):
                    if asked[start : start + length] in common:
                        own[start : start + length] = [0] * length
            for length in (*self._lengths, len(asked)):
                for start in range(len(asked) - length + 1):
                    if sum(own[start : start + length]) >= min(length, SHORTEST):
                        found.add(asked[start : start + length])
        return found

    def name(self, run: tuple[str, ...]) -> str:
        """The item that a run, or a whole prompt, is from."""
        return self._whole.get(run) or self._runs[run]

    def _passage(self, said: Sequence[str]) -> str:
        run = next(self._hits(said), None)
        return self._runs[run] if run else ""

    def _hits(self, said: Sequence[str]) -> Iterator[tuple[str, ...]]:
        if not self._lengths:
            return
        # Only stretches in which an item's words follow one another can hold a run.
        known = bytes(map(self._vocabulary.__contains__, said))
        stretch = b"\1" * self._lengths[-1]
        start = known.find(stretch)
        while start >= 0:
            end = known.find(b"\0", start)
            end = end if end >= 0 else len(known)
            yield from self._hits_in(said[start:end])
            start = known.find(stretch, end)

    def _hits_in(self, said: Sequence[str]) -> Iterator[tuple[str, ...]]:
        beginnings = zip(*(said[i:] for i in range(SHORTEST)), strict=False)
        if self._beginnings.isdisjoint(beginnings):
            return
        for length in self._lengths:
            for start in range(len(said) - length + 1):
                run = tuple(said[start : start + length])
                if run in self._runs:
                    yield run
