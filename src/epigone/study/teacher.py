"""The teacher in a study file, and what it is asked for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from epigone.errors import UserError
from epigone.study.specs import BY_STUDENTS, SELECTED, MeansSpec, Select
from epigone.study.values import Declared, Mistake, Name, Reference

# What a teacher can be asked for by name; any other one is a folder with a task.yaml.
ANSWERS, TLDR = "answers", "tldr"


class Reported(Declared):
    """A teacher's published score, as a share between 0 and 1, and who published it."""

    value: float = Field(ge=0, le=1, description="score as a share, 0.70 for 70%")
    source: str = Field(min_length=1, description="publication the value was taken from")


class Endpoint(Declared):
    """Where the teacher answers, where more is to be said than endpoint:https://host/v1#model."""

    url: str = Field(description="OpenAI-compatible, up to /v1")
    model: str = Field(min_length=1, description="the model's name there")
    key_env: str = Field(
        default="EPIGONE_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="the variable that holds the key",
    )  # fmt: skip
    price: list[float] | None = Field(
        default=None, min_length=2, max_length=2,
        description="US dollars for a million tokens of prompts and of answers",
    )  # fmt: skip
    requests_per_minute: float = Field(default=0, ge=0, description="0 for what it tells itself")
    tokens_per_minute: float = Field(default=0, ge=0, description="prompts and answers")
    concurrency: int = Field(default=32, ge=1, description="requests at once")
    batch: bool = Field(default=False, description="ask by its Batch API, for half the price")

    @field_validator("price")
    @classmethod
    def _no_less_than_nothing(cls, value: list[float] | None) -> list[float] | None:
        if value is not None and min(value) < 0:
            raise ValueError("a price is no less than 0")
        return value

    @property
    def ref(self) -> str:
        """The endpoint as a reference."""
        return f"endpoint:{self.url}#{self.model}"

    def means(self) -> MeansSpec:
        """How it may be asked."""
        told = self.model_dump(exclude={"url", "model", "price"})
        price = None if self.price is None else f"{self.price[0]!r},{self.price[1]!r}"
        return MeansSpec(price=price, **told)


def named_endpoint(value: object) -> object:
    """An endpoint of which only the reference is said."""
    if not isinstance(value, str):
        return value
    scheme, _, rest = value.partition(":")
    url, _, model = rest.partition("#")
    if scheme != "endpoint" or not model:
        fix = "write endpoint:https://host/v1#model"
        # What stands before an @ may be a password, which nobody is told.
        shown = value.rpartition("@")[2]
        raise Mistake((), UserError("not an endpoint", value=shown, fix=fix))
    return {"url": url, "model": model}


class Teacher(Declared):
    """The model that is imitated."""

    name: Name = Field(description="what the teacher is called in tables and figures")
    recorded: Literal[True] = Field(default=True, description="its outputs lie in files")
    terms: str = Field(default="", description="what its outputs may be used for")
    endpoint: (
        Annotated[Endpoint, BeforeValidator(named_endpoint, json_schema_input_type=str | Endpoint)]
        | None
    ) = Field(
        default=None, description="where it answers what is measured and what it is asked for: "
        "endpoint:https://host/v1#model, or more",
    )  # fmt: skip
    second: Reference | None = Field(
        default=None,
        description="its second answers to held-out prompts, JSONL; else its endpoint is asked",
    )  # fmt: skip
    reported: dict[str, Reported] = Field(
        default_factory=dict, description="published scores by benchmark; never guessed"
    )


class Synthesis(Declared):
    """What a teacher is asked for, where more is to be said than the task's name."""

    task: str = Field(
        min_length=1, description="answers, nq, tldr, or a folder with a task.yaml of your own"
    )
    prompts: Reference | None = Field(
        default=None, description="of answers: prompts or dialogues; of tldr: passages"
    )
    seeds: Reference | None = Field(default=None, description="JSONL of pairs to begin with")
    system: str = Field(default="", description="of answers: system prompt")
    turns: int = Field(default=0, ge=0, description="of answers: most turns of a user; 0 for all")
    select: Select = Field(
        default="random", description="of answers: which prompts are asked, " + ", ".join(SELECTED)
    )
    rounds: int = Field(
        default=1, ge=1, le=100, description="of answers: ask, train, select so often"
    )
    shown: int = Field(default=5, ge=1, description="examples that each request shows")
    each: int = Field(default=5, ge=1, description="new ones that it asks for")
    max_tokens: int | None = Field(default=None, ge=1, description="longest answer")
    temperature: float | None = Field(
        default=None, ge=0, le=10, description="the endpoint's own unless named"
    )
    top_p: float | None = Field(
        default=None, gt=0, le=1, description="the endpoint's own unless named"
    )
    keep_cut: bool = Field(default=False, description="answers that end at max_tokens count")
    draw: int = Field(default=0, ge=0, description="seed of the prompts and examples drawn")
    seed: int | None = Field(default=None, ge=0, description="sent along with each request")

    @model_validator(mode="after")
    def _fitting(self) -> Synthesis:
        reads = self.task in (ANSWERS, TLDR)
        if reads and self.prompts is None:
            error = UserError(f"{self.task} needs prompts", fix="name their file")
            raise Mistake(("task",), error)
        answers = self.task == ANSWERS
        only = {
            "prompts": reads, "seeds": not reads, "shown": not reads, "each": not reads,
            "keep_cut": reads, "system": answers, "turns": answers, "select": answers,
            "rounds": answers,
        }  # fmt: skip
        for name, takes in only.items():
            if not takes and name in self.model_fields_set:
                error = UserError(f"{self.task} takes no {name}", value=getattr(self, name))
                raise Mistake((name,), error)
        if self.select in BY_STUDENTS and self.rounds == 1:
            error = UserError("a student can select from its second round on", value=self.select,
                              fix="rounds: 2, or more")  # fmt: skip
            raise Mistake(("select",), error)
        if self.select == "random" and self.rounds > 1:
            error = UserError("rounds at random are one round", value=self.rounds,
                              fix="select: loss, disagreement or diversity")  # fmt: skip
            raise Mistake(("rounds",), error)
        return self


def by_task_name(value: object) -> object:
    """A synthesis of which only the task is said."""
    return {"task": value} if isinstance(value, str) else value
