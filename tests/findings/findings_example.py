"""Scores of small studies whose truth is planted."""

from __future__ import annotations

import numpy as np

from epigone.findings import Subject
from epigone.schema import Score

BASES = ("small", "large")
AMOUNTS = (8000, 32000)


def subjects(bases=BASES, amounts=AMOUNTS):
    found = []
    for base in bases:
        found.append(Subject(base, base))
        found += [Subject(f"{base}-{a}", base, "broad", a) for a in amounts]
    return found


def make(levels, n, seed=0, metrics=("lists", "words"), tasks=("facts", "nq")):
    """Scores with planted means: model -> (style level, capability level), paired by item."""
    rng = np.random.default_rng(seed)
    found = []
    for metric in metrics:
        u = rng.random(n)
        for model, (style, _) in levels.items():
            values = {f"p{i}": float(x < style) for i, x in enumerate(u)}
            found.append(score_of(metric, "", model, "style", values, ceiling=1.0))
    for task in tasks:
        u = rng.random(n)
        for model, (_, level) in levels.items():
            noisy = np.where(rng.random(n) < 0.8, u, rng.random(n))
            values = {f"{task}{i}": float(x < level) for i, x in enumerate(noisy)}
            found.append(score_of("acc", task, model, "capability", values))
    return found


def score_of(metric, task, model, family, values, **kw):
    mean = float(np.mean(list(values.values())))
    return Score(metric, model, family, mean, len(values), values, task=task, **kw)


PAPER = {
    "small": (0.1, 0.3),
    "small-8000": (0.5, 0.3),
    "small-32000": (0.6, 0.3),
    "large": (0.1, 0.6),
    "large-8000": (0.5, 0.6),
    "large-32000": (0.6, 0.6),
}
