"""Which conversations hold what a study asks later: items of benchmarks, held-out prompts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Words in a row that make two texts share a passage (Brown et al. 2020, appendix C).
RUN = 13
# A question of fewer words than this is found only where it is a whole prompt.
SHORTEST = 5
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Item:
    """Something that is asked later: its name, as facts/12, the question, and all of its text."""

    name: str
    question: str
    text: str = ""


def words(text: str) -> list[str]:
    """A text's words without case, accents of compatibility and punctuation."""
    if text.isascii():  # the same, and much faster
        return _WORD.findall(text.lower())
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


class Index:
    """Finds items in conversations: a run of 13 of an item's words, or its whole question."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._runs: dict[tuple[int, ...], str] = {}
        self._vocabulary: dict[str, int] = {}
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
        ids = tuple(self._vocabulary.setdefault(w, len(self._vocabulary)) for w in run)
        self._runs.setdefault(ids, name)

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

    def _passage(self, said: Sequence[str]) -> str:
        if not self._lengths:
            return ""
        # Only stretches in which an item's words follow one another can hold a run.
        known = bytes(map(self._vocabulary.__contains__, said))
        stretch = b"\1" * self._lengths[-1]
        start = known.find(stretch)
        while start >= 0:
            end = known.find(b"\0", start)
            end = end if end >= 0 else len(known)
            if name := self._run_in([self._vocabulary[word] for word in said[start:end]]):
                return name
            start = known.find(stretch, end)
        return ""

    def _run_in(self, ids: Sequence[int]) -> str:
        for length in self._lengths:
            for start in range(len(ids) - length + 1):
                if name := self._runs.get(tuple(ids[start : start + length])):
                    return name
        return ""
