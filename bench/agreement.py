"""Whose opinion counts: Dawid-Skene beside the plain mean, and beside exclusions by known answers.

    pip install crowd-kit
    python bench/agreement.py --runs 20

Simulated: items of two outputs whose qualities differ by a normal amount; raters who see it with an
error of their own, and some who do not look. Also how often the interval of alpha holds what alpha
would be with endless items.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np

from epigone.raters.agreement import by_unit, krippendorff, sign
from epigone.raters.quality import proposed
from epigone.schema import Rating

TIE, CLEAR = 0.35, 1.2
EACH = 20  # items that one rater sees, beside four known answers and two attention checks


def level(quality: float) -> int:
    return sign(quality) * (int(abs(quality) > TIE) + int(abs(quality) > CLEAR))


@dataclass(frozen=True)
class Person:
    """A rater with a habit, or with an error of perception."""

    name: str
    error: float
    habit: str

    def rate(self, rng: np.random.Generator, item: str, right: float, **more: Any) -> Rating:
        left: Any = str(rng.choice(["a", "b"]))
        said = level(float(right + rng.normal(0, self.error)))
        if self.habit == "random":
            said = int(rng.integers(-2, 3))
        elif self.habit == "left":
            said = int(rng.integers(1, 3)) * (1 if left == "a" else -1)
        elif self.habit == "equal":
            said = 0
        return Rating(item, self.name, "a", "b", said, left, **more)


def simulated(
    rng: np.random.Generator, items: int, per_item: int, spam: float, spread: float = 0.4
) -> tuple[dict[str, int], list[Rating]]:
    """The right directions, and ratings."""
    quality = [float(q) for q in rng.normal(0.2, 1.0, items)]
    seats = np.concatenate([rng.permutation(items) for _ in range(per_item)])
    ratings = []
    for r in range(-(-items * per_item // EACH)):
        habit = str(rng.choice(["random", "left", "equal"])) if rng.random() < spam else ""
        person = Person(f"r{r}", float(rng.lognormal(np.log(0.7), spread)), habit)
        for i in dict.fromkeys(int(s) for s in seats[r * EACH : (r + 1) * EACH]):
            ratings.append(person.rate(rng, f"i{i}", quality[i]))
        for kind, n in (("gold", 4), ("attention", 2)):
            for g in range(n):
                side = 1 if g % 2 else -1
                check = {"purpose": kind, "expected": 2 * side}
                ratings.append(person.rate(rng, f"{kind}{g}", 2.5 * side, **check))
    return {f"i{i}": sign(level(q)) for i, q in enumerate(quality)}, ratings


def by_mean(ratings: list[Rating]) -> dict[str, int]:
    return {item: sign(fmean(said.values())) for (item, _, _), said in by_unit(ratings).items()}


def by_majority(ratings: list[Rating]) -> dict[str, int]:
    votes: dict[str, Counter[int]] = defaultdict(Counter)
    for r in ratings:
        if r.purpose == "item":
            votes[r.item][sign(r.preference or 0)] += 1
    return {i: 0 if len(set(v.values())) == 1 < len(v) else v.most_common(1)[0][0]
            for i, v in votes.items()}  # fmt: skip


def by_mean_of_the_rest(ratings: list[Rating]) -> dict[str, int]:
    out = {p.rater for p in proposed(ratings)}
    return by_mean([r for r in ratings if r.rater not in out])


def by_dawid_skene(of: Callable[[int], int]) -> Callable[[list[Rating]], dict[str, int]]:
    def found(ratings: list[Rating]) -> dict[str, int]:
        import pandas as pd
        from crowdkit.aggregation import DawidSkene

        rows = [(r.item, r.rater, of(r.preference or 0)) for r in ratings if r.purpose == "item"]
        frame = pd.DataFrame(rows, columns=["task", "worker", "label"])
        labels = DawidSkene(n_iter=100).fit_predict(frame)
        return {str(item): sign(int(label)) for item, label in labels.items()}

    return found


WAYS = {
    "mean": by_mean,
    "majority": by_majority,
    "mean, proposed exclusions out": by_mean_of_the_rest,
    "Dawid-Skene, direction": by_dawid_skene(sign),
    "Dawid-Skene, five levels": by_dawid_skene(int),
}


def compare(runs: int, items: int, per_item: int) -> list[dict[str, object]]:
    rows = []
    for spam in (0.0, 0.1, 0.3):
        right: dict[str, list[float]] = defaultdict(list)
        off: dict[str, list[float]] = defaultdict(list)
        for run in range(runs):
            truth, ratings = simulated(np.random.default_rng([run, int(100 * spam)]), items,
                                       per_item, spam)  # fmt: skip
            for name, way in WAYS.items():
                said = way(ratings)
                right[name].append(fmean(said.get(i, 0) == t for i, t in truth.items()))
                off[name].append(abs(fmean(said.values()) - fmean(truth.values())))
        rows += [
            {"spammers": spam, "way": name, "right": round(fmean(right[name]), 3),
             "deviation": round(stdev(right[name]), 3),
             "preference off by": round(fmean(off[name]), 3)}
            for name in WAYS
        ]  # fmt: skip
    return rows


def coverage(runs: int, items: int, spam: float, spread: float) -> dict[str, object]:
    def alpha(seed: int, n: int) -> tuple[float, float, float]:
        rng = np.random.default_rng(seed)
        found = krippendorff(simulated(rng, n, 3, spam, spread)[1])
        return found.alpha or 0.0, found.low or 0.0, found.high or 0.0

    true = alpha(10**6, 20_000)[0]
    drawn = [alpha(seed, items) for seed in range(runs)]
    held = fmean(low <= true <= high for _, low, high in drawn)
    width = fmean(high - low for _, low, high in drawn)
    return {"items": items, "spammers": spam, "spread of raters": spread,
            "alpha": round(true, 3), "held": held, "width": round(width, 3)}  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--per-item", type=int, default=3)
    asked = parser.parse_args()
    for row in compare(asked.runs, asked.items, asked.per_item):
        print(json.dumps(row))
    for size in (30, 100, 300):
        for spam, spread in ((0.0, 0.0), (0.1, 0.4)):
            print(json.dumps(coverage(10 * asked.runs, size, spam, spread)))
