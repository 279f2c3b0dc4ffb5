"""Who is preferred: win rates with ties, what the order does, preferred but wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from epigone.findings.gaps import wilson
from epigone.findings.pigeonhole import Grid
from epigone.findings.resample import RESAMPLES, stream
from epigone.findings.shares import drawn_share, share_interval
from epigone.schema import SAME_TEXT, Interval, Rating, Score

# Values by rater and item; a judge's two orders are one value.
Cells = Mapping[tuple[str, str], float]
ONE = "of one rater"


@dataclass(frozen=True, slots=True)
class Preference:
    """How often one model is preferred to another; a tie is half a win.

    `equal_or_better` is the share that is rated no worse. `missing` of `asked` ratings have no
    preference that could be read; `same` are items whose two answers are one text, ties of which no
    judge was asked.
    """

    model: str
    against: str
    win_rate: Interval
    equal_or_better: Interval
    raters: int
    asked: int
    missing: int
    same: int = 0


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
    and its answer is known to be right or wrong.

    Of these `items`, the other answer is right on those of `other_right` and wrong on those of
    `other_wrong`; of the rest nobody knows.
    """

    items: tuple[str, ...]
    share: Interval
    other_right: tuple[str, ...] = ()
    other_wrong: tuple[str, ...] = ()


def counted(ratings: Iterable[Rating], model: str = "", against: str = "") -> list[Rating]:
    """Ratings that count as answers, of one pair of models or of all."""
    pair = {model, against}
    return [
        r
        for r in ratings
        if r.purpose == "item" and not r.excluded and (not model or {r.a, r.b} == pair)
    ]


def of_people(ratings: Iterable[Rating]) -> bool:
    """Whether people rated, who stand for others: a judge stands for itself."""
    return any(r.workforce != "judge" for r in ratings)


def preferred(
    ratings: Sequence[Rating],
    model: str,
    against: str,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Preference:
    """How often `model` is preferred to `against`, with 95% intervals.

    A judge's item counts where both orders have a verdict, as their mean: "equal or better" may be
    a half too, and has its interval in the same way (see `interval`).
    """
    own = counted(ratings, model, against)
    people = of_people(own)
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
        len({r.item for r in own if SAME_TEXT in r.reasons}),
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

    Of a judge, see `share_interval`. Of people, raters and items are resampled (see `Grid`, and
    `drawn_share`).
    """
    means = np.array([*by_item(values).values()], dtype=np.float64)
    if not people or len({rater for rater, _ in values}) < 2:
        return share_interval(means, ONE if people and values else "")
    grid = Grid(((rater, item, 0, value) for (rater, item), value in values.items()), people)
    rng = stream(seed, "preference", "people")
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [(w * m).sum(axis=1) / w.sum(axis=1) for w, m in grid.draws(rng, resamples)]
    answers = np.array([*values.values()], dtype=np.float64)
    return drawn_share(means, np.concatenate(parts), grid.groups, answers)


def orders(ratings: Iterable[Rating]) -> Orders:
    """How often a swap of the two answers swaps the verdict, and how often the first one wins.

    Answers of the same text, which nobody was asked about, are left out.
    """
    pairs: dict[tuple[str, str, str, str], dict[str, int]] = defaultdict(dict)
    first: list[float] = []
    for r in counted(ratings):
        if r.preference is None or SAME_TEXT in r.reasons:
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


def win_scores(ratings: Sequence[Rating], model: str, against: str, judge: str) -> list[Score]:
    """What a judge prefers as scores, which charts take; none of them is primary."""
    own = counted((r for r in ratings if r.rater == judge), model, against)
    found = []
    for metric, worse_only in (("win_rate", False), ("equal_or_better", True)):
        values = by_item(cells(own, model, worse_only=worse_only))
        mean = sum(values.values()) / len(values) if values else None
        found.append(
            Score(
                metric, model, "preference", mean, len(values), values,
                ceiling=None if worse_only else 0.5, task="judge", primary=False, method=judge,
            )
        )  # fmt: skip
    return found if own else []


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
    ratings: Sequence[Rating],
    correct: Mapping[str, float],
    model: str,
    against: str,
    other: Mapping[str, float] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> PreferredButWrong:
    """Items where raters prefer an answer that is wrong; `correct` has 1 or 0 by item.

    `other` has the same of the other model's answers. Of people, raters are resampled too.
    """
    own = counted(ratings, model, against)
    values = {key: v for key, v in cells(own, model).items() if key[1] in correct}
    won = sorted(i for i, win in by_item(values).items() if win > 0.5)
    wrong = tuple(i for i in won if correct[i] < 0.5)
    if not won:
        return PreferredButWrong((), Interval(None, None, None, 0, "no such item"))
    n = len(won)
    people = of_people(own)
    if people and len({rater for rater, _ in values}) > 1:
        grid = Grid(((rater, item, 0, v) for (rater, item), v in values.items()), people)
        bad = np.array([correct[item] < 0.5 for item, _ in grid.places])
        parts = []
        for weights, means in grid.draws(stream(seed, "preferred but wrong"), resamples):
            ahead = np.where(means > 0.5, weights, 0.0)
            with np.errstate(divide="ignore", invalid="ignore"):
                parts.append(ahead @ bad / ahead.sum(axis=1))
        marks = np.array([float(correct[item] < 0.5) for item in won])
        share = drawn_share(marks, np.concatenate(parts), min(grid.raters, n), marks)
    else:
        share = Interval(len(wrong) / n, *wilson(len(wrong), n), n, ONE if people else "")
    known = other or {}
    return PreferredButWrong(
        wrong,
        share,
        tuple(i for i in wrong if known.get(i, 0.0) >= 0.5),
        tuple(i for i in wrong if known.get(i, 1.0) < 0.5),
    )


def _win(rating: Rating, model: str, worse_only: bool) -> float | None:
    if rating.preference is None:
        return None
    own = rating.preference if rating.a == model else -rating.preference
    if own == 0:
        return 1.0 if worse_only else 0.5
    return float(own > 0)
