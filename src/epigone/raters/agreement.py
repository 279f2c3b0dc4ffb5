"""How far raters agree: Krippendorff's alpha, pairs of raters, a judge beside people."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from epigone.schema import Interval, Rating

Array = NDArray[np.float64]
Level = Literal["nominal", "ordinal", "interval"]
# What one rater said of the same two outputs, whatever the order in which they were shown.
Unit = tuple[str, str, str]

RESAMPLES = 2000
# Raters from whom on others are taken to have been possible; numbers at a time.
_CROWD, _CHUNK = 8, 200_000
_LEVEL = 0.95
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far raters agree with each other.

    `alpha` is Krippendorff's, with its 95% interval; None where it is undefined.
    `pairwise` is the share of pairs of raters of one comparison that chose the same, and
    `direction` the share that preferred the same output, or neither. Counted are the items,
    comparisons, raters and ratings that can be compared with another.
    """

    alpha: float | None
    low: float | None
    high: float | None
    pairwise: float | None
    n_items: int
    n_raters: int
    direction: float | None = None
    n_units: int = 0
    n_ratings: int = 0
    level: Level = "ordinal"
    note: str = ""


@dataclass(frozen=True, slots=True)
class JudgeAgreement:
    """How far one judge agrees with people on the comparisons that both rated.

    `direction` is the share of comparisons in which the judge, averaged over both orders, prefers
    the output that people prefer on average, or neither as they do; `kappa` is Cohen's, with
    linear weights, of the same three outcomes. `person` is how often one person prefers what the
    other people of a comparison do on average, and `in_place` how often the judge does in that
    person's place: only these two can be compared. `dropped` comparisons have no verdict in both
    orders.
    """

    judge: str
    direction: Interval
    kappa: Interval
    person: Interval
    in_place: Interval
    n_units: int
    dropped: int


def counts(rating: Rating) -> bool:
    """Whether a rating is an answer: of an item, not excluded, with a verdict."""
    return rating.purpose == "item" and not rating.excluded and rating.preference is not None


