"""What the doctor's checks are, and how they run side by side with a limit of time for each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from epigone.errors import UserError

State = Literal["ok", "note", "problem"]
# What a study may need of the machine and the network.
Need = Literal["", "index", "hub", "sandbox"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: how it is, what was found, and what to do about it.

    A note becomes a problem where a study has the need.
    """

    section: str
    name: str
    state: State
    found: str
    fix: str = ""
    need: Need = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """Finds checks within `seconds`; `late` is what is told of one that does not."""

    find: Callable[[], Sequence[Check]]
    seconds: float
    late: Check


def side_by_side(probes: Sequence[Probe]) -> list[Check]:
    """What the probes found, in their order; a probe that hangs is left behind."""
    found: dict[int, Sequence[Check]] = {}

    def run(number: int, probe: Probe) -> None:
        found[number] = probe.find()

    # Threads that nobody waits for at the end: a name server or a dead disk answers when it likes.
    threads = [
        threading.Thread(target=run, args=(number, probe), daemon=True)
        for number, probe in enumerate(probes)
    ]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread, probe in zip(threads, probes, strict=True):
        thread.join(max(0.0, begun + probe.seconds - time.monotonic()))
    there = dict(found)
    return [
        check for number, probe in enumerate(probes) for check in there.get(number, (probe.late,))
    ]


def refused(section: str, name: str, error: UserError, state: State = "problem") -> Check:
    """The check that a refusal is, with its own fix."""
    return Check(section, name, state, str(UserError(error.what, value=error.value)), error.fix)
