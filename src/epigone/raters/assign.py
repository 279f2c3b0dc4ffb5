"""Who rates what next: k raters an item, no one twice, nothing held for good by a drop-out."""

from __future__ import annotations

import hmac
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import BigInteger, func, outerjoin, select, update
from sqlalchemy import cast as sql_cast
from sqlalchemy.orm import Session

from epigone.raters.store import Store
from epigone.raters.tables import Comparison, Plan, Rater, Task, Vote
from epigone.schema import Purpose

REASONS = ("correct", "complete", "clear", "style", "safe")
MAX_COMMENT = 2000
_PRIME = 2_147_483_647
_CHECKS: tuple[Purpose, ...] = ("gold", "attention")


class TaskGone(Exception):
    """The task is not this rater's, is settled, or was given to somebody else."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A task as its page needs it: nothing in it says which model is where."""

    id: str
    prompt: Sequence[dict[str, str]]
    left: str
    right: str
    training: bool
    preference: int | None = None
    reasons: tuple[str, ...] = ()
    comment: str = ""
    expected: int | None = None
    feedback: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rater is: tasks done, and how many there will be."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Ballot:
    """A vote as it is given: `preference` is 2 where the left output is better, -2 the right."""

    preference: int
    reasons: tuple[str, ...] = ()
    comment: str = ""
    visible: float | None = None


def next_task(store: Store, rater: int, now: float) -> Shown | None:
    """The rater's open task, else a new one; None where nothing is left for this rater.

    Handing out is one transaction at a time, and the database refuses a slot that is taken.
    """

    def fresh(session: Session) -> Shown | None:
        held = select(Task).where(Task.rater_id == rater, Task.state == "open")
        found = session.scalar(held.where(Task.expires > now + session.get_one(Plan, 1).lease / 2))
        return None if found is None else _shown(session, found)

    def work(session: Session) -> Shown | None:
        store.lock(session)
        found = _next(session, rater, now)
        return None if found is None else _shown(session, found)

    return store.read(fresh) or store.write(work)


def cast(store: Store, rater: int, public: str, ballot: Ballot, now: float) -> bool:
    """Count a vote, or change the last one, and take the next task; True for training's.

    The same vote again changes nothing. Raises TaskGone for a task that is not open to the rater:
    another's, one before the last, or one whose lease ran out and that others have rated since.
    """

    def work(session: Session) -> bool:
        store.lock(session)
        task = _mine(session, rater, public)
        purpose = session.get_one(Comparison, task.comparison_id).purpose
        signed = ballot.preference if task.left == "a" else -ballot.preference
        if task.state == "lapsed" and not _slot_back(session, session.get_one(Plan, 1), task):
            raise TaskGone
        if task.state == "done":
            if purpose == "training":
                return True  # it has been answered, and the answer was shown
            if task.id != _last(session, rater):
                raise TaskGone
            same = (task.preference, tuple(task.reasons), task.comment)
            if same == (signed, ballot.reasons, ballot.comment):
                return False
        else:
            task.voted = now
            task.seconds = max(0.0, now - task.opened)
        if ballot.visible is not None and task.seconds is not None:
            task.visible = min(max(0.0, ballot.visible), task.seconds)
        task.state, task.preference = "done", signed
        task.reasons, task.comment = list(ballot.reasons), ballot.comment
        session.add(Vote(task_id=task.id, at=now, preference=signed, reasons=task.reasons,
                         comment=task.comment))  # fmt: skip
        # In the same transaction: the disk is waited for once a vote.
        session.flush()
        _next(session, rater, now)
        return purpose == "training"

    return store.write(work)


def previous(store: Store, rater: int) -> Shown | None:
    """The vote that the rater may still change: the last one."""

    def work(session: Session) -> Shown | None:
        last = _last(session, rater)
        return None if last is None else _shown(session, session.get_one(Task, last))

    return store.read(work)


def has_voted(store: Store, rater: int) -> bool:
    """Whether there is a vote that the rater may still change."""
    return store.read(lambda session: _last(session, rater)) is not None


