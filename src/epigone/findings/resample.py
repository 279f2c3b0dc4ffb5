"""The bootstrap over items: vectorised, seeded, the same resampled items for every column."""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from epigone.schema import Interval, Score

Array = NDArray[np.float64]

RESAMPLES = 3000
LEVEL = 0.95
_CHUNK = 200_000  # weights at a time: they stay in the processor's cache
_TINY = 1e-12
_LEAST_P = 1e-6  # farther out the tail of a few thousand draws is a guess
# How a score was come by that somebody else published.
PUBLISHED = "reported"
ALIKE = "every item alike: an exact bound"
NO_ITEMS = "reported without items"


def stream(seed: int, *names: str) -> np.random.Generator:
    """A generator of its own for each name, so that tasks are resampled independently."""
    return np.random.default_rng(
        [seed, *(zlib.crc32(n.encode("utf-8", "surrogatepass")) for n in names)]
    )


def restrict(score: Score, items: Sequence[str]) -> Score:
    """The score on these items alone; `value` and `n` are left to be computed again."""
    return replace(
        score,
        value=None,
        n=len(items),
        values={i: score.values[i] for i in items},
        against={i: score.against[i] for i in items if i in score.against},
    )


def usable(score: Score) -> set[str]:
    """Items with a finite value (and, for a correlation, a finite counterpart)."""
    good = {i for i, v in score.values.items() if math.isfinite(v)}
    if score.aggregate == "pearson":
        good &= {i for i, v in score.against.items() if math.isfinite(v)}
    return good


def shared_items(scores: Sequence[Score]) -> list[str]:
    """Items that every one of the scores has, sorted."""
    return sorted(set.intersection(*(usable(s) for s in scores))) if scores else []


def kind_of(score: Score) -> tuple[str, str, int, str]:
    """What two scores must have in common to be compared."""
    return score.metric, score.task, score.version, score.aggregate


def incomparable(scores: Sequence[Score], items: Collection[str]) -> str:
    """Why scores cannot be compared on the items that they share; empty where they can."""
    if len({kind_of(s) for s in scores}) > 1:
        return "scores of different metrics or versions cannot be compared"
    if not items:
        out = any(s.method == PUBLISHED for s in scores)
        return NO_ITEMS if out else "no items in common"
    first = scores[0]
    others = [s.against for s in scores[1:] if s.against is not first.against]
    if first.aggregate == "pearson" and any(
        a[i] != first.against[i] for a in others for i in items
    ):
        return "correlated with different answers of the teacher"
    return ""


