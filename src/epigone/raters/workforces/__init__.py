"""How raters of a workforce come in and go out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from epigone.schema import Workforce


class NotAdmitted(Exception):
    """Somebody cannot come in; the message is a line for that person."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Somebody who comes in: `worker` is the provider's id of a person.

    `submission` is the provider's id of this visit, `preview` a look without rating.
    """

    worker: str
    submission: str = ""
    preview: bool = False


@dataclass(frozen=True, slots=True)
class Finish:
    """What ends a visit: a text, a way back to the provider, or a form that is posted there."""

    kind: Literal["message", "redirect", "post"]
    url: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    text: str = ""


class Door(Protocol):
    """How raters of one workforce come in and go out."""

    workforce: Workforce
    frame_ancestors: tuple[str, ...]

    @property
    def blind(self) -> bool:
        """Whether nobody but who comes says who it is: names can be made up."""

    def arrive(self, query: Mapping[str, str]) -> Arrival:
        """Who comes in; raises NotAdmitted with a line for the person."""

    def finish(self, arrival: Arrival, answers: int, excluded: bool) -> Finish:
        """How the visit ends, of somebody with so many answers, or who was excluded."""


def unpaid(answers: int, excluded: bool) -> Finish | None:
    """What ends a visit that a platform should not pay for; None where it was work."""
    if excluded:
        return Finish("message", text="You cannot rate here any more. Please return this task on "
                      "the page that you came from, or write to who runs it.")  # fmt: skip
    if not answers:
        return Finish("message", text="You have rated nothing on this visit. Please return this "
                      "task on the page that you came from, or come again later.")  # fmt: skip
    return None
