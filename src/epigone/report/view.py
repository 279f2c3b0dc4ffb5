"""What a report shows, as plain frozen data: the report reads nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from epigone.findings import Findings, Fooled, Judged, Selected, Subject
from epigone.raters.agreement import Agreement, JudgeAgreement
from epigone.schema import Message, Score
from epigone.study.published import Figure

StepState = Literal["done", "pending", "failed"]


@dataclass(frozen=True, slots=True)
class Reported:
    """A score of the teacher that somebody else published; `name` is a task or `task/metric`."""

    name: str
    value: float
    source: str


@dataclass(frozen=True, slots=True)
class Beside:
    """A score that others published of a model here, and the measured one where there is one."""

    model: str
    task: str
    metric: str
    reported: float
    measured: float | None
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Teacher:
    """Who is imitated, what its outputs may be used for, and its scores from elsewhere."""

    name: str
    description: str = ""
    terms: str = ""
    reported: tuple[Reported, ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """One model's output to an item; `stop` is why it ended (`schema.Stop`).

    `note` is what else there is to say of it; `preferred` is each rater's share of a win over the
    teacher's answer.
    """

    model: str
    text: str
    stop: str = ""
    note: str = ""
    preferred: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt with the teacher's answer and the outputs of the models.

    `source` is the benchmark as scores name it, empty for a held-out prompt; `reference` is the
    right answer where one is known.
    """

    id: str
    prompt: tuple[Message, ...]
    answer: str | None
    outputs: tuple[Output, ...]
    source: str = ""
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """One source of teacher text."""

    name: str
    licence: str = ""
    terms: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Corpus:
    """What was read, dropped by which rule, and lost on the way to a corpus.

    Counts are conversations unless the key says otherwise; `dropped` keeps the rules' order;
    `lost` is what could not be read; `facts` is anything else worth a row.
    """

    name: str
    kind: str
    read: int
    kept: int
    sources: tuple[Source, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the study; `seconds` is None where it has not run, `note` is one line.

    `dollars` is what it asked an endpoint for, None where nothing was asked or it is not known.
    """

    stage: str
    name: str
    state: StepState
    seconds: float | None = None
    hash: str = ""
    note: str = ""
    dollars: float | None = None


@dataclass(frozen=True, slots=True)
class CellState:
    """One model of the grid: how many of the steps that make and measure it are done."""

    subject: Subject
    state: StepState
    done: int
    steps: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Point:
    """Optimiser steps `first` to `last` of a run: means of the loss, the norm and the divergence.

    `seen` are the supervised tokens at the end of the last of them, whose learning rate `lr` is;
    `kl` is KL(base || student) in nats a supervised token, where the recipe has it.
    """

    first: int
    last: int
    seen: int
    loss: float
    lr: float
    gradient_norm: float
    kl: float | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """A point for every step of a trunk, or of the decay toward the amount `branch`."""

    branch: int | None
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Trunk:
    """One training run: its curves, and the students that were taken from it.

    `line` is the corpus, with the variant, as `Subject.corpus` names it; `taken` holds the
    supervised tokens that the student of each amount had seen; `facts` are the record's.
    """

    name: str
    base: str
    line: str
    seed: int
    curves: tuple[Curve, ...]
    taken: Mapping[int, int]
    facts: Mapping[str, Any]
    seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class MetricText:
    """A metric's title and one sentence on what its number means."""

    title: str
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class Agreed:
    """How far people agree with each other, None where nobody rated what another did, and each
    judge with them."""

    people: Agreement | None = None
    judges: tuple[JudgeAgreement, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportView:
    """Everything that a report shows.

    `metrics` explains metrics by `task/metric`, or by `metric` alone; `provenance` holds named
    groups of name-value rows (versions, hashes, machine, licences and terms); `created` is
    shown as it is, and the report takes no time of its own; `remarks` are paragraphs on how
    the study was made that a reader must know; `judged` is what judges and people prefer,
    `fooled` what a gain in it goes with; `rating` tells how far people are with rating;
    `beside` are scores that others published of models here; `figures` what a publication says of
    its figures; `kinds` tells of each line of students whether its corpus is broad or local;
    `cells` tell how far every model of the grid is; `text` is the study file as it ran, `locked`
    the revision or hash of everything that it names.
    """

    study: str
    teacher: Teacher
    subjects: tuple[Subject, ...]
    scores: tuple[Score, ...]
    findings: Findings
    selected: tuple[Selected, ...] = ()
    items: tuple[Item, ...] = ()
    corpora: tuple[Corpus, ...] = ()
    trunks: tuple[Trunk, ...] = ()
    steps: tuple[Step, ...] = ()
    provenance: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    metrics: Mapping[str, MetricText] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    judged: Judged = field(default_factory=lambda: Judged((), ()))
    fooled: tuple[Fooled, ...] = ()
    agreed: Agreed = field(default_factory=Agreed)
    rating: str = ""
    created: str = ""
    beside: tuple[Beside, ...] = ()
    figures: tuple[Figure, ...] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)
    cells: tuple[CellState, ...] = ()
    text: str = ""
    locked: Mapping[str, str] = field(default_factory=dict)
