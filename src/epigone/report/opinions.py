"""What judges and people say of a study's answers, put together for its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from epigone.files import read_jsonl
from epigone.findings import Fooled, Judged, Subject, fooled, judged
from epigone.raters.agreement import judges
from epigone.report.view import Agreed
from epigone.runs.plan import Planned
from epigone.runs.store import Store
from epigone.schema import Rating, Score
from epigone.study.judge import second_of


@dataclass(frozen=True, slots=True)
class Opinions:
    """What they prefer, what a gain in preference goes with, and how far they agree."""

    judged: Judged
    fooled: tuple[Fooled, ...]
    agreed: Agreed


def opinions(
    planned: Sequence[Planned],
    store: Store,
    teacher: str,
    subjects: Sequence[Subject],
    scores: Sequence[Score],
    people: Sequence[Rating],
    ratings: Sequence[Rating],
) -> Opinions:
    """All of it from the finished steps; `ratings` are those of `people` so far and of judges."""
    lengths: dict[str, dict[str, float]] = {}
    for p in planned:
        if p.step.stage in ("generate", "second") and p.record is not None:
            samples = read_jsonl(store.folder(p.step) / "samples.jsonl")
            name = second_of(teacher) if p.step.stage == "second" else p.step.model
            lengths[name] = {s["item"]: float(len(s["output"])) for s in samples}
    found = judged(ratings, teacher, lengths, scores)
    return Opinions(
        found,
        fooled(ratings, found, subjects, lengths, scores, teacher),
        _agreed(ratings, people),
    )


def _agreed(ratings: Sequence[Rating], people: Sequence[Rating]) -> Agreed:
    if not people:
        return Agreed()
    # It needs the raters' libraries, without which there are no people's ratings either.
    from epigone.raters.overview import agreement

    return Agreed(agreement(people), tuple(judges(ratings)))
