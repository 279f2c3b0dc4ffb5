"""Copies among conversations: of one query, nearly of one query, and forks of one dialogue.

Whatever the order in which the conversations come, the same ones stay: each is compared with those
that go before it by rank, a hash of their content, and of several copies the first by rank stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from epigone.corpus.selection import Entry, normalised

# Words of a shingle. Queries of fewer words are compared as a whole only: one word more or less
# makes another question of them.
SHINGLE = 5
# Jaccard similarity of two queries' shingles from which on they count as one.
SIMILAR = 0.8
_PERMUTATIONS, _BANDS, _SEED = 128, 32, 1
_BATCH = 1_000
# Share of a dialogue's text that another dialogue holds in the same exchanges, from which on it is
# a fork of it. Characters are counted: many dialogues end in the same short thanks.
FORKED = 0.5


@dataclass(slots=True)
class Sorted:
    """What stays, and what is a copy of what: pairs of the copy and the one that stays."""

    kept: list[Entry]
    copies: list[tuple[Entry, Entry]] = field(default_factory=list)


def same_query(entries: Iterable[Entry]) -> Sorted:
    """One conversation for each first query, by rank; parts of dialogues by their first exchange.

    A part begins in mid-dialogue, where "continue" says nothing.
    """
    first: dict[bytes, Entry] = {}
    found = Sorted([])
    for entry in _by_rank(entries):
        key = entry.exchanges[0] if entry.part else entry.queries[0]
        if (other := first.setdefault(key, entry)) is entry:
            found.kept.append(entry)
        else:
            found.copies.append((entry, other))
    return found


def forks(entries: Iterable[Entry]) -> Sorted:
    """Without dialogues of which half of the text or more are exchanges of another one.

    ShareGPT holds many stages of one dialogue, shared at different times or cut into parts.
    """
    holders: dict[bytes, list[int]] = {}
    found = Sorted([])
    for entry in _by_rank(entries, longest=True):
        own = dict(zip(entry.exchanges, entry.sizes, strict=True))
        shared: Counter[int] = Counter()
        for exchange, size in own.items():
            for holder in holders.get(exchange, ()):
                shared[holder] += size
        best = min(shared, key=lambda i: (-shared[i], i), default=None)
        if best is not None and shared[best] >= FORKED * sum(own.values()):
            found.copies.append((entry, found.kept[best]))
            continue
        for exchange in own:
            holders.setdefault(exchange, []).append(len(found.kept))
        found.kept.append(entry)
    return found


def near_query(
    entries: Iterable[Entry],
    query: Callable[[Entry], str],
) -> Sorted:
    """One conversation of several whose first queries are nearly the same, by rank.

    Candidates come from MinHash with 128 permutations in 32 bands; two queries are near if the
    Jaccard similarity of their sets of 5-word shingles, computed exactly, is `SIMILAR` or more.
    """
    ranked = _by_rank(entries)
    buckets: dict[tuple[int, bytes], list[int]] = {}
    found = Sorted([])

    @lru_cache(maxsize=20_000)
    def shingles_of(number: int) -> frozenset[str]:
        return shingles(query(found.kept[number]))

    for start in range(0, len(ranked), _BATCH):
        batch = ranked[start : start + _BATCH]
        sets = [shingles(query(entry)) if not entry.part else frozenset() for entry in batch]
        for entry, own, bands in zip(batch, sets, _bands(sets), strict=True):
            near = {i for band in bands for i in buckets.get(band, ())}
            twin = next((i for i in sorted(near) if jaccard(own, shingles_of(i)) >= SIMILAR), None)
            if twin is not None:
                found.copies.append((entry, found.kept[twin]))
                continue
            for band in bands:
                buckets.setdefault(band, []).append(len(found.kept))
            found.kept.append(entry)
    return found


def shingles(text: str) -> frozenset[str]:
    """The sets of `SHINGLE` words that follow one another in a text; none in a shorter one."""
    words = normalised(text).split()
    return frozenset(" ".join(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Size of the intersection by size of the union, 0 for two empty sets."""
    both = len(one & other)
    return both / (len(one) + len(other) - both) if both else 0.0


def _bands(sets: Sequence[frozenset[str]]) -> Iterator[list[tuple[int, bytes]]]:
    """For each set the names of its buckets; none for an empty one."""
    import numpy as np
    from rensa import RMinHash

    # A set has no order, and the library's hashes need none, but its input must be a sequence.
    digests = np.array(
        RMinHash.digests_from_token_sets([sorted(s) for s in sets], _PERMUTATIONS, _SEED),
        dtype="<u4",
    ).reshape(len(sets), _BANDS, -1)
    for own, rows in zip(sets, digests, strict=True):
        yield [(i, row.tobytes()) for i, row in enumerate(rows)] if own else []


def _by_rank(entries: Iterable[Entry], *, longest: bool = False) -> list[Entry]:
    """Those to keep first: with most teacher text; for forks, first those of most exchanges."""
    return sorted(entries, key=lambda e: (-len(e.exchanges) if longest else 0, e.rank))
