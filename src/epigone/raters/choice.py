"""Which comparison a rater gets next: training, a check now and then, what needs votes most."""

from __future__ import annotations

import hmac
import random
from collections.abc import Sequence
from typing import Literal, NamedTuple

from sqlalchemy import BigInteger, exists, func, select
from sqlalchemy import cast as sql_cast
from sqlalchemy.orm import Session, aliased

from epigone.raters.tables import Comparison, Plan, Task
from epigone.schema import Purpose

_PRIME = 2_147_483_647
_CHECKS: tuple[Purpose, ...] = ("gold", "attention")


class Past(NamedTuple):
    """A task that a rater has, or had, with what it is of."""

    id: int
    public: str
    comparison: int
    left: str
    state: str
    opened: float
    voted: float | None
    expires: float
    purpose: str


def choose(
    session: Session, plan: Plan, rater: int, name: str, past: Sequence[Past]
) -> tuple[Purpose, int] | None:
    """What the next task is for, and its comparison; None where nothing is left to rate.

    Nobody is trained or checked for nothing: first it is seen whether there is an item.
    """
    item = _item(session, plan, rater, name) if rated(past) < plan.per_rater else None
    if item is None:
        return None
    training = _training(session, past)
    if training is not None:
        return "training", training
    check = _check(session, plan, name, past)
    return ("item", item) if check is None else ("gold", check)


def rated(past: Sequence[Past]) -> int:
    """How many items a rater has rated, or has in hand."""
    return sum(task.purpose == "item" and task.state != "lapsed" for task in past)


def unseen(session: Session, rater: int, most: int, *, below: int = 0, held: bool = False) -> int:
    """How many prompts, up to `most`, a rater has not seen and could rate.

    Those of which a comparison has fewer than `below` slots taken; or those `held` by somebody else
    who has not voted.
    """
    if most < 1:
        return 0
    mine = aliased(Comparison)
    seen = (
        select(Task.id)
        .join(mine, mine.id == Task.comparison_id)
        .where(Task.rater_id == rater, mine.purpose == "item", mine.item == Comparison.item)
    )
    busy = select(Task.id).where(Task.comparison_id == Comparison.id, Task.state == "open")
    free = exists(busy) if held else Comparison.taken < below
    query = select(Comparison.item).where(Comparison.purpose == "item", ~exists(seen), free)
    return len(session.scalars(query.distinct().limit(most)).all())


def side(plan: Plan, rater: str, comparison: int) -> Literal["a", "b"]:
    """Which output stands on the left for this rater: a coin that falls the same way again."""
    return "a" if _keyed(plan, "side", rater, comparison)[0] & 1 else "b"


def _checked_at(plan: Plan, name: str, place: int) -> bool:
    """Whether the rater is checked at a place, counted from 0 after training."""
    block, inside = divmod(place, plan.check_every + 1)
    drawn = random.Random(_keyed(plan, "check", name, block)).randrange(plan.check_every + 1)
    return inside == drawn


def length(plan: Plan, name: str, items: int, checks: int) -> int:
    """How many tasks a rater sees until so many items are done."""
    place = given = 0
    while place - given < items:
        given += bool(plan.check_every and given < checks and _checked_at(plan, name, place))
        place += 1
    return place


def _training(session: Session, past: Sequence[Past]) -> int | None:
    seen = {task.comparison for task in past}
    every = select(Comparison.id).where(Comparison.purpose == "training").order_by(Comparison.id)
    return next((id for id in session.scalars(every) if id not in seen), None)


def _check(session: Session, plan: Plan, name: str, past: Sequence[Past]) -> int | None:
    """A gold or attention task, at one place drawn in every block of `check_every` items."""
    place = sum(task.state == "done" and task.purpose != "training" for task in past)
    if not plan.check_every or not _checked_at(plan, name, place):
        return None
    seen = {task.comparison for task in past}
    every = select(Comparison.purpose, Comparison.id).where(Comparison.purpose.in_(_CHECKS))
    left = [(purpose, id) for purpose, id in session.execute(every) if id not in seen]
    # Attention first: a few of them condemn, and with the default plan there are three checks.
    _, found = min(left, key=lambda of: (of[0] != "attention", _keyed(plan, "gold", name, of[1])),
                   default=("", None))  # fmt: skip
    return found


def _item(session: Session, plan: Plan, rater: int, name: str) -> int | None:
    """The comparison that needs this rater most.

    First come the models that have been rated least, then the comparison that has. A rater never
    gets a second comparison of one prompt: the output seen twice would be the teacher's.
    """
    pair = (Comparison.a, Comparison.b)
    totals = session.execute(
        select(*pair, func.sum(Comparison.taken), func.count())
        .where(Comparison.purpose == "item")
        .group_by(*pair)
    ).all()
    seen = (
        select(Comparison.item)
        .join(Task, Task.comparison_id == Comparison.id)
        .where(Task.rater_id == rater, Comparison.purpose == "item")
    )
    # An order of each rater's own among equals: multiples of a number modulo a prime.
    drawn = int.from_bytes(_keyed(plan, "item", name)[:4], "big") % (_PRIME - 1) + 1
    mixed = sql_cast(Comparison.id, BigInteger) * drawn % _PRIME
    for a, b, *_ in sorted(totals, key=lambda row: (row[2] / row[3], row[0], row[1])):
        found = session.scalar(
            select(Comparison.id)
            .where(Comparison.purpose == "item", Comparison.a == a, Comparison.b == b)
            .where(Comparison.taken < plan.per_item, Comparison.item.not_in(seen))
            .order_by(Comparison.taken, mixed)
            .limit(1)
        )
        if found is not None:
            return found
    return None


def _keyed(plan: Plan, *what: str | int) -> bytes:
    """Bytes that nobody can foresee without the plan's key, and that are the same every time."""
    return hmac.digest(bytes.fromhex(plan.key), repr(what).encode(), "sha256")
