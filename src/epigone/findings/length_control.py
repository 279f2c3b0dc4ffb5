"""The win rate that would be left if both answers were equally long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit

from epigone.findings.pigeonhole import Grid
from epigone.findings.preference import ONE, Cells
from epigone.findings.resample import RESAMPLES, Array, percentile, stream
from epigone.schema import Interval

# Holds the estimate finite where answers of one kind always win; it adds as much as a hundredth of
# an item could say.
RIDGE = 0.01
_MOST_STEPS = 100
_LONGEST_STEP = 2.0
_SMALL = 1e-10


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """The win rate at equal length, and `slope`, how much length does: the log-odds of a win that
    an answer much longer than usual has over one of equal length."""

    win_rate: Interval
    slope: Interval


def length_controlled(
    wins: Mapping[str, float],
    lengths: Mapping[str, float],
    against: Mapping[str, float],
    seed: int = 0,
    resamples: int = RESAMPLES,
    people: Cells | None = None,
) -> LengthControlled:
    """logit P(win) = theta + phi tanh(d / sd(d)), d the difference of lengths; theta is told.

    Dubois et al., "Length-Controlled AlpacaEval" (arXiv 2404.04475), without its terms for the
    difficulty of prompts. `wins` are 1, 1/2, 0 or means of these by item; items are resampled, and
    the standard deviation is that of all of them. `people` are the wins by rater and item where
    people rated: raters are resampled too.
    """
    items = sorted(wins)
    y = np.array([wins[i] for i in items], dtype=np.float64)
    d = np.array([float(lengths[i]) - float(against[i]) for i in items], dtype=np.float64)
    n, spread = len(items), float(d.std()) if items else 0.0
    if n < 2 or (spread == 0 and d.any()):
        none = Interval(None, None, None, n, "too few differences of length to tell")
        return LengthControlled(none, none)
    x = np.tanh(d / spread) if spread > 0 else d
    point = fit(x, y, np.ones((1, n)))[0]
    rng = stream(seed, "length-controlled")
    rows = people or {("", item): win for item, win in wins.items()}
    grid = Grid(((who, i, 0, v) for (who, i), v in rows.items() if i in wins), people is not None)
    drawn = np.concatenate(
        [fit(x, means, weights) for weights, means in grid.draws(rng, resamples)]
    )
    note = "; ".join(filter(None, (_note(x, y), ONE if people and grid.raters < 2 else "")))

    def told(value: float, draws: Array) -> Interval:
        return percentile(value, draws, grid.groups, n, note, grid.cut)

    slope = told(float(point[1]), drawn[:, 1])
    if spread == 0:
        slope = Interval(None, None, None, n, "all are of equal length")
    rate = told(float(expit(point[0])), expit(drawn[:, 0]))
    if _note(x, y):
        # Draws differ by what the ridge leaves, which says nothing of the spread between items.
        rate, slope = (replace(one, low=None, high=None) for one in (rate, slope))
    return LengthControlled(rate, slope)


def fit(x: Array, y: Array, weights: Array) -> Array:
    """Intercept and slope of logistic regressions of shares `y`, one a row of `weights`.

    `y` are the same for all rows, or a row each.

    Newton's method on the likelihood less RIDGE / 2 of their squares; (rows, 2).
    """
    told = np.zeros((len(weights), 2))
    for _ in range(_MOST_STEPS):
        p = expit(told[:, :1] + told[:, 1:] * x)
        off = weights * (y - p)
        curve = weights * p * (1 - p)
        g0 = off.sum(axis=1) - RIDGE * told[:, 0]
        g1 = off @ x - RIDGE * told[:, 1]
        h00 = curve.sum(axis=1) + RIDGE
        h01 = curve @ x
        h11 = curve @ (x * x) + RIDGE
        determinant = h00 * h11 - h01 * h01
        step = np.stack([h11 * g0 - h01 * g1, h00 * g1 - h01 * g0], axis=1)
        step /= determinant[:, None]
        # Far from the solution the curve is flat, and a whole step would go past it.
        step = np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)
        told += step
        if np.abs(step).max() < _SMALL:
            break
    return told


def _note(x: Array, y: Array) -> str:
    """Whether the ridge alone keeps the estimate finite."""
    won, lost = x[y > 0], x[y < 1]
    if not len(won) or not len(lost) or won.min() > lost.max() or won.max() < lost.min():
        return "wins and losses do not overlap: held finite by a small ridge"
    return ""
