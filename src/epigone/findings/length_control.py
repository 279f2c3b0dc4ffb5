"""The win rate that would be left if both answers were equally long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, stdtrit

from epigone.findings.newton import RIDGE, newton
from epigone.findings.pigeonhole import Grid
from epigone.findings.preference import ONE, Cells
from epigone.findings.resample import LEVEL, RESAMPLES, Array, open_percentile, stream
from epigone.schema import Interval

Marks = NDArray[np.bool_]
APART = "wins and losses do not overlap: held finite by a small ridge"
OPEN = "almost no overlap of wins and losses: no bound on that side"
ALIKE = "no spread between items"
BEYOND = "nearly all answers are {}: equal length is extrapolated"
# Of the comparisons, so many lie at equal length or beyond it, or it is extrapolated.
_BEYOND = 0.1
# The other coefficient is looked for between these, which are halved so often.
_FAR, _HALVES = 2000.0, 36
# How far from an estimate, in log-odds, its bounds are looked for.
_AWAY = np.geomspace(0.05, 60, 20)


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
    difficulty of prompts. `wins` are 1, 1/2, 0 or means of these by item; the standard deviation is
    that of all of them. Intervals are those of the profile likelihood (see `profile`). `people` are
    the wins by rater and item where people rated: raters and items are resampled too, and the
    interval holds both.
    """
    items = sorted(wins)
    y = np.array([wins[i] for i in items], dtype=np.float64)
    d = np.array([float(lengths[i]) - float(against[i]) for i in items], dtype=np.float64)
    n, spread = len(items), float(d.std()) if items else 0.0
    if n < 2 or (spread == 0 and d.any()):
        none = Interval(None, None, None, n, "too few differences of length to tell")
        return LengthControlled(none, none)
    x = np.tanh(d / spread) if spread > 0 else d
    theta, phi = (float(v) for v in fit(x, y, np.ones((1, n)))[0])
    up, down = _apart(x, y[None], np.ones((1, n)))
    apart = bool(up[0] or down[0]) if spread > 0 else bool(y.max() == 0 or y.min() == 1)
    grid = None
    if people and len({who for who, item in people if item in wins}) > 1:
        rows = ((who, item, 0, v) for (who, item), v in people.items() if item in wins)
        grid = Grid(rows, people=True)
    # Of values that are all alike there is no spread to tell from, as a judge's who always ties.
    alike = not apart and float(np.ptp(y)) == 0
    notes = [
        APART if apart else "",
        ALIKE if alike else "",
        _beyond(d),
        ONE if people and grid is None else "",
    ]
    # Where nothing overlaps, draws would differ by what the ridge leaves.
    ends: list[tuple[float | None, float | None]] = [(None, None), (None, None)]
    if not (apart or alike):
        drawn = None
        if grid is not None:
            parts = grid.draws(stream(seed, "length-controlled"), resamples)
            drawn = np.concatenate([_drawn(x, means, weights) for weights, means in parts])
        ends = [
            _ends(x, y, k, (theta, phi)[k], None if drawn is None else drawn[:, k], grid)
            for k in (0, 1)
        ]
    note = "; ".join(filter(None, notes))
    low, high = (None if end is None else float(expit(end)) for end in ends[0])
    rate = Interval(float(expit(theta)), low, high, n, note)
    low, high = (end if end is None or np.isfinite(end) else None for end in ends[1])
    if not (apart or alike) and None in (low, high):
        note = "; ".join(filter(None, (OPEN, note)))
    slope = Interval(phi, low, high, n, note)
    if spread == 0:
        slope = Interval(None, None, None, n, "all are of equal length")
    return LengthControlled(rate, slope)


def fit(x: Array, y: Array, weights: Array) -> Array:
    """Intercept and slope of logistic regressions of shares `y`, one a row of `weights`.

    `y` are the same for all rows, or a row each.

    Newton's method on the likelihood less RIDGE / 2 of their squares; (rows, 2).
    """

    def step(told: Array) -> Array:
        p = expit(told[:, :1] + told[:, 1:] * x)
        off = weights * (y - p)
        curve = weights * p * (1 - p)
        g0 = off.sum(axis=1) - RIDGE * told[:, 0]
        g1 = off @ x - RIDGE * told[:, 1]
        h00 = curve.sum(axis=1) + RIDGE
        h01 = curve @ x
        h11 = curve @ (x * x) + RIDGE
        found: Array = np.stack([h11 * g0 - h01 * g1, h00 * g1 - h01 * g0], axis=1)
        found /= (h00 * h11 - h01 * h01)[:, None]
        return found

    return newton(np.zeros((len(weights), 2)), step)


