"""Findings on a few simulated studies whose truth is known; bench/simulated_studies.py has more."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
import simulated_studies as simulated

# Fewer bases and items than the studies of the bench have, to save time.
LEAN: dict[str, Any] = {"levels": (0.30, 0.38), "items": 100, "prompts": 40}


def tallied(world: simulated.World, studies: int) -> simulated.Tally:
    total: simulated.Tally = {}
    for seed in range(studies):
        study = simulated.simulate(world, seed)
        for name, marks in simulated.judge(study, simulated.found_in(study, 400)).items():
            total.setdefault(name, []).extend(marks)
    return total


def bounds(n: int, share: float) -> tuple[float, float]:
    """Shares that n trials of a true share give, but for one study in a million."""
    return tuple(x / n for x in binom.interval(1 - 1e-6, n, share))


def test_where_nothing_is_true_little_is_claimed() -> None:
    studies = 14
    total = tallied(replace(simulated.NULL, **LEAN | {"levels": (0.35, 0.35)}), studies)
    assert not [name for name in total if name.startswith("found:")]
    # Stated: at most one study in twenty.
    claimed = np.mean(total["a false claim in the study"])
    assert claimed <= bounds(studies, 0.05)[1]
    covered(total)


def test_what_is_true_is_found_and_nothing_else() -> None:
    studies = 14
    world = replace(simulated.PROMISE, **LEAN, local=(0.1, 0.2, 0.3, 0.4))
    total = tallied(world, studies)
    assert np.mean(total["a false claim in the study"]) <= bounds(studies, 0.05)[1]
    assert np.mean(total["found: style up"]) > 0.95
    assert np.mean(total["found: supported up"]) > 0.95
    covered(total)


def covered(total: simulated.Tally) -> None:
    """Intervals of 95% hold the truth in 93 to 97 of 100 studies, as far as these can tell."""
    seen = {name: marks for name, marks in total.items() if name.startswith("covers:")}
    assert len(seen) == 13
    for name, marks in seen.items():
        # Marks of one study are not independent: no more than two a study count.
        n = min(len(marks), 2 * len(total["a false claim in the study"]))
        assert bounds(n, 0.93)[0] <= np.mean(marks) <= bounds(n, 0.97)[1], (name, np.mean(marks))
