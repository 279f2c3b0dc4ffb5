"""One conversation through all rules that need no other one, on all cores."""

from __future__ import annotations

import multiprocessing
import operator
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from epigone.corpus import duplicates, rules, selection
from epigone.corpus.contamination import Index, Item
from epigone.corpus.language import language, prose
from epigone.corpus.privacy import redacted
from epigone.corpus.rows import Row
from epigone.corpus.rules import Turns
from epigone.corpus.selection import Entry
from epigone.corpus.store import Stored, pack
from epigone.corpus.tokens import TokenCounter
from epigone.errors import CorpusError
from epigone.processes import die_with_parent
from epigone.schema import Conversation, Provenance
from epigone.study.specs import CorpusSpec
from epigone.study.terms import terms_of

# Conversations that are cleaned in one go by a process, and how many goes wait for each process.
_BATCH, _AHEAD = 64, 4
_STRICT = ("no", "unknown", "conditions", "yes")
# Characters of an example, and of what is redacted before it is cut to those.
_SHOWN, _LOOKED_AT = 200, 2_000


@dataclass(frozen=True, slots=True)
class Change:
    """What one rule did to one conversation, or would have done where it is off."""

    rule: str
    dropped: bool
    turns_dropped: int
    turns_changed: int
    text: str
    item: str = ""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A conversation behind the rules; without turns where it was dropped."""

    turns: Turns
    language: str
    changes: tuple[Change, ...]


class Cleaner:
    """The rules of a corpus, in their order."""

    def __init__(self, spec: CorpusSpec, items: Sequence[Item] = ()) -> None:
        self._index = Index(items)
        self._on = frozenset(spec.rules)
        self._languages = spec.languages
        bound = {"too_long": {"most": spec.max_chars}, "too_short": {"least": spec.min_chars}}
        self._rules: list[tuple[str, Callable[[Turns], Turns]]] = [
            (rule.__name__, partial(rule, **bound.get(rule.__name__, {}))) for rule in rules.RULES
        ]

    def __call__(self, turns: Turns) -> Cleaned:
        """Apply every rule; one that is off changes nothing, but what it would do is told."""
        changes: list[Change] = []
        for name, rule in self._rules:
            left = rule(turns)
            if change := _change(name, turns, left):
                changes.append(change)
            if name in self._on:
                turns = left
            if not turns and name in self._on:
                return Cleaned((), "", tuple(changes))
        if not any(map(_is_exchange, rules.exchanges(turns))):
            text = shown(turns[0].content) if turns else ""
            changes.append(Change("no_exchange", True, len(turns), 0, text))
            return Cleaned((), "", tuple(changes))
        said = prose(turns)
        heard = language(said, self._languages)
        if self._languages and heard and heard not in self._languages:
            changes.append(Change("language", True, len(turns), 0, shown(said)))
            if "language" in self._on:
                return Cleaned((), heard, tuple(changes))
        prompts = [m.content for m in turns if m.role == "user"]
        item = self._index.find(prompts, (m.content for m in turns if m.role == "assistant"))
        if item:
            changes.append(Change("contaminated", True, len(turns), 0, shown(prompts[0]), item))
            if "contaminated" in self._on:
                turns = ()
        return Cleaned(turns, heard, tuple(changes))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a row: its entry and the packed conversation, or why it was dropped."""

    changes: tuple[Change, ...]
    language: str
    entry: Entry | None = None
    packed: bytes = b""


def clean(
    rows: Iterable[tuple[int, Row]],
    spec: CorpusSpec,
    tokenizer_json: Path,
    items: Sequence[Item] = (),
) -> Iterator[tuple[Row, Outcome]]:
    """Rows of numbered sources with what became of them, in their order.

    `items` must not be in the corpus. Memory holds a few hundred rows. Raises CorpusError for a
    tokenizer that cannot be read.
    """
    left = iter(rows)
    workers = _workers()
    if workers == 1:
        work = Work(spec, tokenizer_json, items)
        while batch := list(islice(left, _BATCH)):
            yield from zip((row for _, row in batch), work(batch), strict=True)
        return
    # The parent starts no threads that a fork would lose; cleaning imports no torch.
    context = multiprocessing.get_context("fork")
    begin = (spec, tokenizer_json, items)
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=begin) as pool:
        waiting: deque[tuple[list[Row], Future[list[Outcome]]]] = deque()
        while True:
            while len(waiting) < _AHEAD * workers and (batch := list(islice(left, _BATCH))):
                waiting.append(([row for _, row in batch], pool.submit(_do, batch)))
            if not waiting:
                return
            own, future = waiting.popleft()
            yield from zip(own, future.result(), strict=True)


