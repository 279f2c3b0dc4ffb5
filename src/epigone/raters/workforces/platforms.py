"""The doors of crowdsourcing platforms, and who of those who came the platform knows."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from epigone.raters import people
from epigone.raters.quality import FAILED, proposed, right
from epigone.raters.store import Store
from epigone.raters.tables import Comparison, Task, Worker
from epigone.raters.workforces import (
    Arrival,
    Door,
    mturk,
    mturk_client,
    prolific,
    prolific_client,
    prolific_wire,
)
from epigone.schema import Workforce

# What a person waits for a platform, before the page says that it cannot be asked: each holds one
# of the site's threads, so nothing is tried again and no answer is slept for.
_SECONDS, _ATTEMPTS = 5.0, 1


@dataclass(frozen=True, slots=True)
class Came:
    """Somebody who came with a submission: opaque name, its answers, what speaks against them.

    An excluded rater's answers do not count.
    """

    rater: str
    worker: str
    submission: str
    answers: int
    excluded: bool
    against: tuple[str, ...]


def doors(
    store: Store, prolific_file: Path | None = None, mturk_file: Path | None = None
) -> tuple[list[Door], list[str]]:
    """The doors whose settings are given, and the names of those that cannot check who comes.

    A door asks its platform where the environment holds a token or keys for it.
    """
    found: list[Door] = []
    if prolific_file is not None:
        settings, asked = prolific_client.Settings.read(prolific_file), None
        if os.environ.get(prolific_wire.TOKEN):
            asked = prolific_client.Client(seconds=_SECONDS, attempts=_ATTEMPTS)
        found.append(prolific.Prolific(settings, asked, lambda a: failed(store, "prolific", a)))
    if mturk_file is not None:
        hit = mturk_client.Settings.read(mturk_file)
        amazon = None
        if mturk_client.has_keys():
            amazon = mturk_client.Client(live=hit.live, seconds=_SECONDS, attempts=_ATTEMPTS)
        found.append(mturk.MTurk(hit, amazon))
    return found, [door.workforce for door in found if door.blind]


def failed(store: Store, workforce: Workforce, arrival: Arrival) -> bool:
    """Whether somebody failed as many attention checks as would propose an exclusion."""
    query = (
        select(Task.preference, Comparison.expected)
        .join(Comparison, Comparison.id == Task.comparison_id)
        .join(Worker, Worker.rater_id == Task.rater_id)
        .where(Worker.workforce == workforce, Worker.worker == arrival.worker)
        .where(Comparison.purpose == "attention", Task.state == "done")
    )
    rows = store.read(lambda session: session.execute(query).all())
    return sum(not right(said, expected) for said, expected in rows) >= FAILED


def came(store: Store, workforce: Workforce) -> list[Came]:
    """Everybody who came from a platform, once for each submission, in the order of arrival."""
    against: dict[str, list[str]] = {}
    for proposal in proposed(list(people.ratings(store))):
        against.setdefault(proposal.rater, []).append(proposal.reason)
    return [
        Came(rater, stay.arrival.worker, stay.arrival.submission, stay.answers, stay.excluded,
             tuple(against.get(rater, ())))
        for rater, stay in people.visits(store, workforce)
    ]  # fmt: skip


def strangers(
    who: list[Came], known: Mapping[str, str], working: Callable[[str], bool] = lambda one: False
) -> list[Came]:
    """Those whose submission the platform does not know, or knows as another worker's.

    `known` maps the platform's submissions to its workers; a platform that tells of submissions
    only at their end is asked whether one is being `working` on.
    """
    return [
        c
        for c in who
        if known.get(c.submission) != c.worker
        and (c.submission in known or not working(c.submission))
    ]
