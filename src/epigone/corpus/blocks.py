"""Parts of a corpus in files, and what is done to each wherever it is done.

A block is two files: the packed conversations, and their entries, of which the places count from
the block's beginning.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epigone.corpus.audit import Audit, Source
from epigone.corpus.clean import Work
from epigone.corpus.components import keys, pairs
from epigone.corpus.contamination import Index, Item
from epigone.corpus.engine import STEPS, passages_in
from epigone.corpus.readers import File
from epigone.corpus.reading import Part
from epigone.corpus.rows import Invalid, Row
from epigone.corpus.selection import Entry
from epigone.corpus.store import Stored, unpacked
from epigone.corpus.values import Lost
from epigone.errors import CorpusError, UserError
from epigone.files import write_aside
from epigone.study.specs import CorpusSpec

Columns = dict[str, Any]
# Characters of text from which on a chunk of a file is full.
_TEXT = 1 << 20
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Job:
    """What all workers need: Epigone's version, the rules, the files, the folder of the blocks.

    A chunk of a file has at most `most` items.
    """

    version: str
    spec: CorpusSpec
    parts: tuple[Part, ...]
    tokenizer_json: Path
    items: tuple[Item, ...]
    folder: Path
    most: int


@dataclass(frozen=True, slots=True)
class Fault:
    """A mistake of the user's that a worker found; `opening` where a file is of no known format."""

    what: str
    value: object
    fix: str
    opening: bool = False

    def error(self) -> UserError:
        """The error to raise."""
        kind = CorpusError if self.opening else UserError
        return kind(self.what, value=self.value, fix=self.fix)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Items of a file that follow one another, from the number `first` on; `end` is how far."""

    part: int
    number: int
    format: str
    container: str
    first: int
    items: tuple[Row | Invalid | Lost, ...]


@dataclass(slots=True)
class Block:
    """What became of a chunk: its account, and slim entries of what is in the block's files."""

    part: int
    format: str
    container: str
    source: Source
    audit: Audit
    name: str
    size: int = 0
    entries: list[Entry] = field(default_factory=list)


def chunks(part: int, job: Job) -> Iterator[Chunk | Fault]:
    """A file's items in chunks, or why it cannot be opened; the same each time.

    Raises UserError where it turns out behind its beginning that it cannot be read.
    """
    known = job.parts[part]
    try:
        file = File(known.path, job.spec.sources[known.number].format)
    except UserError as error:
        yield Fault(error.what, error.value, error.fix, isinstance(error, CorpusError))
        return
    except FileNotFoundError:
        yield Fault(
            "a machine of the cluster does not see the file",
            str(known.path),
            "put it, and the cache, on a file system that all of them share",
        )
        return
    with file:
        about = (file.format.name, file.container)
        first = number = 0
        for items in _cut(file, job.most):
            yield Chunk(part, number, *about, first, tuple(items))
            first, number = first + len(items), number + 1
        if not number:
            yield Chunk(part, 0, *about, 0, ())


def _cut(file: File, most: int) -> Iterator[list[Row | Invalid | Lost]]:
    items: list[Row | Invalid | Lost] = []
    size = 0
    for item in file:
        items.append(item)
        size += sum(len(m.content) for m in item.turns) if isinstance(item, Row) else 0
        if size >= _TEXT or len(items) >= most:
            yield items
            items, size = [], 0
    if items:
        yield items


def block(chunk: Chunk, job: Job, work: Work) -> Block:
    """Clean a chunk into a block's files; done again, it writes the same bytes."""
    part = job.parts[chunk.part]
    made = Block(
        chunk.part, chunk.format, chunk.container, Source("", 0), Audit(),
        f"{chunk.part:05}-{chunk.number:07}",
    )  # fmt: skip
    rows = [
        (part.number, item)
        for count, item in enumerate(chunk.items, chunk.first)
        if made.source.take(item, count) and isinstance(item, Row)
    ]
    full: list[Entry] = []
    left = iter(rows)
    with write_aside(job.folder / f"{made.name}.text") as file:
        while batch := list(islice(left, _BATCH)):
            for (_, row), outcome in zip(batch, work(batch), strict=True):
                made.audit.outcome(row.id, outcome, job.spec.rules)
                if outcome.entry:
                    full.append(outcome.entry.at(made.size))
                    made.size += file.write(outcome.packed)
    with write_aside(job.folder / f"{made.name}.entries") as file:
        pickle.dump(full, file, protocol=5)
    made.entries = [slim(entry) for entry in full]
    return made


