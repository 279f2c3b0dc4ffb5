"""The share of a gain in preference that goes with how answers are, by standardisation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from epigone.findings.gaps import gap_exists
from epigone.findings.logistic import fit
from epigone.findings.pigeonhole import Grid, Row
from epigone.findings.preference import ONE
from epigone.findings.resample import Array, open_percentile, percentile
from epigone.schema import Interval

# Items below which two slopes and their draws say more than they know (see docs/judges.md).
LEAST = 20
NO_GAIN = "the student cannot be told from its base"
NO_TERMS = "style and length are not known, or are all alike"
FEW = f"fewer than {LEAST} items"
APART = "wins and losses do not overlap: held finite by a small ridge"
BEYOND = "hardly any of its answers are as {} as the base's: extrapolated"
# Of a student's answers, so many lie at the base's mean or beyond it, or it is extrapolated.
_BEYOND = 0.1
STYLE, LENGTH, RIGHT = "style", "length", "correctness"
_WAYS = {STYLE: ("unlike the teacher's", "like the teacher's"), LENGTH: ("short", "long")}
# The value of a term by the model's place in a list and by item.
Term = Mapping[tuple[str, int], float]
_SAME = 1e-12
Marks = NDArray[np.bool_]


class Regression:
    """One regression of all models' wins: the first is the base, and each item's answers are
    moved, resampled and compared together."""

    def __init__(
        self, rows: Iterable[Row], people: bool, models: int, terms: Mapping[str, Term]
    ) -> None:
        """Take the answers of which all terms are known."""
        kept = [r for r in rows if all((r[1], r[2]) in term for term in terms.values())]
        self.grid = Grid(kept, people)
        self.models = models
        self.one = ONE if people and self.grid.raters < 2 else ""
        places = self.grid.places
        columns = {n: _column(n, np.array([t[p] for p in places])) for n, t in terms.items()}
        self.columns = {n: c for n, c in columns.items() if c is not None}
        part = np.array([p for _, p in places], dtype=np.intp)
        models_in = [np.ones(len(places)), *((part == k) * 1.0 for k in range(1, models))]
        self.x = np.stack([*models_in, *self.columns.values()], axis=1)
        at = {place: i for i, place in enumerate(places)}
        # Places of the student's answers, and of the base's to the same items.
        self.both = {
            k: np.array(
                [(at[i, k], at[i, 0]) for i, p in places if p == k and (i, 0) in at], dtype=np.intp
            ).reshape(-1, 2)
            for k in range(1, models)
        }
        self.point: dict[str, Array] = {}
        self.draws: dict[str, Array] = {}
        self.ridged: dict[str, bool] = {}

    def draw(self, rng: np.random.Generator, resamples: int) -> None:
        """Fit the answers as they are, and draws of them."""
        if not self.grid.places:
            return
        ones = np.ones((1, len(self.x)))
        start = fit(self.x, self.grid.means, ones)[0][0]
        self.point, ridged = self._values(ones, self.grid.means[None], start)
        self.ridged = {name: bool(own[0]) for name, own in ridged.items()}
        parts: list[dict[str, Array]] = []
        for weights, means in self.grid.draws(rng, resamples):
            found, ridged = self._values(weights, means, start)
            ends = {name: _ends(found[name], own) for name, own in ridged.items()}
            parts.append(found | ends)
        self.draws = {name: np.concatenate([p[name] for p in parts]) for name in self.point}

    def _values(
        self, weights: Array, means: Array, start: Array
    ) -> tuple[dict[str, Array], dict[str, Marks]]:
        """Everything that is told, one a row of weights; and of coefficients whether they are the
        ridge's."""
        told, ridged = fit(self.x, means, weights, start)
        plain, plain_ridged = fit(self.x[:, : self.models], means, weights)
        at = {name: self.models + i for i, name in enumerate(self.columns)}
        at |= {f"held {k}": k for k in self.both}
        found = {name: told[:, i] for name, i in at.items()}
        marks = {name: ridged[:, i] for name, i in at.items()}
        for k, both in self.both.items():
            found[f"without {k}"], marks[f"without {k}"] = plain[:, k], plain_ridged[:, k]
            own, base = both.T
            shared = np.where(weights[:, base] > 0, weights[:, own], 0.0)
            with np.errstate(divide="ignore", invalid="ignore"):
                shared = shared / shared.sum(axis=1, keepdims=True)
            line = told @ self.x[own].T
            gain = found[f"gain {k}"] = (shared * (means[:, own] - means[:, base])).sum(axis=1)
            for group in ((STYLE, LENGTH), (RIGHT,)):
                moved = np.zeros_like(line)
                for name in group:
                    if name in self.columns:
                        away = self.columns[name][own] - self.columns[name][base]
                        moved = moved + found[name][:, None] * away
                fell = (shared * (expit(line) - expit(line - moved))).sum(axis=1)
                found[f"{' '.join(group)} {k}"] = fell
            found[f"left {k}"] = gain - found[f"{STYLE} {LENGTH} {k}"]
        return found, marks

    def gain(self, part: int) -> Interval:
        """The student's win rate less the base's, on the items of both."""
        return self._interval(f"gain {part}", len(self.both[part]))

    def left(self, part: int) -> Interval:
        """The gain that goes with neither style nor length."""
        if not self._terms((STYLE, LENGTH)) or not len(self.both[part]):
            return Interval(None, None, None, len(self.both[part]), NO_TERMS)
        return self._interval(f"left {part}", len(self.both[part]))

    def explained(self, part: int, group: Sequence[str]) -> Interval:
        """The share of the gain that goes with these terms; None where the gain cannot be told
        from 0, with the reason."""
        n = len(self.both[part])
        why = "" if n >= LEAST else FEW
        if n and not self._terms(group):
            why = NO_TERMS
        if why:
            return Interval(None, None, None, n, why)
        gain, gains = self.point[f"gain {part}"][0], self.draws[f"gain {part}"]
        if not gap_exists(float(gain), gains, self.grid.groups):
            return Interval(None, None, None, n, NO_GAIN)
        fell = f"{' '.join(group)} {part}"
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = self.draws[fell] / gains
        apart = [APART] if self.ridged[f"held {part}"] else []
        note = "; ".join(filter(None, [self.one, *self._beyond(part, group), *apart]))
        value = float(self.point[fell][0] / gain)
        grid = self.grid
        return percentile(value, shares, grid.groups, n, note, grid.cut)

    def coefficient(self, name: str) -> Interval:
        """One log-odds; it has no bounds where nothing but the ridge keeps it finite."""
        n = self.grid.items
        if name not in self.point:
            return Interval(None, None, None, n, NO_TERMS)
        value = float(self.point[name][0])
        if self.ridged[name]:
            return Interval(value, None, None, n, APART)
        groups, cut = self.grid.groups, self.grid.cut
        return open_percentile(value, self.draws[name], groups, n, self.one, cut, APART)

    def _interval(self, name: str, n: int) -> Interval:
        if not n:
            return Interval(None, None, None, 0, "no items in common")
        value, draws = float(self.point[name][0]), self.draws[name]
        return percentile(value, draws, self.grid.groups, n, self.one, self.grid.cut)

    def _terms(self, group: Sequence[str]) -> bool:
        return any(n in self.columns for n in group)

    def _beyond(self, part: int, group: Sequence[str]) -> list[str]:
        """Terms in which the student's answers are hardly ever as the base's."""
        own, base = self.both[part].T
        found = []
        for name in group:
            if name in self.columns and name in _WAYS:
                mine, its = self.columns[name][own], float(self.columns[name][base].mean())
                up = mine.mean() > its
                if ((mine <= its) if up else (mine >= its)).mean() < _BEYOND:
                    found.append(BEYOND.format(_WAYS[name][0 if up else 1]))
        return found


def _ends(values: Array, ridged: Marks) -> Array:
    """Coefficients as they would be without a ridge: infinite, or undefined, where it held them."""
    sides = np.where(values > 0, np.inf, np.where(values < 0, -np.inf, np.nan))
    return np.where(ridged, sides, values)


def _column(name: str, values: Array) -> Array | None:
    """A term as the model has it; None where it is the same of all answers."""
    spread = float(values.std()) if len(values) else 0.0
    if spread < _SAME * max(1.0, float(np.abs(values).max(initial=0.0))):
        return None
    if name == STYLE:
        found: Array = (values - values.mean()) / spread
        return found
    return np.tanh(values / spread) if name == LENGTH else values
