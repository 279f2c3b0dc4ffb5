"""All that ratings say: every pair of models by every judge and by the people, strengths of all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from epigone.findings.length_control import LengthControlled, length_controlled
from epigone.findings.preference import (
    Orders,
    Preference,
    PreferredButWrong,
    by_item,
    cells,
    counted,
    longer_wins,
    of_people,
    orders,
    preferred,
    preferred_but_wrong,
)
from epigone.findings.strengths import Strength, bradley_terry
from epigone.schema import Rating, Score

PEOPLE = "people"
# A length, or 1 and 0 for right and wrong, by model and item.
Table = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Compared:
    """What a judge or the people say of one model against another.

    `longer` is how often the longer answer wins, over `longer_n` items; `wrong` is None where
    nobody knows what is correct.
    """

    rater: str
    preference: Preference
    controlled: LengthControlled
    orders: Orders
    longer: float | None
    longer_n: int
    wrong: PreferredButWrong | None


@dataclass(frozen=True, slots=True)
class Judged:
    """All pairs, and the strength of each model by each judge and by the people."""

    pairs: tuple[Compared, ...]
    strengths: tuple[tuple[str, Strength], ...]


def judged(
    ratings: Sequence[Rating],
    teacher: str,
    lengths: Table,
    scores: Iterable[Score] = (),
    seed: int = 0,
) -> Judged:
    """What ratings say; `scores` tell which answers are correct.

    The teacher is always the one that others are compared with. A judge speaks for itself; people
    are counted together.
    """
    correct = correct_of(scores)
    groups: dict[str, list[Rating]] = defaultdict(list)
    for r in counted(ratings):
        groups[r.rater if r.workforce == "judge" else PEOPLE].append(r)
    pairs: list[Compared] = []
    strengths: list[tuple[str, Strength]] = []
    for rater, own in sorted(groups.items()):
        named = {(r.b, r.a) if r.a == teacher else (r.a, r.b) for r in own}
        ordered = sorted(named, key=lambda p: (p[1] != teacher, p[1], p[0]))
        pairs += [_compared(rater, own, *pair, lengths, correct, seed) for pair in ordered]
        if any(teacher in (r.a, r.b) for r in own):
            strengths += [(rater, s) for s in bradley_terry(own, teacher, seed)]
    return Judged(tuple(pairs), tuple(strengths))


def _compared(
    rater: str,
    ratings: Sequence[Rating],
    model: str,
    against: str,
    lengths: Table,
    correct: Table,
    seed: int,
) -> Compared:
    own = counted(ratings, model, against)
    mine, theirs = lengths.get(model, {}), lengths.get(against, {})
    values = cells(own, model)
    wins = by_item(values)
    measured = {i: win for i, win in wins.items() if i in mine and i in theirs}
    longer, n = longer_wins(measured, mine, theirs)
    wrong = None
    if model in correct:
        wrong = preferred_but_wrong(own, correct[model], model, against, correct.get(against), seed)
    people = values if of_people(own) else None
    return Compared(
        rater,
        preferred(own, model, against, seed),
        length_controlled(measured, mine, theirs, seed, people=people),
        orders(own),
        longer,
        n,
        wrong,
    )


def correct_of(scores: Iterable[Score]) -> dict[str, dict[str, float]]:
    """Right or wrong by model and item; what a reference tells goes before a judge's opinion."""
    found: dict[str, dict[str, float]] = {}
    own = list(scores)
    for metric in ("correct", "correct by reference"):
        for score in own:
            if score.metric == metric:
                found.setdefault(score.model, {}).update(score.values)
    return found