def answered(store: Store, rater: int, public: str) -> Shown:
    """A training task that was answered, with what was expected; raises TaskGone for others."""

    def work(session: Session) -> Shown:
        task = session.scalar(select(Task).where(Task.public == public, Task.rater_id == rater))
        shown = None if task is None or task.state != "done" else _shown(session, task)
        if shown is None or not shown.training:
            raise TaskGone
        return shown

    return store.read(work)


def progress(store: Store, rater: int) -> Progress:
    """How many tasks the rater has done after training, and how many it will be."""

    def work(session: Session) -> Progress:
        plan = session.get_one(Plan, 1)
        done = _count(session, rater, ("item", *_CHECKS), ("done",))
        name = session.get_one(Rater, rater).public
        total = _length(plan, name, min(plan.per_rater, plan.items), plan.checks)
        return Progress(done, max(done, total))

    return store.read(work)


def side(plan: Plan, rater: str, comparison: int) -> Literal["a", "b"]:
    """Which output stands on the left for this rater: a coin that falls the same way again."""
    return "a" if _keyed(plan, "side", rater, comparison)[0] & 1 else "b"


def lapse(session: Session, now: float) -> None:
    """Free the slots of tasks whose lease has run out."""
    session.execute(
        update(Task)
        .where(Task.state == "open", Task.expires < now)
        .values(state="lapsed", slot=None)
    )


def free_slot(session: Session, comparison: int, per_item: int) -> int | None:
    """The lowest slot of a comparison that nobody holds."""
    used = set(session.scalars(select(Task.slot).where(Task.comparison_id == comparison)))
    return next((slot for slot in range(per_item) if slot not in used), None)


def _next(session: Session, rater: int, now: float) -> Task | None:
    plan, who = session.get_one(Plan, 1), session.get_one(Rater, rater)
    if who.excluded or who.revoked is not None:
        return None
    return _held(session, plan, rater, now) or _new(session, plan, rater, now)


def _held(session: Session, plan: Plan, rater: int, now: float) -> Task | None:
    """The task that the rater has not finished, with its lease renewed."""
    lapse(session, now)
    tasks = session.scalars(
        select(Task)
        .where(Task.rater_id == rater, Task.state.in_(("open", "lapsed")))
        .order_by(Task.state.desc(), Task.id)
    )
    for task in tasks:
        if task.state == "lapsed":
            if not _slot_back(session, plan, task):
                continue
            task.state, task.opened = "open", now
        task.expires = now + plan.lease
        return task
    return None


def _new(session: Session, plan: Plan, rater: int, now: float) -> Task | None:
    name = session.get_one(Rater, rater).public
    chosen = _training(session, rater) or _check(session, plan, rater, name)
    slot = None
    if chosen is None:
        chosen = _item(session, plan, rater, name)
        if chosen is None:
            return None
        slot = free_slot(session, chosen, plan.per_item)
    task = Task(
        public=secrets.token_urlsafe(15), rater_id=rater, comparison_id=chosen, slot=slot,
        left=side(plan, name, chosen), state="open", opened=now, expires=now + plan.lease,
        reasons=[], comment="",
    )  # fmt: skip
    session.add(task)
    session.flush()
    return task


def _training(session: Session, rater: int) -> int | None:
    return session.scalar(
        select(Comparison.id)
        .where(Comparison.purpose == "training", Comparison.id.not_in(_seen(rater)))
        .order_by(Comparison.id)
        .limit(1)
    )


def _check(session: Session, plan: Plan, rater: int, name: str) -> int | None:
    """A gold or attention task, at one place drawn in every block of `check_every` items."""
    if not plan.check_every:
        return None
    place = _count(session, rater, ("item", *_CHECKS), ("done",))
    rated = _count(session, rater, ("item",), ("open", "done"))
    if rated >= plan.per_rater or not _checked_at(plan, name, place):
        return None
    left = session.scalars(
        select(Comparison.id).where(
            Comparison.purpose.in_(_CHECKS), Comparison.id.not_in(_seen(rater))
        )
    )
    return min(left, key=lambda id: _keyed(plan, "gold", name, id), default=None)


