"""Newton's method on likelihoods of wins and losses, many at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from epigone.findings.resample import Array

# Holds an estimate finite where one side always wins; it adds as much as a hundredth of an item
# could say.
RIDGE = 0.01
_MOST_STEPS = 100
_LONGEST_STEP = 2.0
_SMALL = 1e-10


def newton(start: Array, step: Callable[[Array], Array]) -> Array:
    """Where `step` leads from `start`, no coordinate by more than 2 at a time."""
    told = start
    for _ in range(_MOST_STEPS):
        # Far from the solution the curve is flat, and a whole step would go past it.
        moved = np.clip(step(told), -_LONGEST_STEP, _LONGEST_STEP)
        told = told + moved
        if np.abs(moved).max(initial=0.0) < _SMALL:
            break
    return told
