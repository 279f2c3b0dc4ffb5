"""All scores of a study to its findings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from epigone.findings.bank import Bank
from epigone.findings.families import holm, summaries
from epigone.findings.gaps import gap_closed, paired_change, teacher_value, value_interval
from epigone.findings.grid import Key, ScoreGrid
from epigone.findings.marginal import data_or_base, local_broad
from epigone.findings.model import (
    Base,
    DataOrBase,
    FamilyName,
    Findings,
    GapRow,
    Missing,
    Subject,
    Summary,
    ValueRow,
    Verdict,
)
from epigone.findings.panel import is_share
from epigone.findings.resample import RESAMPLES, restrict
from epigone.findings.scaling import sizes, trends
from epigone.findings.verdict import latest, unfinished, verdict
from epigone.schema import Score


def analyse(
    subjects: Sequence[Subject],
    scores: Sequence[Score],
    teacher: str | None = None,
    reported: Mapping[str, float] | None = None,
    seed: int = 0,
    *,
    bases: Sequence[Base] = (),
    resamples: int = RESAMPLES,
) -> Findings:
    """Gaps, summaries, trends and verdicts from scores alone.

    `teacher` is the model name under which the teacher's own scores are found, if it has any.
    `reported` holds its scores from elsewhere, by task or `task/metric`. Means and slopes of
    capability are of what counts in shares (0 to 1); a task's primary scores of several metrics
    count as several tasks in the means.
    `bases` tell the sizes of the bases. Nothing is computed for what is missing: it is listed, and
    the verdict says so.
    """
    grid = ScoreGrid(
        subjects, defaultdict(dict), teacher, reported or {}, {b.name: b for b in bases},
        Bank(scores, seed, resamples),
    )  # fmt: skip
    for score in scores:
        grid.scores[score.model][(score.task, score.metric)] = score
        if score.family == "capability" and not is_share(score):
            grid.others.add((score.task, score.metric))
        if score.primary:
            grid.tasks[score.task].add(score.metric)
    found, choices = _corrected(grid, [*summaries(grid)], [*data_or_base(grid)])
    missing = tuple(_missing(grid))
    return Findings(
        bases=tuple(bases),
        values=tuple(_values(grid)),
        gaps=tuple(_gaps(grid)),
        summaries=tuple(found),
        trends=tuple(trends(grid)),
        sizes=tuple(sizes(grid)),
        data_or_base=tuple(choices),
        local_broad=tuple(local_broad(grid)),
        verdicts=tuple(_verdicts(grid, found, choices, missing)),
        missing=missing,
        primary=len([p for p in (*_adjusted(found), *_adjusted(choices)) if p is not None]),
    )


def _values(grid: ScoreGrid) -> list[ValueRow]:
    who = {s.model: s for s in grid.subjects}
    order = [*who, *sorted(m for m in grid.scores if m not in who)]
    return [
        ValueRow(
            model,
            who.get(model),
            score.metric,
            score.task,
            score.family,
            score.better,
            value_interval(score, grid.bank.seed, grid.bank.resamples),
            score.method,
        )
        for model in order
        for _, score in sorted(grid.scores.get(model, {}).items())
    ]


def _gaps(grid: ScoreGrid) -> list[GapRow]:
    rows = []
    for subject in grid.subjects:
        start = grid.scores.get(_name(grid.untrained(subject.base)), {})
        if subject.untrained:
            continue
        for key, student in sorted(grid.scores.get(subject.model, {}).items()):
            if key in start:
                rows.append(_gap(grid, subject, key, start[key], student))
                if student.learnt:
                    rows.append(_gap(grid, subject, key, start[key], student, clean=True))
    return rows


def _gap(
    grid: ScoreGrid, subject: Subject, key: Key, base: Score, student: Score, clean: bool = False
) -> GapRow:
    """One student on one metric; `clean` leaves out the items that it was trained on."""
    teacher, reported = grid.teacher_score(key), grid.reported_for(key)
    metric = base.metric
    if clean:
        metric = f"{metric} without {len(student.learnt)} items of the corpus"
        learnt = student.learnt
        base, student = _without(base, learnt), _without(student, learnt)
        teacher = teacher and _without(teacher, learnt)
        # What was reported is of all items.
        reported = None
    moved, size = paired_change(base, student, grid.bank)
    return GapRow(
        subject=subject,
        metric=metric,
        task=base.task,
        family=base.family,
        better=base.better,
        base=base.value,
        student=student.value,
        teacher=teacher_value(base, teacher, reported),
        change=moved,
        detectable=size,
        closed=gap_closed(base, student, teacher, reported=reported, bank=grid.bank),
    )


def _without(score: Score, items: Sequence[str]) -> Score:
    left = restrict(score, sorted(set(score.values) - set(items)))
    values = left.values.values()
    return replace(left, value=sum(values) / len(values) if values else None)


def _missing(grid: ScoreGrid) -> list[Missing]:
    trained = [s.model for s in grid.subjects]
    wanted = sorted({k for m in trained for k in grid.scores.get(m, {})})
    return [
        Missing(model, metric, task)
        for model in trained
        for task, metric in wanted
        if (task, metric) not in grid.scores.get(model, {})
    ]


def _lines(grid: ScoreGrid, base: str) -> tuple[str, str]:
    """The broad and the local line of students that a base's verdict rests on; see `verdict`."""
    lines = sorted(grid.lines(base), key=lambda c: any(s.feedback for s in grid.students(base, c)))
    broad = next((c for c in lines if not grid.supports(base, c)), "")
    return broad, next((c for c in lines if grid.supports(base, c)), "")


