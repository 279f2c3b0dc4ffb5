"""Who does the work on all conversations of a corpus: this machine, or many."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol, Self

from epigone.corpus import duplicates
from epigone.corpus.audit import Audit
from epigone.corpus.clean import clean
from epigone.corpus.contamination import Index, Item
from epigone.corpus.reading import Reading
from epigone.corpus.selection import Entry
from epigone.corpus.store import Store, Stored
from epigone.study.specs import CorpusSpec

# For a conversation, by its place, the runs of held-out prompts' words that it holds.
Passages = dict[int, set[tuple[str, ...]]]
STEPS: dict[str, Callable[[Iterable[Entry], Callable[[Entry], str]], duplicates.Sorted]] = {
    "forks": lambda entries, opening: duplicates.forks(entries),
    "same_query": lambda entries, opening: duplicates.same_query(entries),
    "near_query": duplicates.near_query,
}


class Engine(Protocol):
    """Reads and cleans, compares, and finds conversations again; the same whoever does it."""

    def entries(
        self, reading: Reading, audit: Audit, tokenizer_json: Path, items: Sequence[Item]
    ) -> list[Entry]:
        """What passes the rules, in the order of the files, each counted in the account."""

    def copies(self, rule: str, entries: list[Entry]) -> duplicates.Sorted:
        """What stays behind one of the `STEPS`."""

    def passages(self, entries: Sequence[Entry], items: Sequence[Item]) -> Passages:
        """The conversations in whose prompts a run of the items' words is."""

    def get(self, entry: Entry) -> Stored:
        """A conversation."""

    def query(self, entry: Entry) -> str:
        """The first prompt of a conversation."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind."""


class Here:
    """This machine: all cores clean, one process compares, and the text waits on the disk."""

    def __init__(self, spec: CorpusSpec, out: Path) -> None:
        self._spec, self._out = spec, out
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        # Only hashes of the cleaned text are in memory.
        self._store = Store(self._stack.enter_context(tempfile.TemporaryFile(dir=self._out)))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def entries(
        self, reading: Reading, audit: Audit, tokenizer_json: Path, items: Sequence[Item]
    ) -> list[Entry]:
        """See `Engine`."""
        return list(self._entries(reading, audit, tokenizer_json, items))

    def _entries(
        self, reading: Reading, audit: Audit, tokenizer_json: Path, items: Sequence[Item]
    ) -> Iterator[Entry]:
        for row, outcome in clean(reading.rows(), self._spec, tokenizer_json, items):
            audit.outcome(row.id, outcome, self._spec.rules)
            if outcome.entry:
                yield outcome.entry.at(self._store.add(outcome.packed))

    def copies(self, rule: str, entries: list[Entry]) -> duplicates.Sorted:
        """See `Engine`."""
        return STEPS[rule](entries, lambda entry: self.get(entry).opening)

    def passages(self, entries: Sequence[Entry], items: Sequence[Item]) -> Passages:
        """See `Engine`."""
        index = Index(items)
        found = ((e.place, passages_in(index, self.get(e))) for e in entries)
        return {place: runs for place, runs in found if runs}

    def get(self, entry: Entry) -> Stored:
        """See `Engine`."""
        return self._store.get(entry)

    def query(self, entry: Entry) -> str:
        """See `Engine`."""
        return self.get(entry).query


def passages_in(index: Index, stored: Stored) -> set[tuple[str, ...]]:
    """The runs of an index's items that a conversation's prompts hold."""
    return index.runs(m.content for m in stored.conversation.messages if m.role == "user")
