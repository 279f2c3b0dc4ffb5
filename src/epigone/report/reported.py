"""Scores that others published, as scores of the study's models and as rows beside these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from epigone.findings.resample import PUBLISHED
from epigone.report.view import Beside
from epigone.schema import Score
from epigone.study.publications import Publications
from epigone.study.published import Published, kind


def with_reported(scores: Sequence[Score], given: Publications) -> tuple[Score, ...]:
    """Measured scores, and behind them the reported ones of what was not measured.

    The teacher's own are no scores here: `teacher_values` has them.
    """
    known = {(s.model, s.task, s.metric) for s in scores}
    told = [_score(r.model, r.row) for r in given.scores if r.row.teacher is None]
    return (*scores, *(s for s in told if (s.model, s.task, s.metric) not in known))


def teacher_values(given: Publications) -> dict[str, float]:
    """What others published of the teacher, by the metric's whole name."""
    told = [r.row for r in given.scores if r.row.teacher is not None]
    return {row.metric: row.value for row in told if row.value is not None}


def beside(given: Publications, measured: Iterable[Score]) -> tuple[Beside, ...]:
    """Every reported score with the measured one of the same model and metric, where there is."""
    own = {(s.model, s.task, s.metric): s.value for s in measured}
    return tuple(
        Beside(
            model=r.model,
            task=r.row.task,
            metric=r.row.name,
            reported=r.row.value or 0.0,
            measured=own.get((r.model, r.row.task, r.row.name)),
            source=_source(r.row, r.cite),
            note=r.row.note,
        )
        for r in given.scores
    )


def _source(row: Published, cite: str) -> str:
    return f"{cite}, {row.source}" if cite else row.source


def _score(model: str, row: Published) -> Score:
    # Only a report needs these, and their module a second of imports.
    from epigone.evaluation.style_metrics import METRICS

    known = METRICS.get(row.metric)
    common = Score(
        metric=row.name,
        model=model,
        family=kind(row.metric).family,
        value=row.value,
        n=0,
        values={},
        task=row.task,
        # No verdict rests on a judge's opinion, be it ours or another's.
        primary=row.task != "judge",
        method=PUBLISHED,
        scale=10.0 if row.metric == "judge/score" else 1.0,
    )
    if known is None:
        return common
    return replace(
        common,
        better=known.better,
        aggregate=known.aggregate,
        ceiling=known.ceiling,
        scale=known.scale,
    )
