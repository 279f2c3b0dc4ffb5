"""Whether choosing what a teacher is asked beats chance, at the same amount."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from epigone.findings.gaps import change
from epigone.findings.model import Selected, Subject
from epigone.schema import Score


def selected(
    subjects: Sequence[Subject],
    scores: Sequence[Score],
    random_of: Mapping[str, str],
    seed: int = 0,
) -> tuple[Selected, ...]:
    """Students of chosen prompts against students of prompts at random, on the same items.

    `random_of` names for each corpus that was chosen the one at random. Students of one base,
    amount, seed and recipe are compared, metric by metric; the differences are paired over items,
    as `change` says.
    """
    known: dict[str, dict[tuple[str, str], Score]] = {}
    for score in scores:
        known.setdefault(score.model, {})[(score.task, score.metric)] = score
    found = []
    for one in subjects:
        corpus, _, variant = (one.corpus or "").partition(", ")
        if corpus not in random_of:
            continue
        line = ", ".join(filter(None, (random_of[corpus], variant)))
        twin = (one.base, line, one.amount, one.seed, one.feedback)
        other = next(
            (s for s in subjects if (s.base, s.corpus, s.amount, s.seed, s.feedback) == twin), None
        )
        if other is None:
            continue
        own, its = known.get(one.model, {}), known.get(other.model, {})
        for key in sorted(own.keys() & its.keys()):
            told = own[key]
            found.append(
                Selected(
                    one, other, told.metric, told.task, told.family, told.better,
                    its[key].value, told.value, change(its[key], told, seed),
                )
            )  # fmt: skip
    return tuple(found)
