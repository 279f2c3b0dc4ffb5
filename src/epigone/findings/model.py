"""What findings are made of: frozen, and JSON-able by `dataclasses.asdict`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from epigone.schema import Direction, Family, Interval

TeacherSource = Literal["measured", "reported", "ceiling", "unknown"]
SentenceKind = Literal["style", "capability", "scaling"]
Answer = Literal["up", "down", "unclear", "missing"]


@dataclass(frozen=True, slots=True)
class Subject:
    """One model of the grid: an untrained base has `corpus` None and `amount` 0.

    `corpus` names a line of students, such as "sharegpt, replay=0.25"; with `feedback` they were
    trained further after that amount, or after none at all.
    """

    model: str
    base: str
    corpus: str | None = None
    amount: int = 0
    seed: int = 0
    feedback: bool = False

    @property
    def untrained(self) -> bool:
        """Whether it is a base as it came."""
        return self.amount == 0 and not self.feedback


@dataclass(frozen=True, slots=True)
class TeacherValue:
    """The teacher's value of a metric, where it comes from, and how it was measured if told."""

    value: float | None
    source: TeacherSource
    method: str = ""


@dataclass(frozen=True, slots=True)
class ValueRow:
    """One model's value of one metric with its interval; `subject` is None for the teacher."""

    model: str
    subject: Subject | None
    metric: str
    task: str
    family: Family
    better: Direction
    value: Interval
    method: str = ""


@dataclass(frozen=True, slots=True)
class GapRow:
    """One student on one metric: base, student and teacher, the change and the share closed.

    All differences are in the metric's own unit; `closed` is a share (1 = the whole gap);
    `detectable` is the smallest change seen with 80% power at a two-sided 5% level.
    """

    subject: Subject
    metric: str
    task: str
    family: Family
    better: Direction
    base: float | None
    student: float | None
    teacher: TeacherValue
    change: Interval
    detectable: float | None
    closed: Interval


@dataclass(frozen=True, slots=True)
class Summary:
    """All style metrics and all capability tasks of one base, corpus and amount, seeds averaged."""

    base: str
    corpus: str
    amount: int
    seeds: tuple[int, ...]
    style_closed: Interval
    style_metrics: tuple[str, ...]
    style_is_lower_bound: bool
    capability_change: Interval
    capability_tasks: tuple[str, ...]
    capability_detectable: float | None
    feedback: bool = False


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of a verdict, the rule's answer, and the number that it rests on."""

    kind: SentenceKind
    answer: Answer
    headline: str
    text: str
    interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class Scaling:
    """Capability gained by the last step of data against that of another untrained base."""

    previous: int
    amount: int
    data_gain: Interval
    other: str = ""
    base_difference: Interval | None = None
    contrast: Interval | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the study says about one base on one corpus, at the largest measured amount.

    `answer` is the whole in one sentence; `note` tells what is not measured yet and is empty
    where nothing is missing.
    """

    base: str
    corpus: str
    amount: int
    answer: str
    sentences: tuple[Sentence, ...]
    scaling: Scaling | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Selected:
    """One metric of a student of chosen prompts, beside that of a student of prompts at random."""

    subject: Subject
    at_random: Subject
    metric: str
    task: str
    family: Family
    better: Direction
    random_value: float | None
    value: float | None
    change: Interval


@dataclass(frozen=True, slots=True)
class Missing:
    """A score that other models have and this one does not."""

    model: str
    metric: str
    task: str


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that a study's scores say."""

    values: tuple[ValueRow, ...]
    gaps: tuple[GapRow, ...]
    summaries: tuple[Summary, ...]
    verdicts: tuple[Verdict, ...]
    missing: tuple[Missing, ...]
