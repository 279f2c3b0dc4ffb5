"""What findings are made of: frozen, and JSON-able by `dataclasses.asdict`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from epigone.schema import Direction, Family, Interval

TeacherSource = Literal["measured", "reported", "ceiling", "unknown"]
SentenceKind = Literal["style", "capability", "scaling"]
Answer = Literal["up", "down", "unclear", "missing"]
# Capability is all its tasks: those that a student's corpus has examples of are supported.
FamilyName = Literal["style", "capability", "supported", "unsupported", "safety", "preference"]
Shape = Literal["straight", "saturating", "unclear", "too few amounts"]


@dataclass(frozen=True, slots=True)
class Subject:
    """One model of the grid: an untrained base has `corpus` None and `amount` 0.

    `corpus` names a line of students, such as "sharegpt, replay=0.25"; with `feedback` they were
    trained further after that amount, or after none at all. `supports` are the tasks that a local
    corpus has examples of. `hours` of training and `dollars` of teacher calls are what the student
    cost, where that is known.
    """

    model: str
    base: str
    corpus: str | None = None
    amount: int = 0
    seed: int = 0
    feedback: bool = False
    supports: tuple[str, ...] = ()
    hours: float | None = None
    dollars: float | None = None

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
class Base:
    """A base's size: its weights, and its loss on text of its pre-training where measured.

    `loss` is in bits a byte, which bases of different tokenizers share.
    """

    name: str
    parameters: int | None = None
    loss: float | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """All metrics of one family of one base, corpus and amount, seeds averaged.

    `estimate` is the mean share of the gap closed of style, the mean change of the others, in which
    up is good; `closed` is the share of the gap, of the others that of their means. `detectable` is
    the smallest change seen with 80% power. `p` is two-sided; `adjusted` is Holm's over the study's
    primary tests, None of any other. `parts` are the metrics or tasks that count; `lower_bound`
    tells that the teacher's style is not known and identical answers stand for it.
    """

    base: str
    corpus: str
    amount: int
    family: FamilyName
    estimate: Interval
    closed: Interval
    parts: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    detectable: float | None = None
    p: float | None = None
    adjusted: float | None = None
    lower_bound: bool = False
    feedback: bool = False


@dataclass(frozen=True, slots=True)
class Trend:
    """A score of a base's students on one corpus against the logarithm of the amount.

    `slope` is what a doubling gives, by least squares over the trained amounts. `saturating` is the
    share of draws in which a curve that levels off predicts a left-out amount better than a
    straight line; None of fewer than four amounts. `needed` is how many tokens would match the
    teacher at this slope, where that is within ten times the largest amount; `why` says why not.
    `predicted` is the straight line at twice and at ten times that. `task` is empty and `metric` a
    family's name where it is a mean over the family, in which up is good.
    """

    base: str
    corpus: str
    family: FamilyName
    task: str
    metric: str
    amounts: tuple[int, ...]
    slope: Interval
    shape: Shape
    saturating: float | None = None
    half: Interval | None = None
    needed: Interval | None = None
    why: str = ""
    predicted: tuple[tuple[int, Interval], ...] = ()


@dataclass(frozen=True, slots=True)
class SizeTrend:
    """A score of untrained bases, or of their students of one corpus and amount, against size.

    `slope` is what a doubling of the weights gives, or a fall of the loss by 0.1 bits a byte;
    `bases` stand in the order of size.
    """

    corpus: str
    amount: int
    family: FamilyName
    task: str
    metric: str
    by: Literal["parameters", "loss"]
    bases: tuple[str, ...]
    slope: Interval


@dataclass(frozen=True, slots=True)
class DataOrBase:
    """What doubling the data gives beside what the next base gives, on the same items.

    `data_gain` is that of the last step of data, per doubling; `base_gain` compares the next base's
    students of the largest amount with this one's where there are some (`trained`), untrained bases
    otherwise. `contrast` is base minus data; `base_better` the probability that the base gives
    more, `base_better_per_hour` that it gives more for an hour of training. `data_hours` and
    `data_dollars` are what as much data again costs, `base_hours` what the other base's student
    does; it needs no new teacher calls.
    """

    base: str
    corpus: str
    family: FamilyName
    tasks: tuple[str, ...]
    previous: int
    amount: int
    data_gain: Interval
    other: str = ""
    trained: bool = False
    base_gain: Interval | None = None
    contrast: Interval | None = None
    base_better: float | None = None
    base_better_per_hour: float | None = None
    data_hours: float | None = None
    base_hours: float | None = None
    data_dollars: float | None = None
    p: float | None = None
    adjusted: float | None = None


@dataclass(frozen=True, slots=True)
class LocalBroad:
    """A local and a broad student of one base on the task that the local corpus is for.

    Their amounts are the nearest to each other that were measured. `base_value` and the others are
    the scores; the intervals are of differences on the same items.
    """

    base: str
    task: str
    metric: str
    local: str
    local_amount: int
    broad: str
    broad_amount: int
    base_value: float | None
    broad_value: float | None
    local_value: float | None
    teacher: TeacherValue
    broad_change: Interval
    local_change: Interval
    difference: Interval


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of a verdict, the rule's answer, the number it rests on, and its figure.

    `figure` is the part of the report that shows the number.
    """

    kind: SentenceKind
    answer: Answer
    headline: str
    text: str
    figure: str
    interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the study says about one base, at the largest measured amounts, in three sentences.

    `broad` and `local` name the lines of students that it rests on, empty where there is none.
    `answer` is the whole in one sentence; `note` tells what is not measured yet and is empty
    where nothing is missing. `supported` is the answer of the second half of the sentence on
    capability, which is about the local corpus's own task.
    """

    base: str
    broad: str
    local: str
    answer: str
    sentences: tuple[Sentence, ...]
    supported: Answer = "missing"
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
    """Everything that a study's scores say; `primary` counts the tests that Holm's rule covers."""

    bases: tuple[Base, ...]
    values: tuple[ValueRow, ...]
    gaps: tuple[GapRow, ...]
    summaries: tuple[Summary, ...]
    trends: tuple[Trend, ...]
    sizes: tuple[SizeTrend, ...]
    data_or_base: tuple[DataOrBase, ...]
    local_broad: tuple[LocalBroad, ...]
    verdicts: tuple[Verdict, ...]
    missing: tuple[Missing, ...]
    primary: int = 0