def slim(entry: Entry) -> Entry:
    """An entry without what only comparisons need; the first exchange of a part is its query."""
    first = entry.exchanges[:1] if entry.part else ()
    return replace(entry, exchanges=first, sizes=(), bands=b"")


@dataclass(frozen=True, slots=True)
class Selected:
    """A block, where it begins among all, and which of its entries are meant, each in a group."""

    name: str
    start: int
    index: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None

    def entries(self, folder: Path) -> list[Entry]:
        """The entries, with their places among all."""
        with open(folder / f"{self.name}.entries", "rb") as file:
            # Only this job writes into the folder, which belongs to the user.
            found = pickle.load(file)
        return [found[i].at(self.start + found[i].place) for i in self.index]

    def stored(self, folder: Path, entries: Sequence[Entry]) -> Iterator[Stored]:
        """The conversations of entries."""
        with open(folder / f"{self.name}.text", "rb") as file:
            for entry in entries:
                file.seek(entry.place - self.start)
                yield unpacked(file)


def shared_keys(chosen: Selected, job: Job, rule: str, into: int) -> Columns:
    """What a block's entries may share with others: keys, places, and a partition for each key."""
    entries = chosen.entries(job.folder)
    own = [keys(rule, entry) for entry in entries]
    key = np.concatenate([np.empty(0, np.uint64), *own])
    places = np.array([entry.place for entry in entries], dtype=np.int64)
    place = np.repeat(places, [len(k) for k in own])
    return {"partition": (key >> np.uint64(33)).astype(np.int64) % into, "key": key, "place": place}


def sharing(key: Any, place: Any) -> Columns:
    """Pairs of conversations of which both have one of the keys."""
    found = pairs(key, place)
    return {"place": found.places, "first": found.firsts}


def together(chosen: Selected, job: Job, rule: str) -> Columns:
    """The entries that are to be compared, with what they open with if the rule asks for it."""
    entries = chosen.entries(job.folder)
    near = rule == "near_query"
    texts = [s.opening for s in chosen.stored(job.folder, entries)] if near else [""] * len(entries)
    packed = [pickle.dumps(entry, protocol=5) for entry in entries]
    return {"group": chosen.groups, "entry": packed, "opening": texts}


def decided(packed: Sequence[bytes], openings: Sequence[str], rule: str) -> Columns:
    """Places of copies and of what they are copies of, in whole components."""
    read = (pickle.loads(entry) for entry in packed)
    both = sorted(zip(read, openings, strict=True), key=lambda pair: pair[0].place)
    texts = {entry.place: text for entry, text in both}
    found = STEPS[rule]((entry for entry, _ in both), lambda entry: texts[entry.place])
    return {
        "copy": np.array([copy.place for copy, _ in found.copies], dtype=np.int64),
        "original": np.array([original.place for _, original in found.copies], dtype=np.int64),
    }


def holding(chosen: Selected, job: Job, index: Index) -> Columns:
    """The conversations that hold a passage of the index, with what they hold."""
    entries = chosen.entries(job.folder)
    found = [
        (entry.place, pickle.dumps(runs, protocol=5))
        for entry, stored in zip(entries, chosen.stored(job.folder, entries), strict=True)
        if (runs := passages_in(index, stored))
    ]
    places = np.array([place for place, _ in found], dtype=np.int64)
    return {"place": places, "runs": [runs for _, runs in found]}
