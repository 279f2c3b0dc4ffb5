"""The file of a task that a teacher makes examples of: task.yaml in a folder of its own."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, model_validator

from epigone.errors import UserError
from epigone.study.values import Declared, Mistake, Name

NAME = "task.yaml"


class Seed(Declared):
    """An example that a person wrote."""

    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)


class TaskFile(Declared):
    """What a teacher is told of a task, what its answers must be, and what a student is asked."""

    name: Name
    version: int = Field(default=1, ge=1, description="raise it where examples change their sense")
    description: str = Field(min_length=1, description="what the teacher is told of the task")
    question: str = Field(
        default="Question", min_length=1, description="what the first half of an example is called"
    )
    answer: str = Field(default="Answer", min_length=1, description="and the second half")
    seeds: list[Seed] = Field(min_length=2, description="examples to begin with")
    prompt: str = Field(
        default="{{question}}", description="what a student is asked, with {{question}} in it"
    )
    longest_answer: int = Field(default=0, ge=0, description="most words of an answer; 0 for any")
    validator: str = Field(
        default="", description="FILE.py:function, or module:function, of question and answer; "
        "it returns what is wrong, or nothing"
    )  # fmt: skip
    answer_schema: dict[str, Any] = Field(
        default_factory=dict, alias="schema", description="JSON schema that answers follow"
    )

    @model_validator(mode="after")
    def _sound(self) -> TaskFile:
        if "{{question}}" not in self.prompt:
            error = UserError("a prompt without its question", value=self.prompt[:80],
                              fix="write {{question}} where it goes")  # fmt: skip
            raise Mistake(("prompt",), error)
        if other := set(re.findall(r"\{\{(\w+)\}\}", self.prompt)) - {"question"}:
            error = UserError("a place that nothing fills", value=f"{{{{{min(other)}}}}}",
                              fix="a prompt has {{question}} alone")  # fmt: skip
            raise Mistake(("prompt",), error)
        if self.question.strip().lower() == self.answer.strip().lower():
            error = UserError("question and answer have one name", value=self.answer)
            raise Mistake(("answer",), error)
        if self.validator and ":" not in self.validator:
            error = UserError("not a validator", value=self.validator,
                              fix="FILE.py:function or module:function")  # fmt: skip
            raise Mistake(("validator",), error)
        return self
