"""Logistic regressions of shares on any columns, many at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from epigone.findings.newton import RIDGE, newton
from epigone.findings.resample import Array

# The ridge's share of all that is known of a coefficient, from which on it is the ridge's. Where
# wins and losses do not overlap it is a tenth or so; six items that do leave a hundredth.
_RIDGES = 0.05


def fit(
    x: Array, y: Array, weights: Array, start: Array | None = None
) -> tuple[Array, NDArray[np.bool_]]:
    """Coefficients of columns `x`, one regression a row of `weights`, and which of them nothing but
    the ridge keeps finite; both (rows, columns).

    `y` are shares from 0 to 1, the same for all rows or a row each: a tie is half a win, as in the
    likelihood of half a win and half a loss. Newton's method on the likelihood less RIDGE / 2 of
    the squared coefficients, from `start`.
    """
    size = x.shape[1]
    squares = (x[:, :, None] * x[:, None, :]).reshape(len(x), size * size)
    ridge = RIDGE * np.eye(size)

    def curve(p: Array) -> Array:
        found: Array = ((weights * p * (1 - p)) @ squares).reshape(-1, size, size) + ridge
        return found

    def step(told: Array) -> Array:
        p = expit(told @ x.T)
        slope = (weights * (y - p)) @ x - RIDGE * told
        return np.asarray(np.linalg.solve(curve(p), slope[..., None])[..., 0], dtype=np.float64)

    begun = np.zeros(size) if start is None else start
    told = newton(np.tile(begun, (len(weights), 1)), step)
    inverse = np.linalg.inv(curve(expit(told @ x.T)))
    variances = np.asarray(np.diagonal(inverse, axis1=1, axis2=2), dtype=np.float64)
    return told, RIDGE * variances > _RIDGES
