"""A study's scores by model and metric, and who is who among its models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from epigone.findings.bank import Bank
from epigone.findings.gaps import reported_value, teacher_value
from epigone.findings.model import Base, FamilyName, Subject, TeacherValue
from epigone.findings.panel import Column
from epigone.schema import Score

Key = tuple[str, str]  # task, metric


@dataclass
class ScoreGrid:
    """The scores by model and by (task, metric), with what else is known of the models."""

    subjects: Sequence[Subject]
    scores: dict[str, dict[Key, Score]]
    teacher: str | None
    reported: Mapping[str, float]
    facts: Mapping[str, Base] = field(default_factory=dict)
    bank: Bank = field(default_factory=Bank)
    tasks: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    # Metrics of capability that are no shares, which no mean of shares can hold.
    others: set[Key] = field(default_factory=set)

    def untrained(self, base: str) -> Subject | None:
        """The base as it came."""
        return next((s for s in self.subjects if s.base == base and s.untrained), None)

    def bases(self) -> list[str]:
        """Names in the order of the subjects."""
        return list(dict.fromkeys(s.base for s in self.subjects))

    def students(
        self, base: str, corpus: str | None = None, amount: int | None = None
    ) -> list[Subject]:
        """Students of a base, on one corpus and of one amount where these are given."""
        return [
            s
            for s in self.subjects
            if s.base == base
            and not s.untrained
            and corpus in (None, s.corpus)
            and amount in (None, s.amount)
        ]

    def scored(
        self, base: str, corpus: str, family: FamilyName, supports: Sequence[str]
    ) -> dict[int, list[Subject]]:
        """Students by amount that have a score of a family."""
        found: dict[int, list[Subject]] = defaultdict(list)
        for s in self.students(base, corpus):
            if self.table(s.model, family, supports):
                found[s.amount].append(s)
        return dict(sorted(found.items()))

    def lines(self, base: str) -> list[str]:
        """Names of the lines of students of a base, in the order of the subjects."""
        return list(dict.fromkeys(s.corpus or "" for s in self.students(base)))

    def supports(self, base: str, corpus: str) -> tuple[str, ...]:
        """Tasks that a line's corpus has examples of."""
        return next((s.supports for s in self.students(base, corpus)), ())

    def teacher_score(self, key: Key) -> Score | None:
        """The teacher's own score."""
        return self.scores.get(self.teacher, {}).get(key) if self.teacher else None

    def reported_for(self, key: Key) -> float | None:
        """The teacher's value from elsewhere; a task's name alone means its primary score."""
        primary = self.tasks[key[0]]
        return reported_value(
            self.reported, key[1], key[0], len(primary) if key[1] in primary else 2
        )

    def known(self, base: Score) -> TeacherValue:
        """The teacher's value of a metric of which a base has a score."""
        key = base.task, base.metric
        return teacher_value(base, self.teacher_score(key), self.reported_for(key))

    def table(
        self, model: str, family: FamilyName, supports: Sequence[str] = ()
    ) -> dict[str, Score]:
        """A model's scores of a family that count, by name."""
        return {
            name_of(k): s
            for k, s in sorted(self.scores.get(model, {}).items())
            if counts(s, family, supports) and k not in self.others
        }

    def column(
        self, models: Sequence[Subject], family: FamilyName, supports: Sequence[str] = ()
    ) -> Column:
        """One amount's students, or one untrained base, as a column of a panel."""
        first = models[0]
        tables = {s.seed: self.table(s.model, family, supports) for s in models}
        if first.untrained:
            return Column(tables)
        peers = tuple(
            Column({s.seed: self.table(s.model, family, supports) for s in own}, line_of(own[0]))
            for own in self.peers(models)
        )
        return Column(tables, line_of(first), peers)

    def peers(self, models: Sequence[Subject]) -> list[list[Subject]]:
        """Students of the same amount of other bases and lines on corpora for the same tasks.

        None where there is one seed, of which nothing is told from others.
        """
        first = models[0]
        if len(models) < 2:
            return []
        found: dict[str, list[Subject]] = defaultdict(list)
        for s in self.subjects:
            alike = (s.amount, s.feedback, s.supports) == (
                first.amount, first.feedback, first.supports
            )  # fmt: skip
            if alike and not s.untrained and s.model in self.scores:
                found[line_of(s)].append(s)
        return [own for line, own in found.items() if line != line_of(first) and len(own) > 1]

    def teacher_column(self, base: Mapping[str, Score]) -> Column:
        """The teacher on the tasks of which it has a score, measured or from elsewhere."""
        found: dict[str, Score] = {}
        for name, score in base.items():
            known = self.known(score)
            own = self.teacher_score((score.task, score.metric))
            if known.source == "measured" and own is not None:
                found[name] = own
            elif known.source == "reported":
                found[name] = _exact(score, known.value)
        return Column({0: found})


def line_of(subject: Subject) -> str:
    """The name of a base's line of students."""
    return f"{subject.base} {subject.corpus}"


def counts(score: Score, family: FamilyName, supports: Sequence[str] = ()) -> bool:
    """Whether a score counts in the means of a family.

    Of preference the win rate does, of the others what is primary. A task is supported where the
    corpus has examples of it, in any format: "nq_open:chat" is "nq_open".
    """
    if family == "preference":
        return score.family == "preference" and score.metric == "win_rate"
    if family in ("supported", "unsupported"):
        held = score.task.partition(":")[0] in supports or score.task in supports
        return score.family == "capability" and score.primary and held is (family == "supported")
    return score.family == family and score.primary


def _exact(score: Score, value: float | None) -> Score:
    """A value from elsewhere in a score's place; it has no items."""
    return replace(score, value=value, n=0, values={}, clusters={}, against={}, method="exact")


def name_of(key: Key) -> str:
    """A metric's name beside those of other tasks."""
    task, metric = key
    return f"{task}/{metric}" if task else metric
