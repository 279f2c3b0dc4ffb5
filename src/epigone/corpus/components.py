"""Which conversations have to be compared together, so that parts of a corpus are resolved apart.

`duplicates.forks` and `duplicates.near_query` look, for each conversation, only at those that share
a key with it, an exchange or a band. So nothing that is decided in one component of the graph of
shared keys plays a part in another, and each may be resolved by itself, wherever.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epigone.corpus import duplicates
from epigone.corpus.selection import Entry

Places = NDArray[np.int64]
Keys = NDArray[np.uint64]
# Odd numbers that spread bits; two keys that fall together only make a component larger.
_ODD = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))


@dataclass(frozen=True, slots=True)
class Pairs:
    """Places of conversations, each with the first one that shares a key with it."""

    places: Places
    firsts: Places


def keys(rule: str, entry: Entry) -> Keys:
    """What an entry shares with those that it may be compared with under a rule, as numbers."""
    if rule == "forks":
        return np.unique(np.frombuffer(b"".join(entry.exchanges), "<u8")[::2])
    bands = np.frombuffer(entry.bands, "<u8")
    system = np.frombuffer(entry.system[:8] or bytes(8), "<u8")[0]
    numbers = np.arange(len(bands), dtype=np.uint64)
    mixed: Keys = (bands ^ (system * _ODD[1])) * _ODD[0] + numbers * _ODD[1]
    return mixed


def pairs(found: Keys, places: Places) -> Pairs:
    """Who shares a key with whom, of keys with the place of the conversation that has each."""
    order = np.lexsort((places, found))
    found, places = found[order], places[order]
    new = np.ones(len(found), dtype=bool)
    new[1:] = found[1:] != found[:-1]
    firsts = places[new][np.cumsum(new) - 1]
    both = np.unique(np.stack([places, firsts], axis=1)[places != firsts], axis=0)
    return Pairs(both[:, 0], both[:, 1])


def components(found: Pairs) -> tuple[Places, NDArray[np.int64]]:
    """The places that share a key with another one, in their order, and each one's component."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    nodes, ends = np.unique(np.concatenate([found.places, found.firsts]), return_inverse=True)
    ones = np.ones(len(found.places), dtype=np.int8)
    one, other = ends[: len(ones)], ends[len(ones) :]
    graph = coo_matrix((ones, (one, other)), shape=(len(nodes), len(nodes)))
    _, labels = connected_components(graph, directed=False)
    return nodes, labels.astype(np.int64)


def groups(labels: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Whole components put together into groups of about `most` members."""
    sizes = np.bincount(labels)
    return ((np.cumsum(sizes) - sizes) // most)[labels]


def resolved(
    entries: Sequence[Entry], copies: Iterable[tuple[int, int]], longest: bool
) -> duplicates.Sorted:
    """What the comparison of all `entries` at once gives, from places of copies and originals.

    The entries are in the order of their places.
    """
    places = np.array([entry.place for entry in entries], dtype=np.int64)
    gone = np.array(list(copies), dtype=np.int64).reshape(-1, 2)
    at = np.searchsorted(places, gone)
    stays = np.ones(len(entries), dtype=bool)
    stays[at[:, 0]] = False
    original = dict(zip(at[:, 0].tolist(), at[:, 1].tolist(), strict=True))
    ranked = duplicates.by_rank((entries[i] for i in sorted(original)), longest=longest)
    by_place = {entries[i].place: entries[j] for i, j in original.items()}
    return duplicates.Sorted(
        duplicates.by_rank((entries[i] for i in np.flatnonzero(stays).tolist()), longest=longest),
        [(copy, by_place[copy.place]) for copy in ranked],
    )
