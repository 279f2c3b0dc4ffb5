"""Feedback in a study: students trained further on what a teacher said of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from epigone.errors import UnknownName, UserError
from epigone.study.specs import FeedbackSpec
from epigone.study.values import (
    Amount,
    Declared,
    Mistake,
    Share,
    Source,
    amount_label,
    by_reference,
)

# Peak learning rates where a study names none; the other defaults stand in FeedbackSpec.
RATES = {"dpo": 5e-7, "revise": 1e-5}


def _unless(name: str) -> str:
    return f"{FeedbackSpec.model_fields[name].default:g} unless named"


class Judged(Source):
    """Answers that a teacher judged: pairs of a better and a worse one, rankings, revisions."""

    teacher: str = Field(default="", description="who judged; the study's teacher unless named")


class Feedback(Declared):
    """One more training after imitation, on preferences (dpo) or on revised answers (revise)."""

    method: Literal["dpo", "revise"] = Field(description="from ranked pairs, or from revisions")
    sources: list[
        Annotated[Judged, BeforeValidator(by_reference, json_schema_input_type=str | Judged)]
    ] = Field(alias="from", min_length=1, description="files of judged answers")
    after: str | None = Field(
        default=None, description="corpus whose student goes on; the untrained base unless named"
    )
    amount: Amount | None = Field(
        default=None, description="which student of the corpus; the largest unless named"
    )
    lr: float | None = Field(
        default=None, gt=0, description=f"peak learning rate; {RATES['dpo']:g} for dpo, "
        f"{RATES['revise']:g} for revise"
    )  # fmt: skip
    beta: float | None = Field(
        default=None, gt=0, description=f"how close dpo stays to its start; {_unless('beta')}"
    )
    epochs: int | None = Field(
        default=None, ge=1, description=f"times over the data; {_unless('epochs')}"
    )
    batch: int | None = Field(
        default=None, ge=1, description=f"pairs or revisions a step; {_unless('batch')}"
    )
    block: int | None = Field(
        default=None, ge=16, description=f"most tokens of one of them; {_unless('block')}"
    )
    warmup: Annotated[Share, Field(ge=0, lt=1)] | None = Field(
        default=None, description=f"share of the steps, as 0.1 or 10%; {_unless('warmup')}"
    )

    @model_validator(mode="after")
    def _fitting(self) -> Feedback:
        if self.method == "revise" and self.beta is not None:
            error = UserError("revise has no beta", value=self.beta, fix="method: dpo has")
            raise Mistake(("beta",), error)
        if self.after is None and self.amount is not None:
            error = UserError("an amount of no corpus", value=self.amount, fix="name it with after")
            raise Mistake(("amount",), error)
        return self

    def settings(self) -> dict[str, Any]:
        """What of a FeedbackSpec this study decides, the method's learning rate filled in."""
        names = set(FeedbackSpec.model_fields) & set(Feedback.model_fields) - {"amount", "sources"}
        own = {name: value for name in names if (value := getattr(self, name)) is not None}
        own = {"lr": RATES[self.method]} | own
        floats = ("lr", "beta", "warmup")
        return own | {name: float(own[name]) for name in floats if name in own}


def check_feedback(feedback: Mapping[str, Feedback], amounts: Mapping[str, Sequence[int]]) -> None:
    """Raise Mistake for feedback after a student that the study does not have."""
    for name, one in feedback.items():
        where = ("feedback", name)
        if one.after is not None and one.after not in amounts:
            raise Mistake((*where, "after"), UnknownName("corpus", one.after, amounts))
        if one.after is not None and one.amount not in (None, *amounts[one.after]):
            known = ", ".join(amount_label(a) for a in sorted(amounts[one.after]))
            error = UserError(
                f"no student of corpus {one.after!r} has this amount",
                value=amount_label(one.amount or 0),
                fix=f"known: {known}",
            )
            raise Mistake((*where, "amount"), error)
