"""The judge in a study: a model that compares and marks answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from epigone.errors import UserError
from epigone.study.teacher import Endpoint, named_endpoint
from epigone.study.values import Declared, Mistake, Name, Reference

Protocol = Literal["pairwise", "score", "tone", "correct"]
# pairwise and score compare two answers; tone and correct look at one.
PROTOCOLS: tuple[Protocol, ...] = ("pairwise", "score", "tone", "correct")
COMPARING: tuple[Protocol, ...] = ("pairwise", "score")


def second_of(teacher: str) -> str:
    """The name under which the teacher's second answers are judged beside its first."""
    return f"{teacher} (second sample)"


class Judge(Declared):
    """Who judges the answers to the held-out prompts, and how."""

    endpoint: Annotated[
        Endpoint, BeforeValidator(named_endpoint, json_schema_input_type=str | Endpoint)
    ] = Field(description="where the judge answers: endpoint:https://host/v1#model, or more")
    name: Name | None = Field(
        default=None, description="what the judge is called; its model's name unless named"
    )
    protocols: list[Protocol] = Field(
        default=["pairwise"], min_length=1, description=", ".join(PROTOCOLS)
    )
    both_orders: Literal[True] = Field(
        default=True, description="every pair is judged in both orders, always"
    )
    against: Literal["teacher", "all"] = Field(
        default="teacher", description="whom models are compared with: the teacher, or one another"
    )
    n: int | None = Field(default=None, ge=1, description="prompts judged; all unless named")
    rubric: Reference | None = Field(
        default=None, description="file of rubrics of your own, by protocol"
    )
    references: Reference | None = Field(
        default=None, description="JSONL of right answers by item, for correct"
    )
    max_tokens: int = Field(default=512, ge=1, description="longest verdict with its reason")
    tries: int = Field(default=3, ge=1, le=10, description="asked so often before it is missing")

    @model_validator(mode="after")
    def _fitting(self) -> Judge:
        for i, protocol in enumerate(self.protocols):
            if protocol in self.protocols[:i]:
                raise Mistake(("protocols", i), UserError("named twice", value=protocol))
        if self.references is not None and "correct" not in self.protocols:
            fix = "protocols: [pairwise, correct]"
            error = UserError("only correct takes references", value=self.references, fix=fix)
            raise Mistake(("references",), error)
        if self.against == "all" and not set(self.protocols) & set(COMPARING):
            error = UserError("nothing is compared", value=self.against, fix="add pairwise")
            raise Mistake(("against",), error)
        return self

    @property
    def called(self) -> str:
        """The judge's name in tables and files."""
        return self.name or self.endpoint.model
