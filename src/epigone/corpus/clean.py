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

from epigone.corpus import rules
from epigone.corpus.contamination import Index, Item
from epigone.corpus.language import language, prose
from epigone.corpus.privacy import redacted
from epigone.corpus.rows import Row
from epigone.corpus.rules import Turns
from epigone.processes import die_with_parent
from epigone.study.specs import CorpusSpec

# Conversations that are cleaned in one go by a process, and how many goes wait for each process.
_BATCH, _AHEAD = 64, 4
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


def clean(
    rows: Iterable[tuple[int, Row]], spec: CorpusSpec, items: Sequence[Item] = ()
) -> Iterator[tuple[int, Row, Cleaned]]:
    """Numbered rows with what the rules made of them, in their order.

    `items` must not be in the corpus. Memory holds a few hundred rows.
    """
    left = iter(rows)
    workers = _workers()
    if workers == 1:
        cleaner = Cleaner(spec, items)
        for number, row in left:
            yield number, row, cleaner(row.turns)
        return
    # Cleaning imports neither torch nor a tokenizer's threads, so that a fork is safe.
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(spec, items)) as pool:
        waiting: deque[tuple[list[tuple[int, Row]], Future[list[Cleaned]]]] = deque()
        while True:
            while len(waiting) < _AHEAD * workers and (batch := list(islice(left, _BATCH))):
                turns = [row.turns for _, row in batch]
                waiting.append((batch, pool.submit(_clean_batch, turns)))
            if not waiting:
                return
            batch, future = waiting.popleft()
            for (number, row), cleaned in zip(batch, future.result(), strict=True):
                yield number, row, cleaned


_cleaner: Cleaner


def _begin(spec: CorpusSpec, items: Sequence[Item]) -> None:
    global _cleaner
    die_with_parent()
    _cleaner = Cleaner(spec, items)


def _clean_batch(batch: Sequence[Turns]) -> list[Cleaned]:
    return [_cleaner(turns) for turns in batch]


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