def _corrected(
    grid: ScoreGrid, found: list[Summary], choices: list[DataOrBase]
) -> tuple[list[Summary], list[DataOrBase]]:
    """Holm's correction over the tests behind the verdicts' sentences."""
    primary: list[Summary | DataOrBase] = []
    for base in grid.bases():
        broad, local = _lines(grid, base)
        own = [s for s in found if s.base == base]
        wanted: list[tuple[str, FamilyName]] = [(broad or local, "style")]
        if broad:
            wanted.append((broad, "unsupported"))
        if local:
            wanted.append((local, "supported"))
        primary += [s for corpus, f in wanted if (s := latest(own, corpus, f)) is not None]
        choice = _choice(choices, base, broad or local)
        primary += [choice] if choice else []
    adjusted = {id(t): p for t, p in zip(primary, holm([t.p for t in primary]), strict=True)}
    return (
        [replace(s, adjusted=adjusted.get(id(s))) for s in found],
        [replace(c, adjusted=adjusted.get(id(c))) for c in choices],
    )


def _adjusted(tests: Sequence[Summary] | Sequence[DataOrBase]) -> list[float | None]:
    return [t.adjusted for t in tests]


def _choice(choices: Sequence[DataOrBase], base: str, corpus: str) -> DataOrBase | None:
    return next((c for c in choices if (c.base, c.corpus) == (base, corpus)), None)


def _verdicts(
    grid: ScoreGrid,
    found: Sequence[Summary],
    choices: Sequence[DataOrBase],
    missing: Sequence[Missing],
) -> list[Verdict]:
    lacking = {m.model for m in missing} | {
        s.model for s in grid.subjects if s.model not in grid.scores
    }
    verdicts = []
    for base in grid.bases():
        broad, local = _lines(grid, base)
        own = [s for s in found if s.base == base]
        students = grid.students(base)
        amount = max((s.amount for s in own), default=0)
        largest = max((s.amount for s in students), default=0)
        gone = sum(s.model in lacking for s in students)
        # A base that no student of has scores either is only not begun.
        bare = gone < len(students) and _name(grid.untrained(base)) in lacking | {""}
        verdicts.append(
            verdict(
                base, broad, local, own, _choice(choices, base, broad or local),
                unfinished(gone, len(students), amount, largest, bare),
            )
        )  # fmt: skip
    return verdicts


def _name(subject: Subject | None) -> str:
    return subject.model if subject else ""