class Work:
    """Cleaning, counting and hashing, in one process."""

    def __init__(self, spec: CorpusSpec, tokenizer_json: Path, items: Sequence[Item]) -> None:
        self._spec = spec
        self._clean = Cleaner(spec, items)
        self._count = TokenCounter(tokenizer_json)
        self._near = "near_query" in spec.rules

    def __call__(self, batch: Sequence[tuple[int, Row]]) -> list[Outcome]:
        """What becomes of rows of numbered sources."""
        cleaned = [self._clean(row.turns) for _, row in batch]
        sizes = iter(self._count([m.content for c in cleaned for m in c.turns]))
        # Rows without an id, too, show by a leading reply that they go on from another one.
        parts = [
            row.part or next((m.role for m in row.turns if m.role != "system"), "user") != "user"
            for _, row in batch
        ]
        queries = [
            selection.opening(c.turns) if self._near and not part else ""
            for c, part in zip(cleaned, parts, strict=True)
        ]
        bands = duplicates.bands(queries)
        return [
            self._outcome(number, row, c, tuple(islice(sizes, len(c.turns))), part, keys)
            for (number, row), c, part, keys in zip(batch, cleaned, parts, bands, strict=True)
        ]

    def _outcome(
        self,
        number: int,
        row: Row,
        cleaned: Cleaned,
        sizes: tuple[int, ...],
        part: bool,
        bands: bytes,
    ) -> Outcome:
        if not cleaned.turns:
            return Outcome(cleaned.changes, cleaned.language)
        source = self._spec.sources[number]
        origin = Provenance(
            source=source.ref.rsplit("/", 1)[-1],
            teacher=row.teacher or source.teacher or self._spec.teacher,
            date=row.date,
            licence=source.licence,
            terms=source.terms,
        )
        said = [n for n, m in zip(sizes, cleaned.turns, strict=True) if m.role == "assistant"]
        # Of the same text from several sources, the one under the stricter terms counts, whatever
        # their order.
        terms = _STRICT.index(terms_of(origin.terms, origin.teacher).commercial)
        tie = f"{terms} {source.fingerprint} {origin.teacher} {origin.terms} {origin.licence}"
        entry = selection.entry(
            row.id, cleaned.turns, part=part, source=number, tie=tie, tokens=sum(said), bands=bands
        )
        stored = Stored(Conversation(row.id, cleaned.turns, origin), cleaned.language, sizes)
        return Outcome(cleaned.changes, cleaned.language, entry, pack(stored))


_work: Work | CorpusError


def _begin(spec: CorpusSpec, tokenizer_json: Path, items: Sequence[Item]) -> None:
    global _work
    die_with_parent()
    try:
        _work = Work(spec, tokenizer_json, items)
    except CorpusError as error:  # an initializer that fails breaks the pool without a word
        _work = error


def _do(batch: Sequence[tuple[int, Row]]) -> list[Outcome]:
    if isinstance(_work, CorpusError):
        raise _work
    return _work(batch)


def _workers() -> int:
    if not hasattr(os, "sched_getaffinity"):
        return 1
    most = os.environ.get("RAYON_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0))
    return min(cores, int(most)) if most.isdigit() and int(most) else cores


def _is_exchange(piece: Turns) -> bool:
    roles = [m.role for m in piece]
    return "user" in roles and "assistant" in roles


def _change(rule: str, turns: Turns, left: Turns) -> Change | None:
    """What a rule did, counted by identity: it hands on what it does not touch."""
    if not left:
        return Change(rule, True, len(turns), 0, shown(turns[0].content) if turns else "")
    if len(left) == len(turns) and all(map(operator.is_, left, turns)):
        return None
    before, after = {id(turn) for turn in turns}, {id(turn) for turn in left}
    text = next((t.content for t in turns if id(t) not in after), "")
    dropped, changed = len(turns) - len(left), len(after - before)
    return Change(rule, False, dropped, changed, redacted(text[-_LOOKED_AT:])[-_SHOWN:])


def shown(text: str) -> str:
    """How a text begins, without what nobody should read in an account of it."""
    return redacted(text[:_LOOKED_AT])[:_SHOWN]
