"""The strength of every model from all comparisons among them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from epigone.errors import UnknownName
from epigone.findings.preference import by_item, cells, counted
from epigone.findings.resample import Array, percentile, stream
from epigone.schema import Interval, Rating

# Holds a model finite that always wins or always loses.
RIDGE = 0.01
RESAMPLES = 1000
_HELD = "always wins or always loses, or is compared with no common other: held by a small ridge"
_CHUNK = 100
_MOST_STEPS = 100
_LONGEST_STEP = 2.0
_SMALL = 1e-9


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
    raters; items are resampled. Raises UnknownName where the anchor was not compared.
    """
    own = counted(ratings)
    models = sorted({name for r in own for name in (r.a, r.b)})
    if anchor not in models:
        raise UnknownName("compared model", anchor, models)
    wins, counts = _wins(own, models)
    n = len(wins)
    at = models.index(anchor)
    joined = _joined(wins.sum(axis=0), at)
    point = _anchored(fit(wins.sum(axis=0)[None]), at)[0]
    rng = stream(seed, "bradley-terry")
    parts = []
    flat = wins.reshape(n, len(models) ** 2)
    for start in range(0, resamples if n > 1 else 0, _CHUNK):
        rows = min(_CHUNK, resamples - start)
        weights = rng.multinomial(n, np.full(n, 1 / n), rows).astype(np.float64)
        drawn = (weights @ flat).reshape(rows, len(models), len(models))
        parts.append(_anchored(fit(drawn), at))
    draws = np.concatenate(parts) if parts else np.empty((0, len(models)))
    found = []
    for i, model in enumerate(models):
        value, total = float(point[i]), counts[model]
        if i == at:
            told = Interval(0.0, None, None, total, "the anchor")
        elif not total:
            told = Interval(None, None, None, 0, "no comparison that counts")
        else:
            told = percentile(value, draws[:, i], n, total)
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
    told = np.zeros(wins.shape[:2])
    for _ in range(_MOST_STEPS):
        p = expit(told[:, :, None] - told[:, None, :])
        slope = (wins - games * p).sum(axis=2) - RIDGE * told
        curve = games * p * (1 - p)
        hessian = -curve
        hessian[:, range(size), range(size)] = curve.sum(axis=2) + RIDGE
        step = np.linalg.solve(hessian, slope[..., None])[..., 0]
        step = np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)
        told = told + step
        if np.abs(step).max() < _SMALL:
            break
    return told


def _anchored(strengths: Array, at: int) -> Array:
    return strengths - strengths[:, at : at + 1]


def _wins(ratings: Sequence[Rating], models: Sequence[str]) -> tuple[Array, dict[str, int]]:
    """Wins of the row against the column by item, and how many comparisons each model has."""
    index = {model: i for i, model in enumerate(models)}
    pairs: dict[tuple[str, str], list[Rating]] = defaultdict(list)
    for r in ratings:
        pairs[r.a, r.b].append(r)
    values = {pair: by_item(cells(own, pair[0])) for pair, own in pairs.items()}
    items = sorted({item for own in values.values() for item in own})
    row = {item: i for i, item in enumerate(items)}
    wins = np.zeros((len(items), len(models), len(models)))
    counts = dict.fromkeys(models, 0)
    for (a, b), own in values.items():
        counts[a] += len(own)
        counts[b] += len(own)
        for item, value in own.items():
            wins[row[item], index[a], index[b]] += value
            wins[row[item], index[b], index[a]] += 1 - value
    return wins, counts


def _joined(wins: Array, at: int) -> set[int]:
    """Models whose strength beside the anchor's is finite without a ridge: in chains of others,
    each both beats the anchor and is beaten by it (L. R. Ford, American Mathematical Monthly 64,
    1957)."""
    _, part = connected_components(wins > 0, directed=True, connection="strong")
    return {i for i, own in enumerate(part) if own == part[at]}
