"""Copies among conversations: of one query, nearly of one query, and forks of one dialogue.

Whatever the order in which the conversations come, the same ones stay: each is compared with those
that go before it by rank, a hash of their content, and of several copies the first by rank stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from epigone.corpus.selection import Entry, normalised, spaced

# Words of a shingle. Queries of fewer words are compared as a whole only: one word more or less
# makes another question of them.
SHINGLE = 5
# Jaccard similarity of two queries' shingles from which on they count as one.
SIMILAR = 0.8
BANDS = 32
_PERMUTATIONS, _SEED = 128, 1
# Share of a dialogue's text that another dialogue holds in the same exchanges, from which on it is
# a fork of it. Characters are counted: many dialogues end in the same short thanks.
FORKED = 0.5


@dataclass(slots=True)
class Sorted:
    """What stays, and what is a copy of what: pairs of the copy and the one that stays."""

    kept: list[Entry]
    copies: list[tuple[Entry, Entry]] = field(default_factory=list)


def same_query(entries: Iterable[Entry]) -> Sorted:
    """One conversation for each opening, by rank; parts of dialogues by their first exchange.

    A part begins in mid-dialogue, where "continue" says nothing.
    """
    first: dict[bytes, Entry] = {}
    found = Sorted([])
    for entry in by_rank(entries):
        key = entry.exchanges[0] if entry.part else entry.query
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
    for entry in by_rank(entries, longest=True):
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


def near_query(entries: Iterable[Entry], query: Callable[[Entry], str]) -> Sorted:
    """One conversation of several whose openings (`query`) are nearly the same, by rank.

    Candidates share one of their `bands` and their system turns; two queries are near if the
    Jaccard similarity of their sets of 5-word shingles, computed exactly, is `SIMILAR` or more.
    """
    ranked = by_rank(entries)
    shared = _shared([entry.bands for entry in ranked])
    buckets: dict[tuple[int, int], list[int]] = {}
    found = Sorted([])

    @lru_cache(maxsize=20_000)
    def shingles_of(number: int) -> frozenset[str]:
        return shingles(query(found.kept[number]))

    for place, entry in enumerate(ranked):
        own = shared.get(place, ())
        near = {
            i
            for bucket in own
            for i in buckets.get(bucket, ())
            if found.kept[i].system == entry.system
        }
        mine = shingles(query(entry)) if near else frozenset()
        twin = next((i for i in sorted(near) if jaccard(mine, shingles_of(i)) >= SIMILAR), None)
        if twin is not None:
            found.copies.append((entry, found.kept[twin]))
            continue
        for bucket in own:
            buckets.setdefault(bucket, []).append(len(found.kept))
        found.kept.append(entry)
    return found


def shingles(text: str) -> frozenset[str]:
    """The runs of `SHINGLE` words that follow one another in a text; none in a shorter one."""
    words = spaced(normalised(text)).split()
    return frozenset(" ".join(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Size of the intersection by size of the union, 0 for two empty sets."""
    both = len(one & other)
    return both / (len(one) + len(other) - both) if both else 0.0


def bands(texts: Sequence[str]) -> list[bytes]:
    """For each text 32 hashes of 8 bytes: bands of a MinHash signature of 128 permutations.

    Empty for a text without shingles.
    """
    import numpy as np
    from rensa import RMinHash

    sets = [shingles(text) for text in texts]
    # A set has no order, and the library's hashes need none, but its input must be a sequence.
    digests = np.array(
        RMinHash.digests_from_token_sets([sorted(s) for s in sets], _PERMUTATIONS, _SEED),
        dtype="<u4",
    ).reshape(len(sets), BANDS, -1)
    halves = np.ascontiguousarray(digests).view("<u8")
    # Two bands that differ and get one hash are one comparison more, and no error.
    mixed = halves[..., 0] * np.uint64(0x9E3779B97F4A7C15) + halves[..., 1]
    return [row.tobytes() if own else b"" for own, row in zip(sets, mixed, strict=True)]


def _shared(keys: Sequence[bytes]) -> dict[int, list[tuple[int, int]]]:
    """For each place whose bands are not all its own, the names of those it shares."""
    import numpy as np

    places = [i for i, key in enumerate(keys) if key]
    table = np.frombuffer(b"".join(keys[i] for i in places), dtype="<u8").reshape(-1, BANDS)
    found: dict[int, list[tuple[int, int]]] = {}
    for band in range(BANDS):
        _, group, count = np.unique(table[:, band], return_inverse=True, return_counts=True)
        for row in np.flatnonzero(count[group] > 1):
            found.setdefault(places[row], []).append((band, int(group[row])))
    return found


def by_rank(entries: Iterable[Entry], *, longest: bool = False) -> list[Entry]:
    """Those to keep first: with most teacher text; for forks, first those of most exchanges."""
    return sorted(entries, key=lambda e: (-e.length if longest else 0, e.rank))
