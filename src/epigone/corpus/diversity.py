"""How alike the queries of a corpus are: for each the highest BLEU with any other query.

The measure of Gudibande et al. (2023), section 3: 8% for ShareGPT, 61% for
SuperNaturalInstructions. BLEU is sacrebleu's sentence BLEU with its defaults (13a tokens,
exponential smoothing, up to 4-grams and only the orders that the query has), with the query as
hypothesis and the other as reference.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[Any]

_ORDERS = 4
# Rows of the matrix of pairs that are in memory at once.
_ROWS = 256
# How many candidates the index takes for each query.
_CANDIDATES = 64
# More than any number of matches of one order; its third power is exact in a double.
_PACK = float(1 << 17)


@dataclass(frozen=True, slots=True)
class Diversity:
    """The mean over queries of the highest BLEU with any other, in percent, and each of them."""

    mean: float
    highest: tuple[float, ...]
    nearest: tuple[int, ...]


def diversity(
    queries: Sequence[str],
    *,
    exact: bool = False,
    progress: Callable[[float], None] = lambda share: None,
) -> Diversity:
    """Diversity of queries, by comparing all pairs, or only those that an index brings together.

    Raises ValueError for fewer than two queries.
    """
    if len(queries) < 2:
        raise ValueError("diversity needs two queries or more")
    grams = _Grams(queries)
    highest = np.zeros(len(queries))
    nearest = np.zeros(len(queries), dtype=np.int64)
    for start in range(0, len(queries), _ROWS):
        progress(start / len(queries))
        rows = np.arange(start, min(start + _ROWS, len(queries)))
        scores = grams.all_pairs(rows) if exact else grams.candidates(rows)
        highest[rows], nearest[rows] = scores
    return Diversity(float(highest.mean()), tuple(highest.tolist()), tuple(int(i) for i in nearest))


def sample(queries: Sequence[str], most: int, seed: int = 0) -> list[str]:
    """At most so many of the queries, in an order that the seed makes."""
    chosen = list(queries)
    random.Random(seed).shuffle(chosen)
    return chosen[:most]


class _Grams:
    """The n-grams of all queries as sparse matrices, whose products are clipped matches.

    A column stands for the k-th occurrence of an n-gram, so that the product of two rows is the
    sum of the smaller of their counts.
    """

    def __init__(self, queries: Sequence[str]) -> None:
        from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

        split: Callable[[str], str] = Tokenizer13a()  # type: ignore[no-untyped-call]
        tokens = [split(query.rstrip()).split() for query in queries]
        self._lengths = np.array([len(t) for t in tokens], dtype=np.float64)
        self._orders = [_matrix(tokens, n) for n in range(1, _ORDERS + 1)]
        self._columns = [order.T.tocsr() for order in self._orders]

    def all_pairs(self, rows: Array) -> tuple[Array, Array]:
        """The highest BLEU of these queries with any other, and which other."""
        matches = [
            np.asarray((order[rows] @ columns).todense(), dtype=np.float64)
            for order, columns in zip(self._orders, self._columns, strict=True)
        ]
        scores = self._bleu(rows[:, None], np.arange(len(self._lengths))[None, :], matches)
        scores[np.arange(len(rows)), rows] = -1.0
        best = scores.argmax(axis=1)
        return scores[np.arange(len(rows)), best], best

    def candidates(self, rows: Array) -> tuple[Array, Array]:
        """As `all_pairs`, among the queries that share most two- to four-word runs.

        Where words alone could score more than the best of those, a query is compared with all.
        """
        own, others, matches = self._shared(rows)
        order = np.lexsort((-self._bleu(rows[own], others, [matches[0], *matches]), own))
        first = np.searchsorted(own[order], np.arange(len(rows)))
        place = np.arange(len(order)) - first[own[order]]
        chosen = order[place < _CANDIDATES]
        own, others = own[chosen], others[chosen]
        words = self._orders[0]
        both = words[rows[own]].multiply(words[others]).sum(axis=1)
        exact = [np.asarray(both, dtype=np.float64).ravel(), *(m[chosen] for m in matches)]
        highest, nearest = np.full(len(rows), -1.0), rows.copy()
        scores = self._bleu(rows[own], others, exact)
        best = np.lexsort((others, -scores, own))
        for row, pair in zip(*np.unique(own[best], return_index=True), strict=True):
            highest[row], nearest[row] = scores[best[pair]], others[best[pair]]
        nothing = np.zeros(len(rows))
        all_words = [self._lengths[rows], nothing, nothing, nothing]
        unsure = np.flatnonzero(highest < self._bleu(rows, rows, all_words))
        if len(unsure):
            highest[unsure], nearest[unsure] = self.all_pairs(rows[unsure])
        return np.maximum(highest, 0.0), nearest

    def _shared(self, rows: Array) -> tuple[Array, Array, list[Array]]:
        """Pairs that share a run of two words: which row, which query, and the clipped matches."""
        # One number holds the matches of all three orders, so that the pairs are found but once.
        packed = sum(
            (order[rows] @ columns).astype(np.float64) * _PACK**i
            for i, (order, columns) in enumerate(
                zip(self._orders[1:], self._columns[1:], strict=True)
            )
        )
        found = sparse.coo_matrix(packed)
        keep = rows[found.row] != found.col
        own, others, left = found.row[keep], found.col[keep], found.data[keep]
        matches = []
        for _ in self._orders[1:]:
            left, match = np.divmod(left, _PACK)
            matches.append(match)
        return own, others, matches

    def _bleu(self, hypotheses: Array, references: Array, matches: Sequence[Array]) -> Array:
        """Sentence BLEU of pairs, from the clipped matches of each order."""
        length, other = self._lengths[hypotheses], self._lengths[references]
        log = np.zeros(np.broadcast_shapes(length.shape, other.shape))
        orders = np.minimum(length, _ORDERS)
        smooth = np.ones_like(log)
        for n, match in enumerate(matches, 1):
            total = np.maximum(length - n + 1, 0)
            has = np.broadcast_to(total > 0, log.shape)
            nothing = has & (match == 0)
            smooth = np.where(nothing, smooth * 2, smooth)
            with np.errstate(divide="ignore", invalid="ignore"):
                precision = np.where(nothing, 1 / (smooth * total), match / total)
                log += np.where(has, np.log(precision), 0.0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            brevity = np.where(length < other, np.exp(1 - other / length), 1.0)
            scores = 100 * brevity * np.exp(log / np.maximum(orders, 1))
        # Without a single word in common there is nothing to smooth.
        empty = (length == 0) | (other == 0) | (matches[0] == 0)
        return np.where(np.broadcast_to(empty, scores.shape), 0.0, scores)


def _matrix(tokens: Sequence[Sequence[str]], n: int) -> Any:
    names: dict[tuple[Any, ...], int] = {}
    indices: list[int] = []
    starts = [0]
    for text in tokens:
        counts = Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))
        for gram, count in counts.items():
            indices += [names.setdefault((*gram, k), len(names)) for k in range(count)]
        starts.append(len(indices))
    ones = np.ones(len(indices), dtype=np.float32)
    return sparse.csr_matrix((ones, indices, starts), shape=(len(tokens), max(len(names), 1)))
