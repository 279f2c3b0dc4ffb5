"""Scores that others published for models of a study's grid: what a study file says of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from epigone.errors import UnknownName, UserError
from epigone.schema import Family
from epigone.study.values import Amount, Declared, Mistake, Reference, Share, amount_label

# Files of facts that come with Epigone, by their names.
SHIPPED = ("gudibande-2023",)
PAPER = SHIPPED[0]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a metric is of, and between which values it lies; None for no bound."""

    family: Family
    low: float | None = 0.0
    high: float | None = 1.0


# What can be reported besides benchmarks, whose scores are shares.
METRICS: Mapping[str, Kind] = {
    **dict.fromkeys(("list", "summary", "headings", "code"), Kind("style")),
    "unigram": Kind("style", high=100.0),
    "length": Kind("style", low=-1.0),
    "length_ratio": Kind("style", None, None),
    "hedging": Kind("style", -100.0, 100.0),
    **dict.fromkeys(
        ("more_lists", "more_summaries", "more_headings", "more_code", "opening", "closing",
         "refusal", "disclaimer"), Kind("style", low=-1.0)
    ),
    "judge/tone": Kind("style"),
    "judge/win_rate": Kind("preference"),
    "judge/equal_or_better": Kind("preference"),
    "judge/score": Kind("preference", 1.0, 10.0),
}  # fmt: skip
_BENCHMARK = Kind("capability")


class Published(Declared):
    """One score of one model, or a file of such."""

    source_file: Reference | None = Field(
        default=None, alias="from",
        description="a file of rows, or one that comes with Epigone: " + ", ".join(SHIPPED),
    )  # fmt: skip
    metric: str = Field(default="", description="task/metric of a benchmark, else a metric's name")
    value: Share | None = Field(default=None, description="in the metric's own unit; 13% is 0.13")
    source: str = Field(default="", description="publication, table or page it is taken from")
    note: str = Field(default="", description="what a reader must know of it, in one line")
    base: str = Field(default="", description="base of the study; alone: as it came, untrained")
    corpus: str = Field(default="", description="what its student was trained on")
    amount: Amount | None = Field(default=None, description="and on how much of it")
    seed: int | None = Field(default=None, description="the study's first, if not named")
    variant: str = Field(default="", description="of a swept recipe or feedback, as in the plan")
    teacher: Literal["first", "second"] | None = Field(
        default=None, description="the teacher's own score; style is that of its second answers"
    )

    @model_validator(mode="after")
    def _one_model(self) -> Published:
        if self.source_file is not None:
            if other := sorted(self.model_fields_set - {"source_file"}):
                error = UserError("a file of rows has all that is said of them", value=other[0])
                raise Mistake((other[0],), error, at_key=True)
            return self
        for name in ("metric", "value", "source"):
            if getattr(self, name) in ("", None):
                what = UserError("a reported score has a metric, a value and a source", value=name)
                raise Mistake((name,), what)
        if bool(self.base) is (self.teacher is not None):
            fix = "base: NAME, with corpus and amount for its student; or teacher: first, or second"
            raise Mistake((), UserError("a reported score is of one model", fix=fix))
        if (self.amount is not None) is not bool(self.corpus):
            raise Mistake((), UserError("a student has a corpus and an amount", value=self.metric))
        if not self.corpus and (self.seed is not None or self.variant):
            raise Mistake((), UserError("only a student has a seed or a variant",
                                        value=self.metric))  # fmt: skip
        family = kind(self.metric).family
        if (self.teacher, family) in (("first", "style"), ("second", "capability")):
            fix = "style is that of its second answers, beside its first: teacher: second"
            raise Mistake(("teacher",), UserError("not what a teacher is measured on",
                                                  value=self.teacher, fix=fix))  # fmt: skip
        return self

    @property
    def task(self) -> str:
        """The benchmark, "judge", or "" of style."""
        return self.metric.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The metric without its task."""
        return self.metric.rpartition("/")[2]


def by_file(value: object) -> object:
    """Rows of which only the file is said."""
    return {"from": value} if isinstance(value, str) else value


def by_one_file(value: object) -> object:
    """A study whose reported scores are all in one file."""
    return [value] if isinstance(value, str) else value


Row = Annotated[Published, BeforeValidator(by_file, json_schema_input_type=str | Published)]
Rows = Annotated[list[Row], BeforeValidator(by_one_file, json_schema_input_type=str | list[Row])]


class Figure(Declared):
    """What a publication says of a figure, where no one model can be named."""

    figure: str = Field(min_length=1)
    shows: str = Field(min_length=1)
    says: str = Field(default="", description="empty where no text gives it")


class PublishedFile(Declared):
    """A file of reported scores, and whose they are."""

    cite: str = Field(min_length=1, description="the publication")
    rows: list[Published] = Field(min_length=1)
    figures: list[Figure] = Field(default_factory=list)

    @model_validator(mode="after")
    def _flat(self) -> PublishedFile:
        for i, row in enumerate(self.rows):
            if row.source_file is not None:
                error = UserError("a file of rows names no other", value=row.source_file)
                raise Mistake(("rows", i), error)
        return self


def kind(metric: str) -> Kind:
    """What a metric is of; one that is not known by its name is a benchmark's."""
    return METRICS.get(metric, _BENCHMARK)


def place_of(ref: str, folder: Path) -> Path:
    """The file that a name means: one that comes with Epigone, else a path from `folder`."""
    if ref in SHIPPED:
        return Path(str(files("epigone.study") / "reported" / f"{ref}.yaml"))
    path = folder / Path(ref).expanduser()
    if not path.suffix and not path.exists():
        raise UnknownName("file of reported scores", ref, SHIPPED)
    return path


def check(
    row: Published,
    amounts: Mapping[str, Sequence[int]],
    tasks: Collection[str],
    seeds: Sequence[int],
) -> None:
    """Raise Mistake, with the place in the row, for what is not of the study."""
    if row.source_file is not None:
        return
    known = [*METRICS, *(f"{task}/{row.name}" for task in tasks)]
    if row.metric not in known:
        raise Mistake(("metric",), UnknownName("metric of the study", row.metric, known))
    limits, value = kind(row.metric), row.value
    assert value is not None
    low, high = limits.low, limits.high
    if (low is not None and value < low) or (high is not None and value > high):
        error = UserError(f"{row.metric} lies between {low:g} and {high:g}", value=value,
                          fix="13% is 0.13")  # fmt: skip
        raise Mistake(("value",), error)
    if not row.corpus:
        return
    if row.corpus not in amounts:
        raise Mistake(("corpus",), UnknownName("corpus", row.corpus, amounts))
    if row.amount not in amounts[row.corpus]:
        has = ", ".join(map(amount_label, sorted(amounts[row.corpus])))
        error = UserError(f"no amount of {row.corpus} in the study", value=row.amount,
                          fix=f"amounts: {has}")  # fmt: skip
        raise Mistake(("amount",), error)
    if row.seed is not None and row.seed not in seeds:
        raise Mistake(("seed",), UserError("no seed of the study", value=row.seed))


def check_rows(
    rows: Sequence[Published],
    amounts: Mapping[str, Sequence[int]],
    tasks: Collection[str],
    seeds: Sequence[int],
) -> None:
    """`check` of the rows of a study file, with their places in it."""
    for i, row in enumerate(rows):
        try:
            check(row, amounts, tasks, seeds)
        except Mistake as mistake:
            raise Mistake(("reported", i, *mistake.where), mistake.error) from None