def _checked_at(plan: Plan, name: str, place: int) -> bool:
    """Whether the rater is checked at a place, counted from 0 after training."""
    block, inside = divmod(place, plan.check_every + 1)
    drawn = random.Random(_keyed(plan, "check", name, block)).randrange(plan.check_every + 1)
    return inside == drawn


def _length(plan: Plan, name: str, items: int, checks: int) -> int:
    """How many tasks a rater sees until so many items are done."""
    place = given = 0
    while place - given < items:
        given += bool(plan.check_every and given < checks and _checked_at(plan, name, place))
        place += 1
    return place


def _item(session: Session, plan: Plan, rater: int, name: str) -> int | None:
    """The comparison that needs this rater most.

    First come the models that have been rated least, then the comparison that has. A rater never
    gets a second comparison of one prompt: the output seen twice would be the teacher's.
    """
    if _count(session, rater, ("item",), ("open", "done")) >= plan.per_rater:
        return None
    taken = func.count(Task.slot)
    joined = outerjoin(Comparison, Task, Task.comparison_id == Comparison.id)
    totals = session.execute(
        select(Comparison.a, Comparison.b, taken, func.count(func.distinct(Comparison.id)))
        .select_from(joined)
        .where(Comparison.purpose == "item")
        .group_by(Comparison.a, Comparison.b)
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
            .select_from(joined)
            .where(Comparison.purpose == "item", Comparison.a == a, Comparison.b == b)
            .where(Comparison.item.not_in(seen))
            .group_by(Comparison.id)
            .having(taken < plan.per_item)
            .order_by(taken, mixed)
            .limit(1)
        )
        if found is not None:
            return found
    return None


def _mine(session: Session, rater: int, public: str) -> Task:
    found = session.scalar(select(Task).where(Task.public == public, Task.rater_id == rater))
    who = session.get_one(Rater, rater)
    if found is None or who.excluded or who.revoked is not None:
        raise TaskGone
    return found


def _slot_back(session: Session, plan: Plan, task: Task) -> bool:
    if session.get_one(Comparison, task.comparison_id).purpose != "item":
        return True
    rated = _count(session, task.rater_id, ("item",), ("open", "done"))
    slot = free_slot(session, task.comparison_id, plan.per_item)
    if slot is None or rated >= plan.per_rater:
        return False
    task.slot = slot
    return True


def _last(session: Session, rater: int) -> int | None:
    return session.scalar(
        select(Task.id)
        .join(Comparison, Comparison.id == Task.comparison_id)
        .where(Task.rater_id == rater, Task.state == "done", Comparison.purpose != "training")
        .order_by(Task.voted.desc(), Task.id.desc())
        .limit(1)
    )


def _shown(session: Session, task: Task) -> Shown:
    found = session.get_one(Comparison, task.comparison_id)
    turn = 1 if task.left == "a" else -1
    texts = (found.a_text, found.b_text)[::turn]
    training = found.purpose == "training"
    told = training and task.state == "done" and found.expected is not None
    return Shown(
        task.public, found.prompt, texts[0], texts[1], training,
        None if task.preference is None else turn * task.preference,
        tuple(task.reasons), task.comment,
        turn * (found.expected or 0) if told else None, found.feedback if told else "",
    )  # fmt: skip


def _seen(rater: int) -> Any:
    return select(Task.comparison_id).where(Task.rater_id == rater)


def _count(session: Session, rater: int, purposes: Sequence[str], states: Sequence[str]) -> int:
    return (
        session.scalar(
            select(func.count())
            .select_from(Task)
            .join(Comparison, Comparison.id == Task.comparison_id)
            .where(Task.rater_id == rater, Comparison.purpose.in_(purposes), Task.state.in_(states))
        )
        or 0
    )


def _keyed(plan: Plan, *what: str | int) -> bytes:
    """Bytes that nobody can foresee without the plan's key, and that are the same every time."""
    return hmac.digest(bytes.fromhex(plan.key), repr(what).encode(), "sha256")
