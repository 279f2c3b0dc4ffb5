"""All scores of a study to its findings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from epigone.findings import verdict
from epigone.findings.gaps import (
    gap_closed,
    paired_change,
    reported_value,
    teacher_value,
    value_interval,
)
from epigone.findings.model import (
    Findings,
    GapRow,
    Missing,
    Scaling,
    Subject,
    Summary,
    ValueRow,
    Verdict,
)
from epigone.findings.resample import restrict
from epigone.findings.summary import (
    Part,
    StyleMetric,
    mean_contrast,
    parts_of,
    style_closed,
)
from epigone.schema import Score

Key = tuple[str, str]  # task, metric
Table = Mapping[str, Sequence[Score]]


@dataclass
class _Grid:
    """The scores by model and by (task, metric), and who is who."""

    subjects: Sequence[Subject]
    scores: dict[str, dict[Key, Score]]
    teacher: str | None
    reported: Mapping[str, float]
    seed: int
    tasks: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def untrained(self, base: str) -> str | None:
        return next((s.model for s in self.subjects if s.base == base and s.untrained), None)

    def bases(self) -> list[str]:
        return list(dict.fromkeys(s.base for s in self.subjects))

    def students(self, base: str, corpus: str | None = None) -> list[Subject]:
        return [
            s
            for s in self.subjects
            if s.base == base and not s.untrained and corpus in (None, s.corpus)
        ]

    def teacher_score(self, key: Key) -> Score | None:
        return self.scores.get(self.teacher, {}).get(key) if self.teacher else None

    def reported_for(self, key: Key) -> float | None:
        # A task's name alone means its primary score.
        primary = self.tasks[key[0]]
        return reported_value(
            self.reported, key[1], key[0], len(primary) if key[1] in primary else 2
        )

    def of(self, models: Sequence[str], family: str) -> dict[str, list[Score]]:
        """Scores of a family by name, where every one of the models has one."""
        if not models:
            return {}
        tables = [
            {k: s for k, s in self.scores.get(m, {}).items() if s.family == family and s.primary}
            for m in models
        ]
        shared = set.intersection(*(set(t) for t in tables))
        return {_name(k): [t[k] for t in tables] for k in sorted(shared)}


def analyse(
    subjects: Sequence[Subject],
    scores: Sequence[Score],
    teacher: str | None = None,
    reported: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Findings:
    """Gaps, summaries and verdicts from scores alone.

    `teacher` is the model name under which the teacher's own scores are found, if it has any.
    `reported` holds its scores from elsewhere, by task or `task/metric`. Capability metrics are
    shares (0 to 1); a task's primary scores of several metrics count as several tasks in the means.
    Nothing is computed for what is missing: it is listed, and the verdict says so.
    """
    grid = _Grid(subjects, defaultdict(dict), teacher, reported or {}, seed)
    for score in scores:
        grid.scores[score.model][(score.task, score.metric)] = score
        if score.primary:
            grid.tasks[score.task].add(score.metric)
    summaries = tuple(_summaries(grid))
    missing = tuple(_missing(grid))
    return Findings(
        values=tuple(_values(grid)),
        gaps=tuple(_gaps(grid)),
        summaries=summaries,
        verdicts=tuple(_verdicts(grid, summaries, missing)),
        missing=missing,
    )


def _values(grid: _Grid) -> list[ValueRow]:
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
            value_interval(score, grid.seed),
            score.method,
        )
        for model in order
        for _, score in sorted(grid.scores.get(model, {}).items())
    ]


def _gaps(grid: _Grid) -> list[GapRow]:
    rows = []
    for subject in grid.subjects:
        start = grid.scores.get(grid.untrained(subject.base) or "", {})
        if subject.untrained:
            continue
        for key, student in sorted(grid.scores.get(subject.model, {}).items()):
            if key in start:
                rows.append(_gap(grid, subject, key, start[key], student))
                if student.learnt:
                    rows.append(_gap(grid, subject, key, start[key], student, clean=True))
    return rows


def _gap(
    grid: _Grid, subject: Subject, key: Key, base: Score, student: Score, clean: bool = False
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
    moved, size = paired_change(base, student, grid.seed)
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
        closed=gap_closed(base, student, teacher, reported=reported, seed=grid.seed),
    )


def _without(score: Score, items: Sequence[str]) -> Score:
    left = restrict(score, sorted(set(score.values) - set(items)))
    values = left.values.values()
    return replace(left, value=sum(values) / len(values) if values else None)


def _summaries(grid: _Grid) -> list[Summary]:
    found = []
    for base in grid.bases():
        cells: dict[tuple[str, int], list[Subject]] = defaultdict(list)
        for s in grid.students(base):
            cells[(s.corpus or "", s.amount)].append(s)
        for (corpus, amount), students in sorted(cells.items()):
            summary = _summary(grid, base, corpus, amount, students)
            if summary is not None:
                found.append(summary)
    return found


def _summary(
    grid: _Grid, base: str, corpus: str, amount: int, students: Sequence[Subject]
) -> Summary | None:
    untrained = grid.untrained(base)
    scored = [s for s in students if s.model in grid.scores]
    if untrained is None or not scored:
        return None
    models = [s.model for s in scored]
    keys = [(s[0].task, s[0].metric) for s in grid.of([untrained, *models], "style").values()]
    style = style_closed(
        [
            StyleMetric(
                grid.scores[untrained][k],
                tuple(grid.scores[m][k] for m in models),
                grid.teacher_score(k),
                grid.reported_for(k),
            )
            for k in keys
        ],
        grid.seed,
    )
    before, after = grid.of([untrained], "capability"), grid.of(models, "capability")
    moved, size, tasks = mean_contrast(parts_of([(after, 1.0), (before, -1.0)]), grid.seed)
    return Summary(
        base=base,
        corpus=corpus,
        amount=amount,
        seeds=tuple(s.seed for s in scored),
        style_closed=style.interval,
        style_metrics=style.metrics,
        style_is_lower_bound=style.lower_bound,
        capability_change=moved,
        capability_tasks=tasks,
        capability_detectable=size,
        feedback=students[0].feedback,
    )


def _missing(grid: _Grid) -> list[Missing]:
    trained = [s.model for s in grid.subjects]
    wanted = sorted({k for m in trained for k in grid.scores.get(m, {})})
    return [
        Missing(model, metric, task)
        for model in trained
        for task, metric in wanted
        if (task, metric) not in grid.scores.get(model, {})
    ]


def _verdicts(
    grid: _Grid, summaries: Sequence[Summary], missing: Sequence[Missing]
) -> list[Verdict]:
    lacking = {m.model for m in missing} | {
        s.model for s in grid.subjects if s.model not in grid.scores
    }
    found = []
    for base in grid.bases():
        corpora = list(dict.fromkeys(s.corpus or "" for s in grid.students(base)))
        for corpus in corpora or [""]:
            own = [s for s in summaries if (s.base, s.corpus) == (base, corpus)]
            style = verdict.latest(own, "style")
            capability = verdict.latest(own, "capability")
            students = grid.students(base, corpus)
            fed_back = any(s.feedback for s in students)
            step = None if fed_back else _scaling(grid, base, corpus)
            amount = max((s.amount for s in own), default=0)
            largest = max((s.amount for s in students), default=0)
            gone = sum(s.model in lacking for s in students)
            found.append(
                Verdict(
                    base,
                    corpus,
                    amount,
                    verdict.answer(base, style, capability),
                    (
                        verdict.style(base, style),
                        verdict.capability(base, capability),
                        verdict.no_scaling(base) if fed_back else verdict.scaling(base, step),
                    ),
                    step,
                    verdict.unfinished(gone, len(students), amount, largest),
                )
            )
    return found


def _scaling(grid: _Grid, base: str, corpus: str) -> Scaling | None:
    untrained = grid.untrained(base)
    by_amount: dict[int, list[str]] = defaultdict(list)
    for s in grid.students(base, corpus):
        by_amount[s.amount].append(s.model)
    tables: dict[int, Table] = {
        a: t
        for a, models in by_amount.items()
        if (t := grid.of([m for m in models if m in grid.scores], "capability"))
    }
    own = grid.of([untrained], "capability") if untrained else {}
    if own:
        tables[0] = own
    if len(tables) < 2 or not own:
        return None
    previous, amount = sorted(tables)[-2:]
    step: list[tuple[Table, float]] = [(tables[amount], 1.0), (tables[previous], -1.0)]
    gain = mean_contrast(parts_of(step), grid.seed)[0]
    best: Scaling | None = None
    for other in grid.bases():
        model = grid.untrained(other)
        theirs = grid.of([model], "capability") if model and other != base else {}
        if not theirs:
            continue
        ahead: list[tuple[Table, float]] = [(theirs, 1.0), (own, -1.0)]
        difference = mean_contrast(parts_of(ahead), grid.seed)[0]
        if difference.value is None:
            continue
        if best and best.base_difference and difference.value <= (best.base_difference.value or 0):
            continue
        contrast = mean_contrast(_contrast(ahead, step), grid.seed)[0]
        best = Scaling(previous, amount, gain, other, difference, contrast)
    return best or Scaling(previous, amount, gain)


def _contrast(
    ahead: Sequence[tuple[Table, float]], step: Sequence[tuple[Table, float]]
) -> list[Part]:
    return parts_of([*ahead, *((table, -sign) for table, sign in step)])


def _name(key: Key) -> str:
    task, metric = key
    return f"{task}/{metric}" if task else metric
