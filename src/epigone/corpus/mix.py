"""Mixing sources: caps, weights, and the nested order of a corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from epigone.corpus.selection import Entry, in_order


@dataclass(slots=True)
class Mixed:
    """The conversations in the order of the corpus, and those that caps and weights left out."""

    order: list[Entry]
    over_cap: list[Entry] = field(default_factory=list)
    over_weight: list[Entry] = field(default_factory=list)


def mix(
    entries: Sequence[Entry],
    tokens: Mapping[int, int],
    seed: int,
    *,
    caps: Sequence[int] = (),
    groups: Sequence[int] = (),
    weights: Sequence[Fraction] = (),
) -> Mixed:
    """Put conversations in an order of which every prefix is mixed as the whole.

    `caps` holds for each source the most conversations of it (0 for no cap), or of all sources of
    its number in `groups`; `weights` its share of the teacher's tokens; `tokens` those of a
    conversation, by its place. Without weights the order is one shuffle. With weights each next
    conversation comes from the source that is furthest behind its share, until one source has no
    more. So an amount holds every smaller one, whatever larger amounts are asked for.
    """
    found = Mixed([])
    taken: dict[int, int] = {}
    kept: list[Entry] = []
    for entry in in_order(entries, seed):
        group = groups[entry.source] if groups else entry.source
        count = taken[group] = taken.get(group, 0) + 1
        cap = caps[entry.source] if caps else 0
        (found.over_cap if cap and count > cap else kept).append(entry)
    if not any(weights):
        found.order = kept
        return found
    queues: list[list[Entry]] = [[] for _ in weights]
    for entry in reversed(kept):
        # A source of weight 0 stays out.
        (queues[entry.source] if weights[entry.source] else found.over_weight).append(entry)
    given = [0] * len(weights)
    shares = [(i, w) for i, w in enumerate(weights) if w]
    while True:
        behind, _ = min(shares, key=lambda s: (Fraction(given[s[0]]) / s[1], s[0]))
        if not queues[behind]:
            break
        entry = queues[behind].pop()
        found.order.append(entry)
        given[behind] += tokens[entry.place]
    for queue in queues:
        found.over_weight += reversed(queue)
    return found
