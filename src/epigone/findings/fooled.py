"""How much of a gain in preference goes with style and length rather than with the answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from epigone.findings.explained import LENGTH, RIGHT, STYLE, Regression, Term
from epigone.findings.judged import PEOPLE, Judged, Table, correct_of
from epigone.findings.likeness import likeness
from epigone.findings.model import Subject
from epigone.findings.pigeonhole import Row
from epigone.findings.preference import cells, counted, of_people
from epigone.findings.resample import stream
from epigone.schema import Interval, Rating, Score

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Corrected:
    """The same with correctness in the model, on answers that are known to be right or wrong.

    `explained` is the share of `gain` that goes with style and length, `by_correctness` with being
    right more often; `correctness` is the log-odds that a right answer adds.
    """

    gain: Interval
    explained: Interval
    by_correctness: Interval
    correctness: Interval


@dataclass(frozen=True, slots=True)
class Fooled:
    """What one judge, or the people, prefer of a student over its base, and what that goes with.

    `gain` is the student's win rate against the teacher less its base's on the same items;
    `explained` the share of it that goes with style and length, and `left` the rest of the gain.
    `without` and `held` are the student's log-odds over its base without and with style and length
    in the model; `style` and `length` what one standard deviation of style, and a much longer
    answer, add, the same for all students of a base. `metrics` are those that style is made of. Of
    the items `wrong`, where the student is preferred and its answer is wrong, `styled` have an
    answer nearer the teacher's in style than the base's, of `compared` where both are known.
    """

    rater: str
    base: str
    model: str
    gain: Interval
    explained: Interval
    left: Interval
    without: Interval
    held: Interval
    style: Interval
    length: Interval
    metrics: tuple[str, ...]
    corrected: Corrected | None
    wrong: tuple[str, ...]
    styled: int
    compared: int


def fooled(
    ratings: Sequence[Rating],
    judged: Judged,
    subjects: Sequence[Subject],
    lengths: Table,
    scores: Iterable[Score],
    teacher: str,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[Fooled, ...]:
    """A row for each student that a judge, or the people, compared with the teacher as its base.

    Model 0 is logit P(win) = a + b[student]; model 1 adds g style + f tanh(d / sd(d)), d the
    difference of lengths from the teacher's answer; model 2 adds correctness. The explained share
    is by standardisation: what the student's mean probability would fall by if each of its answers
    had the style and length of the base's to the same item, over the gain (J. Robins, Mathematical
    Modelling 7, 1986). Items are resampled, and people with them (see `Grid`).
    """
    own_scores = list(scores)
    known = _Known(
        own_scores,
        {m: {i: n - lengths[teacher][i] for i, n in own.items() if i in lengths[teacher]}
         for m, own in lengths.items()} if teacher in lengths else {},
        correct_of(own_scores),
        {(c.rater, c.preference.model): c.wrong.items
         for c in judged.pairs if c.wrong and c.preference.against == teacher},
        teacher,
    )  # fmt: skip
    groups: dict[str, list[Rating]] = defaultdict(list)
    for r in counted(ratings):
        if teacher in (r.a, r.b):
            groups[r.rater if r.workforce == "judge" else PEOPLE].append(r)
    found: list[Fooled] = []
    for rater, own in sorted(groups.items()):
        rated = {name for r in own for name in (r.a, r.b)}
        for base in (s for s in subjects if s.untrained and s.model in rated):
            line = [s.model for s in subjects if s.base == base.base and not s.untrained]
            if students := [m for m in line if m in rated]:
                rng = stream(seed, "fooled", rater, base.model)
                found += _of_base(rater, [base.model, *students], own, known, rng, resamples)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of answers: differences of length, and right or wrong, by model and item."""

    scores: Sequence[Score]
    longer: Table
    right: Table
    wrong: Mapping[tuple[str, str], tuple[str, ...]]
    teacher: str


def _of_base(
    rater: str,
    models: Sequence[str],
    ratings: Sequence[Rating],
    known: _Known,
    rng: np.random.Generator,
    resamples: int,
) -> list[Fooled]:
    """The students of one base, which is the first of `models`."""
    rows: list[Row] = [
        (who, item, part, value)
        for part, model in enumerate(models)
        for (who, item), value in cells(counted(ratings, model, known.teacher), model).items()
    ]
    alike, people = likeness(known.scores, models), of_people(ratings)

    def term(table: Table) -> Term:
        own = enumerate(table.get(m, {}) for m in models)
        return {(item, part): float(v) for part, values in own for item, v in values.items()}

    terms = {STYLE: term(alike.values), LENGTH: term(known.longer)}
    terms = {name: values for name, values in terms.items() if values}
    right = term(known.right)
    main = Regression(rows, people, len(models), terms)
    main.draw(rng, resamples)
    beside = Regression(rows, people, len(models), terms | {RIGHT: right}) if right else None
    if beside is not None and RIGHT in beside.columns:
        beside.draw(rng, resamples)
    else:
        beside = None
    found = []
    for part, model in enumerate(models[1:], 1):
        wrong = known.wrong.get((rater, model), ())
        near = alike.above(model, models[0], wrong)
        found.append(
            Fooled(
                rater,
                models[0],
                model,
                main.gain(part),
                main.explained(part, (STYLE, LENGTH)),
                main.left(part),
                main.coefficient(f"without {part}"),
                main.coefficient(f"held {part}"),
                main.coefficient(STYLE),
                main.coefficient(LENGTH),
                alike.metrics,
                None if beside is None else _corrected(beside, part),
                wrong,
                sum(near),
                len(near),
            )
        )
    return found


def _corrected(beside: Regression, part: int) -> Corrected:
    return Corrected(
        beside.gain(part),
        beside.explained(part, (STYLE, LENGTH)),
        beside.explained(part, (RIGHT,)),
        beside.coefficient(RIGHT),
    )
