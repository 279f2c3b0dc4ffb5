"""Who is preferred: win rates with ties, what the order does, preferred but wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from epigone.findings.gaps import value_interval, wilson
from epigone.findings.resample import RESAMPLES, Array, percentile, stream, tail
from epigone.schema import Interval, Rating, Score

# Values by rater and item; a judge's two orders are one value.
Cells = Mapping[tuple[str, str], float]
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Preference:
    """How often one model is preferred to another; a tie is half a win.

    `equal_or_better` is the share that is rated no worse. `missing` of `asked` ratings have no
    preference that could be read.
    """

    model: str
    against: str
    win_rate: Interval
    equal_or_better: Interval
    raters: int
    asked: int
    missing: int


@dataclass(frozen=True, slots=True)
class Orders:
    """What the order of two answers does: `flips` of `both` judgements are others when swapped.

    `first` is the share that the answer shown first wins, over `shown` ratings, a tie half.
    """

    flips: int
    both: int
    first: float | None
    shown: int


@dataclass(frozen=True, slots=True)
class PreferredButWrong:
    """Items where the model is preferred though its answer is wrong, of all where it is preferred
    and its answer is known to be right or wrong."""

    items: tuple[str, ...]
    share: Interval


def counted(ratings: Iterable[Rating], model: str = "", against: str = "") -> list[Rating]:
    """Ratings that count as answers, of one pair of models or of all."""
    pair = {model, against}
    return [
        r
        for r in ratings
        if r.purpose == "item" and not r.excluded and (not model or {r.a, r.b} == pair)
    ]


def preferred(
    ratings: Sequence[Rating],
    model: str,
    against: str,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Preference:
    """How often `model` is preferred to `against`, with 95% intervals.

    A judge's item counts where both orders have a verdict, as their mean. Items are resampled; with
    several people, raters too (see `interval`).
    """
    own = counted(ratings, model, against)
    people = any(r.workforce != "judge" for r in own)
    wins = cells(own, model)
    no_worse = cells(own, model, worse_only=True)
    return Preference(
        model,
        against,
        interval(wins, people, seed, resamples),
        interval(no_worse, people, seed, resamples),
        len({r.rater for r in own}),
        len(own),
        sum(r.preference is None for r in own),
    )


def cells(ratings: Iterable[Rating], model: str, *, worse_only: bool = False) -> Cells:
    """How a model fares by rater and item: 1 for a win, 1/2 for a tie, 0 for a loss.

    With `worse_only` a tie is 1: whether it is no worse. `ratings` are of one pair of models.
    """
    found: dict[tuple[str, str], list[tuple[float | None, str]]] = defaultdict(list)
    judges = set()
    for r in ratings:
        found[r.rater, r.item].append((_win(r, model, worse_only), r.left))
        if r.workforce == "judge":
            judges.add(r.rater)
    told: dict[tuple[str, str], float] = {}
    for key, values in sorted(found.items()):
        known = [(v, left) for v, left in values if v is not None]
        both = len({left for _, left in known}) == 2 and len(known) == len(values)
        if known and (both or key[0] not in judges):
            told[key] = sum(v for v, _ in known) / len(known)
    return told


def by_item(values: Cells) -> dict[str, float]:
    """The mean over raters of each item."""
    found: dict[str, list[float]] = defaultdict(list)
    for (_, item), value in sorted(values.items()):
        found[item].append(value)
    return {item: sum(v) / len(v) for item, v in found.items()}


def interval(values: Cells, people: bool, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The mean over items of the mean over raters, with its 95% interval.

    Of a judge, items are resampled. Of people, raters and items are, and an answer's weight is the
    product of its rater's and its item's (A. B. Owen, "The pigeonhole bootstrap", Annals of Applied
    Statistics 1(2), 2007): few raters make a wide interval, however many items each had.
    """
    raters = sorted({rater for rater, _ in values})
    means = by_item(values)
    if not people or len(raters) < 2:
        note = "of one rater" if people and raters else ""
        value = sum(means.values()) / len(means) if means else None
        found = value_interval(
            Score("preference", "", "preference", value, len(means), means), seed, resamples
        )
        both = "; ".join(n for n in (found.note, note) if n)
        return Interval(found.value, found.low, found.high, found.n, both)
    items = sorted(means)
    row = {rater: i for i, rater in enumerate(raters)}
    column = {item: i for i, item in enumerate(items)}
    sums, counts = np.zeros((2, len(raters), len(items)))
    for (rater, item), value in values.items():
        sums[row[rater], column[item]] = value
        counts[row[rater], column[item]] = 1.0
    draws = _pigeonhole(sums, counts, stream(seed, "preference", "people"), resamples)
    groups = min(len(raters), len(items))
    point = sum(means.values()) / len(means)
    return percentile(point, draws, groups, len(items), cut=tail(max(groups, 2)))