def by_unit(ratings: Iterable[Rating]) -> dict[Unit, dict[str, float]]:
    """Each comparison's preferences by rater; what one rater said several times is averaged.

    A judge's comparison counts where both orders have a verdict.
    """
    said: dict[Unit, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    half = halves(ratings := list(ratings))
    for r in ratings:
        unit = (r.item, r.a, r.b)
        if counts(r) and r.preference is not None and (r.rater, unit) not in half:
            said[unit][r.rater].append(r.preference)
    return {
        unit: {rater: fmean(values) for rater, values in sorted(raters.items())}
        for unit, raters in sorted(said.items())
    }


def halves(ratings: Iterable[Rating]) -> set[tuple[str, Unit]]:
    """By judge, the comparisons that lack a verdict in one order."""
    orders: dict[tuple[str, Unit], set[str]] = defaultdict(set)
    for r in ratings:
        if r.workforce == "judge" and r.purpose == "item" and not r.excluded:
            # One verdict that cannot be read spoils both orders, as in the win rate.
            orders[r.rater, (r.item, r.a, r.b)].add(r.left if r.preference is not None else "none")
    return {key for key, seen in orders.items() if seen != {"a", "b"}}


def krippendorff(
    ratings: Sequence[Rating], level: Level = "ordinal", *, seed: int = 0
) -> Agreement:
    """Krippendorff's alpha of ratings that count, with a bootstrap interval.

    A unit is a comparison of two models' outputs for one item; missing ratings are allowed. K.
    Krippendorff, "Computing Krippendorff's Alpha-Reliability", University of Pennsylvania, 2011.
    What would be by chance is taken within each pair of models, so that it does not matter how
    they are named, and that one model is better than another is no agreement between raters; of
    one pair it is alpha as it was published. Items are resampled; from eight raters on, raters as
    well, as others might have come, and the wider of both intervals is told.
    """
    units = {u: v for u, v in by_unit(ratings).items() if len(v) > 1}
    if not units:
        return Agreement(None, None, None, None, 0, 0, level=level,
                         note="no comparison has two raters")  # fmt: skip
    found = _Said(units, level)
    point = float(found.alpha()[0])
    low, high, note = _interval(point, found.alpha(items=_weights(found.items, seed)), found.items)
    if low is not None and high is not None and found.raters < _CROWD:
        note = "for these raters"
    elif low is not None and high is not None:
        drawn = found.alpha(raters=_weights(found.raters, seed))
        least, most, _ = _interval(point, drawn, found.raters)
        if least is not None and most is not None and most - least > high - low:
            low, high = least, most
    return Agreement(
        alpha=point if math.isfinite(point) else None,
        low=low,
        high=high,
        pairwise=found.same(np.eye(len(found.values))),
        direction=found.same(np.equal.outer(np.sign(found.values), np.sign(found.values))),
        n_items=found.items,
        n_raters=found.raters,
        n_units=len(units),
        n_ratings=sum(map(len, units.values())),
        level=level,
        note=note,
    )


class _Said:
    """What raters said in units, ready to be resampled by items and by raters."""

    def __init__(self, units: Mapping[Unit, Mapping[str, float]], level: Level) -> None:
        self.level = level
        self.values = np.array(sorted({x for said in units.values() for x in said.values()}))
        names = sorted({rater for said in units.values() for rater in said})
        place = {x: i for i, x in enumerate(self.values.tolist())}
        self.group = np.array(_groups(units))
        self.pairs = _pairs(units)
        self.items, self.raters, self.units = int(self.group.max()) + 1, len(names), len(units)
        # By the order of raters within a unit, so that no unit stands twice in one of them.
        rows: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for u, said in enumerate(units.values()):
            for slot, (rater, x) in enumerate(said.items()):
                rows[slot].append((u * len(self.values) + place[x], names.index(rater)))
        self.slots = [np.array(pairs).T for pairs in rows.values()]

    def alpha(self, items: Array | None = None, raters: Array | None = None) -> Array:
        """Alpha for weights of items or of raters, (draws, each); NaN where all values are one."""
        draws = next((len(w) for w in (items, raters) if w is not None), 1)
        size = max(1, _CHUNK // (self.units * len(self.values)))
        one = np.ones((1, self.items)), np.ones((1, self.raters))
        parts = [
            self._alpha(*(every if w is None else w[at : at + size]
                          for w, every in zip((items, raters), one, strict=True)))
            for at in range(0, draws, size)
        ]  # fmt: skip
        return np.concatenate(parts)

    def _alpha(self, items: Array, raters: Array) -> Array:
        n, own = self._counts(raters)
        rated = n.sum(axis=2)
        pairs = rated**2 - own.sum(axis=2)
        # Each rating counts once, however many it is compared with; copies of a rater are not
        # compared with each other.
        factor = items[:, self.group] * np.divide(rated, pairs, np.zeros_like(rated),
                                                  where=pairs > 0)  # fmt: skip
        observed, expected = np.zeros((2, len(factor)))
        for of in self.pairs:
            far, chance = self._disagreement(n[:, of], own[:, of], factor[:, of, None])
            observed += far
            expected += chance
        with np.errstate(divide="ignore", invalid="ignore"):
            out: Array = 1 - observed / expected
        out[~(expected > _TINY)] = np.nan
        return out

    def _disagreement(self, n: Array, own: Array, factor: Array) -> tuple[Array, Array]:
        """The sums of distances within one pair of models: as seen, and by chance."""
        seen = np.matmul((n * factor).transpose(0, 2, 1), n)
        seen -= (own * factor).sum(axis=1)[:, :, None] * np.eye(len(self.values))
        each = seen.sum(axis=2)
        total = each.sum(axis=1)
        far = self._distances(each)
        by_chance = (each[:, :, None] * each[:, None, :] * far).sum(axis=(1, 2))
        rest = np.maximum(total - 1, 1)
        return (seen * far).sum(axis=(1, 2)), by_chance / rest

    def same(self, alike: NDArray[Any]) -> float:
        """The share of pairs of raters whose values are alike."""
        n, own = self._counts(np.ones((1, self.raters)))
        seen = n[0].T @ n[0] - np.diag(own[0].sum(axis=0))
        return float((seen * alike).sum() / seen.sum())

    def _counts(self, raters: Array) -> tuple[Array, Array]:
        """Weights, and their squares, by unit and value: (draws, units, values)."""
        shape = (len(raters), self.units * len(self.values))
        n, own = np.zeros(shape), np.zeros(shape)
        for cell, who in self.slots:
            weight = raters[:, who]
            n[:, cell] += weight
            own[:, cell] += weight**2
        whole = (len(raters), self.units, len(self.values))
        return n.reshape(whole), own.reshape(whole)

    def _distances(self, each: Array) -> Array:
        """Squared distances of values: (1 or draws, values, values)."""
        if self.level == "nominal":
            return (1 - np.eye(len(self.values)))[None]
        if self.level == "interval":
            gap: Array = np.subtract.outer(self.values, self.values)[None] ** 2
            return gap
        # Ordinal: the share of values that lie between two, with half of each end; a share, so that
        # a pair of models with many ratings counts no more for each.
        middle = (np.cumsum(each, axis=1) - each / 2) / np.maximum(each.sum(axis=1), 1)[:, None]
        between: Array = (middle[:, :, None] - middle[:, None, :]) ** 2
        return between


def judges(ratings: Sequence[Rating], *, seed: int = 0) -> list[JudgeAgreement]:
    """How each judge agrees with people, by the judges' names."""
    people = by_unit(r for r in ratings if r.workforce != "judge")
    judged = [r for r in ratings if r.workforce == "judge"]
    half = halves(judged)
    return [
        _judge(
            name,
            {unit: said[name] for unit, said in by_unit(own).items()},
            people,
            sum(judge == name and unit in people for judge, unit in half),
            seed,
        )
        for name in sorted({r.rater for r in judged})
        if (own := [r for r in judged if r.rater == name])
    ]


def _judge(
    name: str,
    judged: Mapping[Unit, float],
    people: Mapping[Unit, Mapping[str, float]],
    dropped: int,
    seed: int,
) -> JudgeAgreement:
    shared = [u for u in judged if u in people]
    if not shared:
        none = Interval(None, None, None, 0, "no comparison that people rated too")
        return JudgeAgreement(name, none, none, none, none, 0, dropped)
    groups, pair = np.array(_groups(shared)), np.zeros(len(shared), dtype=int)
    for number, of in enumerate(_pairs(shared)):
        pair[of] = number
    items = int(groups.max()) + 1
    tables = np.zeros((items, int(pair.max()) + 1, 3, 3))
    # How often a person, and the judge, preferred what the other people do; and of how many.
    beside = np.zeros((items, 3))
    for at, unit in enumerate(shared):
        said = people[unit]
        mean = sign(fmean(said.values()))
        tables[groups[at], pair[at], sign(judged[unit]) + 1, mean + 1] += 1
        for one, value in said.items() if len(said) > 1 else ():
            others = sign(fmean(v for rater, v in said.items() if rater != one))
            hits = sign(value) == others, sign(judged[unit]) == others
            beside[groups[at]] += (*hits, True)

    def told(of: Array, statistic: Callable[[Array], Array], n: int) -> Interval:
        point = float(statistic(_sums(np.ones((1, items)), of))[0])
        draws = statistic(_sums(_weights(items, seed), of))
        low, high, note = _interval(point, draws, items)
        return Interval(point if math.isfinite(point) else None, low, high, n, note)

    n = int(beside[:, 2].sum())
    if n:
        person, in_place = (told(beside[:, [i, 2]], _share, n) for i in (0, 1))
    else:
        person = in_place = Interval(None, None, None, 0, "no comparison with two people")
    direction, kappa = (told(tables, of, len(shared)) for of in (_accord, _kappa))
    return JudgeAgreement(name, direction, kappa, person, in_place, len(shared), dropped)


def _sums(weights: Array, tables: Array) -> Array:
    return (weights @ tables.reshape(len(tables), -1)).reshape(-1, *tables.shape[1:])


def _share(counts: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        out: Array = counts[:, 0] / counts[:, 1]
    return out


def _accord(tables: Array) -> Array:
    out: Array = np.trace(tables, axis1=2, axis2=3).sum(axis=1) / tables.sum(axis=(1, 2, 3))
    return out


def _kappa(tables: Array) -> Array:
    """Cohen's kappa, linear weights, chance within a pair: (draws, pairs, k, k) to (draws,)."""
    far = np.abs(np.subtract.outer(np.arange(3), np.arange(3)))
    total = np.maximum(tables.sum(axis=(2, 3)), 1)
    chance = tables.sum(axis=3)[..., None] * tables.sum(axis=2)[:, :, None] / total[..., None, None]
    expected = (chance * far).sum(axis=(1, 2, 3))
    with np.errstate(divide="ignore", invalid="ignore"):
        out: Array = 1 - (tables * far).sum(axis=(1, 2, 3)) / expected
    out[~(expected > _TINY)] = np.nan
    return out


def sign(value: float) -> int:
    """Which output a preference is for: 1, 0 or -1."""
    return (value > 0) - (value < 0)


def _groups(units: Iterable[Unit]) -> list[int]:
    """The number of each unit's item: comparisons of one item are not independent."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(item, len(numbers)) for item, _, _ in units]


def _pairs(units: Iterable[Unit]) -> list[list[int]]:
    """Which units are of each pair of models."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for at, (_, a, b) in enumerate(units):
        found[a, b].append(at)
    return list(found.values())


def _weights(items: int, seed: int) -> Array:
    """How often each item is drawn: (resamples, items)."""
    rng = np.random.default_rng([seed, items])
    return rng.multinomial(items, np.full(items, 1 / items), RESAMPLES).astype(np.float64)


def _interval(value: float, draws: Array, items: int) -> tuple[float | None, float | None, str]:
    """The expanded percentile interval over `items`, and why there is none.

    T. Hesterberg, "What teachers should know about the bootstrap", The American Statistician
    69(4), 2015.
    """
    if not math.isfinite(value):
        return None, None, "undefined: all chose the same"
    good = draws[np.isfinite(draws)]
    if items < 2 or len(good) < 0.9 * len(draws):
        return None, None, "too few items for an interval"
    if good.max() - good.min() <= _TINY:
        return None, None, "no spread between items"
    t = float(stdtrit(items - 1, 0.5 + _LEVEL / 2))
    cut = NormalDist().cdf(-t * math.sqrt(items / (items - 1)))
    low, high = np.quantile(good, [cut, 1 - cut])
    return float(low), float(high), ""
