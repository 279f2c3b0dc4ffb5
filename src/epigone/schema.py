"""The words that cross rooms, as typed, frozen data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from epigone.files import canonical
from epigone.formats import RECORD

Role = Literal["system", "user", "assistant", "tool"]
Family = Literal["style", "capability", "safety", "preference"]
# Of a difference from the teacher, neither is better: 0 is.
Direction = Literal["higher", "lower", "zero"]
# How a metric's value follows from its per-item values: their mean, or the Pearson
# correlation of `values` with `against`.
# "auc" is a mean of influences on an AUC: it lies in [0, 1], and its values are no shares.
Aggregate = Literal["mean", "pearson", "auc"]
Stop = Literal["end", "length", "text", "recorded"]


class Progress(Protocol):
    """What a stage calls while it works, as often as it likes."""

    def __call__(self, done: float, total: float, note: str = "") -> None:
        """Say that `done` of `total` units are finished; `note` is one short line."""


def silent(done: float, total: float, note: str = "") -> None:
    """A `Progress` that says nothing."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str

    def __reduce__(self) -> tuple[type[Message], tuple[str, str]]:
        """For pickle, which otherwise asks the class for its fields for each of millions."""
        return Message, (self.role, self.content)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a conversation comes from and what it may be used for."""

    source: str
    teacher: str
    date: str = ""
    licence: str = ""
    terms: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages with roles, plus provenance.

    `tokens` is the number of tokens of teacher output by the reference tokenizer;
    it is -1 until it was counted.
    """

    id: str
    messages: tuple[Message, ...]
    provenance: Provenance
    tokens: int = -1

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the fields of the class."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Conversation:
        """The inverse of `to_json`."""
        return cls(
            id=row["id"],
            messages=tuple(Message(m["role"], m["content"]) for m in row["messages"]),
            provenance=Provenance(**row["provenance"]),
            tokens=row.get("tokens", -1),
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt item with one model's output.

    `tokens` counts the output in the model's own tokens (0 for recorded outputs);
    `prompt_sha256` is the hash of the rendered prompt, decoded from its tokens (empty for recorded
    outputs).
    """

    item: str
    model: str
    prompt: tuple[Message, ...]
    output: str
    stop: Stop
    tokens: int = 0
    prompt_sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the fields of the class."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Sample:
        """The inverse of `to_json`."""
        prompt = tuple(Message(m["role"], m["content"]) for m in row["prompt"])
        return cls(**{**row, "prompt": prompt})


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one model on one set of items.

    `values` maps every scored item to its value; an item to which the metric does not
    apply, or whose value is missing, is not in it. `against` holds the teacher's value of
    the same items where the metric is a correlation. `ceiling` is the value that identical
    outputs would get, if there is one. `clusters` names the group (subject, prompt) an item
    belongs to, where items of one group are not independent. Of several scores of one task, one is
    `primary`: it alone counts in means over tasks. `method` says how a value was come by where that
    is not what other models' was, such as a letter that was asked for. `learnt` are items that
    stand in what the model was trained on. `scale` is the largest size that an item's value can
    have: 1 of what is so or not, 100 of per cent, None where there is no bound.
    """

    metric: str
    model: str
    family: Family
    value: float | None
    n: int
    values: Mapping[str, float]
    better: Direction = "higher"
    aggregate: Aggregate = "mean"
    against: Mapping[str, float] = field(default_factory=dict)
    ceiling: float | None = None
    task: str = ""
    version: int = 1
    clusters: Mapping[str, str] = field(default_factory=dict)
    primary: bool = True
    method: str = ""
    learnt: tuple[str, ...] = ()
    scale: float | None = 1.0

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the fields of the class."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Score:
        """The inverse of `to_json`."""
        return cls(**{**row, "learnt": tuple(row.get("learnt", ()))})


# Where those come from who rate: people by the way they were invited, or a model.
Workforce = Literal["private", "prolific", "mturk", "public", "judge"]
# What a comparison is for. Only an "item" counts as an answer: the others teach and test raters.
Purpose = Literal["item", "training", "gold", "attention"]
# The reason of a tie between answers that are one text: nobody was asked about it.
SAME_TEXT = "same text"


@dataclass(frozen=True, slots=True)
class Rating:
    """Which of two models' outputs for one item a rater prefers: a person, or a model as judge.

    `a` and `b` are models, in the order of their names. `preference` is 2 where `a` is better, 1
    where it is slightly better, 0 where both are equal, -1 and -2 where `b` is; None where a judge
    gave no verdict that can be read. `left` says which of them was shown on the left, or first.
    `expected` is the right preference of a comparison whose answer is known; `excluded` says why a
    rating does not count, empty where it does; `at` is when it was given, ISO 8601 in UTC.
    """

    item: str
    rater: str
    a: str
    b: str
    preference: int | None
    left: Literal["a", "b"]
    workforce: Workforce = "private"
    purpose: Purpose = "item"
    expected: int | None = None
    seconds: float | None = None
    reasons: tuple[str, ...] = ()
    comment: str = ""
    excluded: str = ""
    at: str = ""

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the fields of the class."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Rating:
        """The inverse of `to_json`."""
        return cls(**{**row, "reasons": tuple(row.get("reasons", ()))})


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95% interval; the bounds are None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """One point of the grid: base x corpus x amount x seed; one student.

    `variant` tells the swept settings of its recipe and the feedback after it, as
    "replay=0.25,kl=0.1,ranked"; without a corpus (amount 0), feedback began at the base.
    """

    base: str
    corpus: str
    amount: int
    seed: int
    variant: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """What is written last in a step's directory: it finished, with what, from what, how long.

    `identity` is the document whose hash names the step; `outputs` maps each file's relative
    path to its sha256, `sizes` to its bytes; `facts` is what the stage wants known (counts,
    precision, speed). `fetch_seconds`, for downloads and conversions, are not among the `seconds`
    of work. Records of format 1 have no sizes. In JSON a sum stands beside all this, by which one
    that was damaged on the disk is known.
    """

    stage: str
    slug: str
    hash: str
    identity: Mapping[str, Any]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    facts: Mapping[str, Any]
    started: str
    finished: str
    seconds: float
    peak_bytes: int
    environment: Mapping[str, Any]
    fetch_seconds: float = 0.0
    sizes: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the fields of the class, the layout of a record, and its sum."""
        # As it will be read: a key that is a number is text in JSON, and stands elsewhere then.
        row = json.loads(json.dumps(RECORD.mark(asdict(self))))
        return {**row, "sum": _sum(row)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Record:
        """The inverse of `to_json`; raises NewerFormat for a record of a newer Epigone.

        Raises ValueError where the sum is another one.
        """
        RECORD.of(row, f"{row.get('stage', '')}/{row.get('slug', '')}")
        fields = {k: v for k, v in row.items() if k != "sum"}
        if "sum" in row and row["sum"] != _sum(fields):
            raise ValueError("its sum is another one")
        return cls(**{k: v for k, v in fields.items() if k != "format"})


def _sum(row: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(row).encode()).hexdigest()[:16]