def _pigeonhole(sums: Array, counts: Array, rng: np.random.Generator, resamples: int) -> Array:
    raters, items = sums.shape
    parts = []
    for start in range(0, resamples, _CHUNK):
        rows = min(_CHUNK, resamples - start)
        by_rater = rng.multinomial(raters, np.full(raters, 1 / raters), rows).astype(float)
        weights = rng.multinomial(items, np.full(items, 1 / items), rows).astype(float)
        told = by_rater @ counts
        with np.errstate(divide="ignore", invalid="ignore"):
            means = np.where(told > 0, by_rater @ sums / told, 0.0)
            # An item of which no rater was drawn says nothing in this draw.
            weights = np.where(told > 0, weights, 0.0)
            parts.append((weights * means).sum(axis=1) / weights.sum(axis=1))
    return np.concatenate(parts)


def orders(ratings: Iterable[Rating]) -> Orders:
    """How often a swap of the two answers swaps the verdict, and how often the first one wins.

    Answers of the same text, which nobody was asked about, are left out.
    """
    pairs: dict[tuple[str, str, str, str], dict[str, int]] = defaultdict(dict)
    first: list[float] = []
    for r in counted(ratings):
        if r.preference is None or "same text" in r.reasons:
            continue
        sign = (r.preference > 0) - (r.preference < 0)
        first.append(((sign if r.left == "a" else -sign) + 1) / 2)
        pairs[r.rater, r.item, r.a, r.b][r.left] = sign
    both = [signs for signs in pairs.values() if len(signs) == 2]
    return Orders(
        sum(s["a"] != s["b"] for s in both),
        len(both),
        sum(first) / len(first) if first else None,
        len(first),
    )


def longer_wins(
    values: Mapping[str, float], lengths: Mapping[str, float], against: Mapping[str, float]
) -> tuple[float | None, int]:
    """How often the longer of two answers wins, a tie half, and over how many items."""
    found = [
        value if lengths[item] > against[item] else 1 - value
        for item, value in values.items()
        if lengths[item] != against[item]
    ]
    return (sum(found) / len(found) if found else None), len(found)


def preferred_but_wrong(
    ratings: Sequence[Rating], correct: Mapping[str, float], model: str, against: str
) -> PreferredButWrong:
    """Items where raters prefer an answer that is wrong; `correct` has 1 or 0 by item."""
    wins = by_item(cells(counted(ratings, model, against), model))
    won = sorted(i for i, win in wins.items() if win > 0.5 and i in correct)
    wrong = tuple(i for i in won if correct[i] < 0.5)
    n = len(won)
    if not n:
        return PreferredButWrong((), Interval(None, None, None, 0, "no such item"))
    low, high = wilson(len(wrong), n)
    return PreferredButWrong(wrong, Interval(len(wrong) / n, low, high, n))


def _win(rating: Rating, model: str, worse_only: bool) -> float | None:
    if rating.preference is None:
        return None
    own = rating.preference if rating.a == model else -rating.preference
    if own == 0:
        return 1.0 if worse_only else 0.5
    return float(own > 0)
