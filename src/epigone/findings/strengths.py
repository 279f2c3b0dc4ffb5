"""The strength of every model from all comparisons among them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from epigone.errors import UnknownName
from epigone.findings.newton import RIDGE, newton
from epigone.findings.pigeonhole import Grid, Row
from epigone.findings.preference import ONE, cells, counted, of_people
from epigone.findings.resample import Array, open_percentile, stream
from epigone.schema import Interval, Rating

RESAMPLES = 1000
_HELD = "always wins or always loses, or is compared with no common other: held by a small ridge"
OPEN = "so few wins or losses that draws have none: no bound on that side"


@dataclass(frozen=True, slots=True)
class Strength:
    """A model's log-odds of winning against the anchor, whose own is 0, over `n` comparisons."""

    model: str
    strength: Interval


def bradley_terry(
    ratings: Sequence[Rating], anchor: str, seed: int = 0, resamples: int = RESAMPLES
) -> list[Strength]:
    """Strengths of all models that were compared, the strongest first.

    P(i beats j) = 1 / (1 + exp(s_j - s_i)) (R. A. Bradley and M. E. Terry, Biometrika 39, 1952); a
    tie is half a win for each. Every item of a pair counts once, as the mean over orders and
    raters; items are resampled, and people with them. Raises UnknownName where the anchor was not
    compared.
    """
    own = counted(ratings)
    models = sorted({name for r in own for name in (r.a, r.b)})
    if anchor not in models:
        raise UnknownName("compared model", anchor, models)
    at, people = models.index(anchor), of_people(own)
    rows, pairs, counts = _rows(own, models)
    grid = Grid(rows, people)
    places = np.array([pairs[part] for _, part in grid.places], dtype=np.intp).reshape(-1, 2)
    wins = _wins(np.ones((1, len(places))), grid.means[None], places, len(models))
    point, joined = _anchored(fit(wins), at)[0], _joined(wins[0], at)
    parts = [np.empty((0, len(models)))]
    rng = stream(seed, "bradley-terry")
    for weights, means in grid.draws(rng, resamples if grid.items > 1 else 0):
        drawn = _wins(weights, means, places, len(models))
        parts.append(_anchored(fit(drawn), at) + _infinite(drawn, at))
    draws = np.concatenate(parts)
    one = ONE if people and grid.raters < 2 else ""
    found = []
    for i, model in enumerate(models):
        value, total = float(point[i]), counts[model]
        if i == at:
            told = Interval(0.0, None, None, total, "the anchor")
        elif not total:
            told = Interval(None, None, None, 0, "no comparison that counts")
        else:
            told = open_percentile(value, draws[:, i], grid.groups, total, one, grid.cut, OPEN)
            if i not in joined:
                # What draws differ by is what the ridge leaves.
                told = Interval(value, None, None, total, _HELD)
        found.append(Strength(model, told))
    return sorted(found, key=lambda s: (-(s.strength.value or 0.0), s.model))


def fit(wins: Array) -> Array:
    """Strengths of models from how often the row wins against the column; (many, models).

    Newton's method on the likelihood less RIDGE / 2 of the squared strengths.
    """
    games = wins + wins.transpose(0, 2, 1)
    size = wins.shape[1]

    def step(told: Array) -> Array:
        p = expit(told[:, :, None] - told[:, None, :])
        slope = (wins - games * p).sum(axis=2) - RIDGE * told
        curve = games * p * (1 - p)
        hessian = -curve
        hessian[:, range(size), range(size)] = curve.sum(axis=2) + RIDGE
        found: Array = np.linalg.solve(hessian, slope[..., None])[..., 0]
        return found

    return newton(np.zeros(wins.shape[:2]), step)


def _anchored(strengths: Array, at: int) -> Array:
    return strengths - strengths[:, at : at + 1]


def _rows(
    ratings: Sequence[Rating], models: Sequence[str]
) -> tuple[list[Row], list[tuple[int, int]], dict[str, int]]:
    """Wins of a pair's first by rater and item, the pairs, how many comparisons a model has."""
    own: dict[tuple[str, str], list[Rating]] = defaultdict(list)
    counts = dict.fromkeys(models, 0)
    for r in ratings:
        own[r.a, r.b].append(r)
    rows: list[Row] = []
    for part, (pair, told) in enumerate(own.items()):
        values = cells(told, pair[0])
        rows += [(rater, item, part, value) for (rater, item), value in values.items()]
        for name in pair:
            counts[name] += len({item for _, item in values})
    return rows, [(models.index(a), models.index(b)) for a, b in own], counts


def _wins(weights: Array, means: Array, places: NDArray[np.intp], models: int) -> Array:
    """Wins of the row against the column, (draws, models, models)."""
    wins = np.zeros((len(weights), models, models))
    for a, b in sorted({(int(a), int(b)) for a, b in places}):
        own = (places == (a, b)).all(axis=1)
        won = weights[:, own] * means[:, own]
        wins[:, a, b] += won.sum(axis=1)
        wins[:, b, a] += (weights[:, own] - won).sum(axis=1)
    return wins


def _infinite(wins: Array, at: int) -> Array:
    """What a strength beside the anchor's is without a ridge: 0 to add where it is finite, infinite
    where chains of wins lead one way only, NaN where none does; (draws, models)."""
    size = wins.shape[1]
    way: NDArray[np.bool_] = (wins > 0) | np.eye(size, dtype=bool)
    for _ in range(size.bit_length()):
        way = np.any(way[:, :, :, None] & way[:, None, :, :], axis=2)
    over, under = way[:, :, at], way[:, at, :]
    one_way = np.where(over, np.inf, np.where(under, -np.inf, np.nan))
    return np.where(over & under, 0.0, one_way)


def _joined(wins: Array, at: int) -> set[int]:
    """Models whose strength beside the anchor's is finite without a ridge: in chains of others,
    each both beats the anchor and is beaten by it (L. R. Ford, American Mathematical Monthly 64,
    1957)."""
    _, part = connected_components(wins > 0, directed=True, connection="strong")
    return {i for i, own in enumerate(part) if own == part[at]}