def profile(x: Array, y: Array, which: int) -> tuple[float, float]:
    """The interval of the intercept (0) or the slope (1), by the likelihood that is left where the
    other one is the likeliest; infinite where it never falls far enough.

    D. J. Venzon and S. H. Moolgavkar, "A method for computing profile-likelihood-based confidence
    intervals", Applied Statistics 37, 1988, with Student's t for few items, and the deviance over
    the dispersion of shares that are not all 0 or 1. Percentiles of a bootstrap are too narrow here
    where equal length is far from most items.
    """
    told = fit(x, y, np.ones((1, len(y))))[0]
    p = expit(told[0] + told[1] * x)
    freedom = max(1, len(y) - 2)
    dispersion = ((y - p) ** 2).sum() / (p * (1 - p)).sum() * len(y) / freedom
    most = float(stdtrit(freedom, 0.5 + LEVEL / 2)) ** 2 * min(1.0, dispersion)
    # The ridge moves an estimate, and would end a likelihood that never falls.
    values = told[which] + np.concatenate([-_AWAY[::-1], [0.0], _AWAY])
    for _ in range(4):
        found = _left(x, y, which, values)
        at = int(np.argmax(found))
        peak, top = values[at], found[at]
        values = np.linspace(values[max(0, at - 1)], values[min(len(values) - 1, at + 1)], 12)

    def end(sign: float) -> float:
        away = np.concatenate([[0.0], _AWAY])
        for _ in range(4):
            fell = 2 * (top - _left(x, y, which, peak + sign * away)) > most
            if not fell[-1]:
                return sign * float("inf")
            at = max(1, int(np.argmax(fell)))
            away = np.linspace(away[at - 1], away[at], 12)
        return float(peak + sign * away[-1])

    return min(end(-1), float(told[which])), max(end(1), float(told[which]))


def _left(x: Array, y: Array, which: int, values: Array) -> Array:
    """The highest log-likelihood where one coefficient has each of `values`."""
    held, free = (x, np.ones_like(x)) if which else (np.ones_like(x), x)
    fixed = values[:, None] * held
    low, high = np.full((len(values), 1), -_FAR), np.full((len(values), 1), _FAR)
    # Halved: Newton's method leaps about where the curve is flat.
    for _ in range(_HALVES):
        middle = (low + high) / 2
        rises = ((y - expit(fixed + middle * free)) * free).sum(axis=1, keepdims=True) > 0
        low, high = np.where(rises, middle, low), np.where(rises, high, middle)
    line = fixed + low * free
    found: Array = (y * line - np.logaddexp(0, line)).sum(axis=1)
    return found


def _ends(
    x: Array, y: Array, which: int, value: float, draws: Array | None, grid: Grid | None
) -> tuple[float, float]:
    """The profile's interval, and that of draws of raters and items where it is wider."""
    low, high = profile(x, y, which)
    if draws is None or grid is None:
        return low, high
    told = open_percentile(value, draws, grid.groups, len(y), "", grid.cut)
    return (
        min(low, -np.inf if told.low is None else told.low),
        max(high, np.inf if told.high is None else told.high),
    )


def _apart(x: Array, y: Array, weights: Array) -> tuple[Marks, Marks]:
    """Whether no loss is longer than any win, and no win than any loss, by row of `weights`."""
    won, lost = (weights > 0) & (y > 0), (weights > 0) & (y < 1)
    return (
        np.where(won, x, np.inf).min(axis=1) >= np.where(lost, x, -np.inf).max(axis=1),
        np.where(lost, x, np.inf).min(axis=1) >= np.where(won, x, -np.inf).max(axis=1),
    )


def _drawn(x: Array, y: Array, weights: Array) -> Array:
    """`fit`, and what it would be without a ridge where wins and losses of a draw do not overlap:
    infinite, or NaN where that may be either."""
    found = fit(x, y, weights)
    none_won = ~((weights > 0) & (y > 0)).any(axis=1)
    none_lost = ~((weights > 0) & (y < 1)).any(axis=1)
    if x.any():
        up, down = _apart(x, y, weights)
        found[:, 1] = np.where(up, np.inf, np.where(down, -np.inf, found[:, 1]))
        found[up & down, 1] = np.nan
        # At equal length every answer wins, or loses, or lies in the gap between both.
        for sign, rows in ((1.0, up & ~down), (-1.0, down & ~up)):
            line = sign * x
            kept = weights > 0
            lowest = np.where(kept & (y > 0), line, np.inf).min(axis=1)
            highest = np.where(kept & (y < 1), line, -np.inf).max(axis=1)
            found[rows, 0] = np.where(lowest < 0, np.inf, np.where(highest > 0, -np.inf, np.nan))[
                rows
            ]
    found[none_won, 0], found[none_lost, 0] = -np.inf, np.inf
    return found


def _beyond(d: Array) -> str:
    """Whether equal length lies where hardly any comparison does."""
    if not d.any():
        return ""
    if (d <= 0).mean() < _BEYOND:
        return BEYOND.format("longer")
    return BEYOND.format("shorter") if (d >= 0).mean() < _BEYOND else ""
