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

    `submission` is the provider's id of this visit, `preview` a look without rating, and `extra`
    what the door needs again at the end.
    """

    worker: str
    submission: str = ""
    preview: bool = False
    extra: Mapping[str, str] = field(default_factory=dict)


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

    def arrive(self, query: Mapping[str, str]) -> Arrival:
        """Who comes in; raises NotAdmitted with a line for the person."""

    def finish(self, arrival: Arrival) -> Finish:
        """How the visit ends."""
