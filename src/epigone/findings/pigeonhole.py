"""Draws of raters and of items, for intervals that respect both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from scipy.sparse import csr_array

from epigone.findings.resample import Array, tail

# A rater's value of an item, in a part: one of several comparisons of which items are shared.
Row = tuple[str, str, int, float]
_CHUNK = 200_000


class Grid:
    """Values by rater, and by place: an item in a part; places are sorted.

    An answer's weight is the product of its rater's and its item's (A. B. Owen, "The pigeonhole
    bootstrap", Annals of Applied Statistics 1(2), 2007): few raters make a wide interval, however
    many items each had. Where no people are, raters are not drawn.
    """

    def __init__(self, rows: Iterable[Row], people: bool) -> None:
        """Take the rows; the values of one rater at one place are averaged."""
        told = [(rater if people else "", item, part, value) for rater, item, part, value in rows]
        raters = {name: i for i, name in enumerate(sorted({r[0] for r in told}))}
        items = {name: i for i, name in enumerate(sorted({r[1] for r in told}))}
        self.places = sorted({(item, part) for _, item, part, _ in told})
        at = {place: i for i, place in enumerate(self.places)}
        self.raters, self.items = len(raters), len(items)
        self._item = np.array([items[item] for item, _ in self.places], dtype=np.intp)
        where = ([at[item, part] for _, item, part, _ in told], [raters[r[0]] for r in told])
        shape = (len(at), len(raters))
        self._sums = csr_array(([r[3] for r in told], where), shape=shape, dtype=np.float64)
        self._counts = csr_array((np.ones(len(told)), where), shape=shape)
        self.means: Array = self._sums.sum(axis=1) / self._counts.sum(axis=1)
        # The fewer of both decide how far the draws can be trusted.
        self.groups = min(self.raters, self.items) if self.raters > 1 else self.items
        self.cut = tail(max(self.groups, 2))

    def draws(self, rng: np.random.Generator, resamples: int) -> Iterator[tuple[Array, Array]]:
        """Weights and means of all places, many draws at a time: (draws, places).

        A place of which no rater was drawn has no weight in that draw.
        """
        size = max(1, _CHUNK // max(1, len(self.places)))
        for start in range(0, resamples, size):
            rows = min(size, resamples - start)
            by_rater = _drawn(rng, self.raters, rows)
            weights = _drawn(rng, self.items, rows)[:, self._item]
            told: Array = np.asarray((self._counts @ by_rater.T).T)
            means: Array = np.asarray((self._sums @ by_rater.T).T) / np.where(told > 0, told, 1.0)
            yield np.where(told > 0, weights, 0.0), means


def _drawn(rng: np.random.Generator, n: int, rows: int) -> Array:
    return rng.multinomial(n, np.full(n, 1 / n), rows).astype(np.float64)