class Resampler:
    """Columns (scores) over groups of items, ready to be resampled together.

    An item of no cluster is a group of its own. A column that lacks an item is computed on the
    items that it has. Sums are kept by group, so that resampling costs groups, not items.
    """

    def __init__(self, columns: Sequence[Score]) -> None:
        """Sum the columns by group."""
        items = sorted(set[str]().union(*(usable(c) for c in columns)))
        clusters: dict[str, str] = {}
        for column in columns:
            clusters.update(column.clusters)
        names = [f"c{clusters[i]}" if i in clusters else f"i{i}" for i in items]
        order = {name: g for g, name in enumerate(dict.fromkeys(names))}
        self.columns = columns
        self.groups = len(order)
        group_of = {i: order[n] for i, n in zip(items, names, strict=True)}
        sums = [_sums(c, group_of, self.groups) for c in columns]
        self.starts = np.cumsum([0, *(s.shape[1] for s in sums[:-1])])
        self.sums = np.concatenate(sums, axis=1)

    def groups_of(self, column: int) -> int:
        """Number of groups in which the column has an item."""
        return int(np.count_nonzero(self.sums[:, self.starts[column]]))

    def point(self) -> Array:
        """The statistic of every column on the items as they are; NaN where it is undefined."""
        return self._statistics(np.ones((1, self.groups))).reshape(-1)

    def draws(self, rng: np.random.Generator, resamples: int = RESAMPLES) -> Array:
        """The statistic of every column on resampled groups: (resamples, columns)."""
        if self.groups == 0:
            return np.full((resamples, len(self.columns)), np.nan)
        size = max(1, min(resamples, _CHUNK // self.groups))
        parts = []
        for start in range(0, resamples, size):
            rows = min(size, resamples - start)
            picks = rng.integers(0, self.groups, (rows, self.groups))
            picks += np.arange(rows)[:, None] * self.groups
            counts = np.bincount(picks.ravel(), minlength=rows * self.groups)
            parts.append(self._statistics(counts.reshape(rows, self.groups).astype(np.float64)))
        return np.concatenate(parts)

    def _statistics(self, weights: Array) -> Array:
        totals = weights @ self.sums
        out = np.empty((len(weights), len(self.columns)))
        for j, (column, start) in enumerate(zip(self.columns, self.starts, strict=True)):
            out[:, j] = _aggregate(column.aggregate, totals[:, start:])
        return out


def _sums(score: Score, group_of: Mapping[str, int], groups: int) -> Array:
    items = sorted(usable(score))
    index = np.array([group_of[i] for i in items], dtype=np.intp)
    x = np.array([score.values[i] for i in items], dtype=np.float64)
    parts = [np.ones_like(x), x]
    if score.aggregate == "pearson":
        y = np.array([score.against[i] for i in items], dtype=np.float64)
        # Raw sums of squares of lengths cancel badly; a correlation does not see the shift.
        x, y = _standard(x), _standard(y)
        parts = [np.ones_like(x), x, y, x * x, y * y, x * y]
    columns = [np.bincount(index, weights=p, minlength=groups)[:groups] for p in parts]
    return np.stack(columns, axis=1) if items else np.zeros((groups, len(parts)))


def _standard(x: Array) -> Array:
    if len(x) == 0:
        return x
    spread = float(x.std())
    out: Array = (x - x.mean()) / (spread if spread > 0 else 1.0)
    return out


def _aggregate(kind: str, totals: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        n = totals[:, 0]
        if kind != "pearson":
            mean = np.asarray(totals[:, 1] / n)
            # The bootstrap does not know that no classifier is right more than always.
            return np.clip(mean, 0.0, 1.0) if kind == "auc" else mean
        sx, sy, sxx, syy, sxy = totals[:, 1:6].T
        vx, vy = sxx - sx * sx / n, syy - sy * sy / n
        r: Array = np.clip((sxy - sx * sy / n) / np.sqrt(vx * vy), -1.0, 1.0)
        r[(n < 3) | ~(vx > _TINY * n) | ~(vy > _TINY * n)] = np.nan
        return r


def tail(groups: int, level: float = LEVEL) -> float:
    """Probability cut off at each end of the draws, for `groups` independent groups (2 or more).

    The percentile interval is too narrow by sqrt((n-1)/n) and by z against t; the expanded
    percentile interval takes the quantile at Phi(-sqrt(n/(n-1)) t) instead (T. Hesterberg,
    "What teachers should know about the bootstrap", The American Statistician 69(4), 2015).
    """
    return tail_of_mean([groups], [1.0], level=level)


def tail_of_mean(
    groups: Sequence[int],
    variances: Sequence[float],
    independent: bool = True,
    level: float = LEVEL,
) -> float:
    """`tail` of a mean of parts, each with its own groups (2 or more) and variance of its draws.

    Each part is widened for its own groups. Independent parts have Welch's degrees of freedom
    (B. L. Welch, Biometrika 34, 1947). Parts that share their items add none to each other's:
    theirs is the harmonic mean weighted by variance.
    """
    freedom, wider = spread(groups, variances, independent)
    return cut_of(freedom, wider, level)


def spread(
    groups: Sequence[int], variances: Sequence[float], independent: bool = True
) -> tuple[float, float]:
    """Degrees of freedom of a mean of parts, and how much wider it spreads than its draws do.

    See `tail_of_mean`.
    """
    n, v = np.asarray(groups, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    true = v * n / (n - 1)
    weights = true / true.sum() if true.sum() > 0 else np.full(len(n), 1 / len(n))
    freedom = 1 / float(((weights**2 if independent else weights) / (n - 1)).sum())
    return freedom, float((true.sum() / v.sum()) ** 0.5) if v.sum() > 0 else 1.0


def cut_of(freedom: float, wider: float, level: float = LEVEL) -> float:
    """Probability cut off at each end of the draws; see `spread`."""
    return NormalDist().cdf(-float(stdtrit(freedom, 0.5 + level / 2)) * wider)


def again(draws: Array, seeds: Sequence[tuple[float, int]], rng: np.random.Generator) -> Array:
    """Draws with what training again adds: parts of a variance and its degrees of freedom each.

    A variance that a few seeds tell is itself uncertain: the part is drawn from Student's t, whose
    tails say so at any level.
    """
    for variance, freedom in seeds:
        draws = draws + variance**0.5 * rng.standard_t(freedom, len(draws))
    return draws


def p_value(draws: Array, freedom: float, wider: float, far: float = 1.0) -> float:
    """Two-sided p of 0: the level at which the interval of these draws would just reach it.

    No less than what one draw more beyond 0 would give, but where none is beyond it: `far` counts
    then (see `far_tail`), since of many tests Holm's rule asks for less than draws can count.
    """
    good = draws[np.isfinite(draws)]
    beyond = float(min((good <= 0).sum(), (good >= 0).sum()))
    z = NormalDist().inv_cdf(min(0.5, (beyond + 1) / (len(good) + 1)))
    found = float(2 * stdtr(freedom, z / wider))
    return max(_LEAST_P, found if beyond else min(found, far))


def far_tail(value: float, parts: Sequence[tuple[float, float]]) -> float:
    """Two-sided p of 0 by Student's t of a value whose variance has parts, each with its freedom.

    Degrees of freedom are those of B. L. Welch (Biometrika 34, 1947).
    """
    total = sum(v for v, _ in parts)
    freedom = total**2 / sum(v**2 / f for v, f in parts)
    return float(2 * stdtr(freedom, -abs(value) / total**0.5))


def flat(value: float, draws: Array) -> bool:
    """Whether a value is defined, on nine draws in ten or more too, and those are all alike."""
    good = draws[np.isfinite(draws)]
    if not np.isfinite(value) or len(good) < 0.9 * len(draws):
        return False
    return bool(good.max() - good.min() <= _TINY * max(1.0, abs(value)))


def alike(
    value: float, groups: int, reach: float, n: int, note: str = ""
) -> tuple[Interval, float]:
    """The exact interval and p of a mean that is the same in every group, from -reach to reach.

    Of so many groups that are alike a share of at most 1 - 0.025**(1 / groups) differs (C. J.
    Clopper and E. S. Pearson, Biometrika 26, 1934), and those as much as can be.
    """
    others = 1 - ((1 - LEVEL) / 2) ** (1 / groups)
    low, high = value - others * (value + reach), value + others * (reach - value)
    p = min(1.0, 2 * (reach / (abs(value) + reach)) ** groups)
    return Interval(value, low, high, n, _join(note, ALIKE)), max(_LEAST_P, p)


def percentile(
    value: float,
    draws: Array,
    groups: int,
    n: int,
    note: str = "",
    cut: float | None = None,
) -> Interval:
    """The expanded percentile interval of an estimate from its draws.

    `cut` is the probability cut off at each end, `tail(groups)` unless given.
    The bounds are None where nothing can be said about the spread: fewer than two groups,
    draws that are all alike, or a statistic undefined on more than a tenth of the draws.
    """
    if not np.isfinite(value):
        return Interval(None, None, None, n, _join(note, "undefined on these items"))
    if groups < 2:
        return Interval(value, None, None, n, _join(note, "too few items for an interval"))
    good = draws[np.isfinite(draws)]
    if len(good) < 0.9 * len(draws):
        return Interval(value, None, None, n, _join(note, "too few items for an interval"))
    if flat(value, draws):
        return Interval(value, None, None, n, _join(note, "no spread between items"))
    p = tail(groups) if cut is None else cut
    low, high = np.quantile(good, [p, 1 - p])
    return Interval(value, float(low), float(high), n, note)


def open_percentile(
    value: float, draws: Array, groups: int, n: int, note: str, cut: float, why: str = ""
) -> Interval:
    """`percentile` of draws some of which are infinite: a bound is None, and the note tells `why`,
    where more of them are so at its end than are cut off there."""
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return percentile(value, draws, groups, n, _join(note, why), cut)
    # An end's place among the draws stays the same.
    held = np.clip(draws, finite.min(), finite.max())
    found = percentile(value, held, groups, n, note, cut)
    known = draws[~np.isnan(draws)]
    open_low, open_high = (bool((known == end).mean() > cut) for end in (-np.inf, np.inf))
    if found.low is None or not (open_low or open_high):
        return found
    return replace(
        found,
        low=None if open_low else found.low,
        high=None if open_high else found.high,
        note=_join(note, why),
    )


def _join(*notes: str) -> str:
    return "; ".join(n for n in notes if n)
