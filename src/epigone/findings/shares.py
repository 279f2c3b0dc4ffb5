"""Intervals of means of values from 0 to 1, near whose ends a bootstrap sees no spread; ratios."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist

import numpy as np

from epigone.findings.resample import LEVEL, RESAMPLES, Array, percentile, stream, tail
from epigone.schema import Interval

Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)


def share_interval(values: Array, note: str = "") -> Interval:
    """The mean of independent values from 0 to 1, with its 95% interval.

    A. Agresti and B. A. Coull's way (The American Statistician 52, 1998) with the values' own
    variance, so that a tie moves it by a little: z^2/2 wins and z^2/2 losses are added.
    """
    n = len(values)
    if n < 2:
        why = "no per-item values" if n == 0 else "too few items for an interval"
        mean = float(values[0]) if n else None
        return Interval(mean, None, None, n, "; ".join(filter(None, (why, note))))
    low, high = _bounds(float(values.mean()), float((values**2).mean()), n)
    return Interval(float(values.mean()), low, high, n, note)


def drawn_share(values: Array, draws: Array, groups: int, answers: Array) -> Interval:
    """The mean of items' `values`, of which raters and items were drawn, with its 95% interval.

    It is that of the draws' percentiles, widened to what `share_interval` says of fewer items where
    the draws see almost no spread: where all `answers` agree they are worth `groups`, the fewer of
    raters and items, and all items once many differ; z^2 of squared differences are half the way.
    """
    mean, n = float(values.mean()), len(values)
    found = percentile(mean, draws, groups, n, cut=tail(max(groups, 2)))
    good = draws[np.isfinite(draws)]
    if groups < 2 or len(good) < 0.9 * len(draws):
        return found
    apart, few = float(((answers - mean) ** 2).sum()), Z * Z
    worth = (apart * n + few * groups) / (apart + few)
    low, high = _bounds(mean, float((values**2).mean()), worth)
    if found.low is not None and found.high is not None:
        low, high = min(low, found.low), max(high, found.high)
    return Interval(mean, low, high, n)


def ratio_interval(
    own: Mapping[str, float], other: Mapping[str, float], seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """The sum of one's values over another's of the same items, which are resampled together."""
    items = sorted(own)
    n, both = len(items), np.array([[own[i], other[i]] for i in items]).reshape(-1, 2)
    if not n:
        return Interval(None, None, None, 0, "no per-item values")
    weights = stream(seed, "ratio").multinomial(n, np.full(n, 1 / n), resamples)
    top, bottom = (weights @ both).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return percentile(float(both[:, 0].sum() / both[:, 1].sum()), top / bottom, n, n)


def _bounds(mean: float, square: float, n: float) -> tuple[float, float]:
    """From the mean of n values and of their squares."""
    middle = (n * mean + Z * Z / 2) / (n + Z * Z)
    variance = (n * square + Z * Z / 2) / (n + Z * Z) - middle**2
    half = Z * (variance / (n + Z * Z)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
