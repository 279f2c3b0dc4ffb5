"""Who rates what next: k raters an item, no one twice, nothing held for good by a drop-out."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.orm import Session

from epigone.raters import slots
from epigone.raters.choice import Past, choose, length, rated, side, unseen
from epigone.raters.store import Store
from epigone.raters.tables import Comparison, Plan, Rater, Task, Vote

REASONS = ("correct", "complete", "clear", "style", "safe")
MAX_COMMENT = 2000
_PAST = (
    select(Task.id, Task.public, Task.comparison_id, Task.left, Task.state, Task.opened,
           Task.voted, Task.expires, Comparison.purpose)
    .join(Comparison, Comparison.id == Task.comparison_id)
    .where(Task.rater_id == bindparam("rater"))
    .order_by(Task.id)
)  # fmt: skip
_WHO = (
    select(Plan, Rater.public, Rater.excluded, Rater.revoked)
    .join(Rater, Rater.id == bindparam("rater"))
    .where(Plan.id == 1)
)
_OPEN = ("open", "lapsed")


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
class Desk:
    """What lies before a rater: the task, how far it is, and whether a vote can be changed.

    `later` is whether tasks in other people's hands may come back for this rater.
    """

    shown: Shown | None
    progress: Progress
    changeable: bool
    later: bool = False


@dataclass(frozen=True, slots=True)
class Ballot:
    """A vote as it is given: `preference` is 2 where the left output is better, -2 the right."""

    preference: int
    reasons: tuple[str, ...] = ()
    comment: str = ""
    visible: float | None = None


def desk(store: Store, rater: int, now: float) -> Desk:
    """The rater's open task, else a new one, and how far the rater is.

    Handing out is one transaction at a time, and the database refuses a slot that is taken.
    """

    def fresh(session: Session) -> Desk | None:
        plan, name, past = _about(session, rater)
        for task in past:
            if name and task.state == "open" and task.expires > now + plan.lease / 2:
                return _desk(session, plan, rater, name, past, task)
        return None

    def work(session: Session) -> Desk:
        store.lock(session)
        slots.lapse(session, now)
        plan, name, past = _about(session, rater)
        task = _next(session, plan, rater, name, past, now) if name else None
        return _desk(session, plan, rater, name, past, task)

    return store.read(fresh) or store.write(work)


def cast(store: Store, rater: int, public: str, ballot: Ballot, now: float) -> bool:
    """Count a vote, or change the last one, and take the next task; True for training's.

    The same vote again changes nothing. Raises TaskGone for a task that is not open to the rater:
    another's, one before the last, or one whose lease ran out and that others have rated since.
    """

    def work(session: Session) -> bool:
        store.lock(session)
        slots.lapse(session, now)
        plan, name, past = _about(session, rater)
        at = next((i for i, task in enumerate(past) if task.public == public), None)
        if at is None or not name:
            raise TaskGone
        task = past[at]
        training = task.purpose == "training"
        signed = ballot.preference if task.left == "a" else -ballot.preference
        if task.state == "done":
            # What training expects has been shown by now, so that vote stays as it is.
            if not training:
                _change(session, past, task, signed, ballot, now)
            return training
        if task.state == "lapsed" and not _slot_back(session, plan, past, task):
            raise TaskGone
        _settle(session, task, signed, ballot, now)
        # In the same transaction: the disk is waited for once a vote. After training, what was
        # expected is read first, and that is no time of the next task.
        if not training:
            past[at] = task._replace(state="done", voted=now)
            _next(session, plan, rater, name, past, now)
        return training

    return store.write(work)


def previous(store: Store, rater: int) -> Shown | None:
    """The vote that the rater may still change: the last one."""

    def work(session: Session) -> Shown | None:
        last = _last(_about(session, rater)[2])
        return None if last is None else _shown(session, last.id)

    return store.read(work)


def answered(store: Store, rater: int, public: str) -> Shown:
    """A training task that was answered, with what was expected; raises TaskGone for others."""

    def work(session: Session) -> Shown:
        for task in _about(session, rater)[2]:
            if (task.public, task.state, task.purpose) == (public, "done", "training"):
                return _shown(session, task.id)
        raise TaskGone

    return store.read(work)


def progress(store: Store, rater: int) -> Progress:
    """How many tasks the rater has done after training, and how many it will be."""
    return store.read(lambda session: _progress(session, rater, *_about(session, rater)))


def _about(session: Session, rater: int) -> tuple[Plan, str, list[Past]]:
    """The plan, the rater's name (empty for one who may rate no more), and the tasks so far."""
    plan, name, excluded, revoked = session.execute(_WHO, {"rater": rater}).one()
    past = [Past(*row) for row in session.execute(_PAST, {"rater": rater})]
    return plan, "" if excluded or revoked is not None else name, past


def _desk(
    session: Session, plan: Plan, rater: int, name: str, past: Sequence[Past], task: Past | None
) -> Desk:
    shown = None if task is None else _shown(session, task.id)
    if task is not None:
        past = [*(one for one in past if one.id != task.id), task]
    later = task is None and bool(name) and rated(past) < plan.per_rater
    return Desk(shown, _progress(session, rater, plan, name, past), _last(past) is not None,
                later and bool(unseen(session, rater, 1, held=True)))  # fmt: skip


def _progress(
    session: Session, rater: int, plan: Plan, name: str, past: Sequence[Past]
) -> Progress:
    done = sum(task.state == "done" and task.purpose != "training" for task in past)
    have = rated(past)
    # Only as many as others have left: what is promised here is kept, or nearly.
    more = unseen(session, rater, max(0, plan.per_rater - have), below=plan.per_item)
    total = length(plan, name, have + more if name else have, plan.checks)
    return Progress(done, max(done, total))


def _settle(session: Session, task: Past, signed: int, ballot: Ballot, now: float) -> None:
    seconds = max(0.0, now - task.opened)
    visible = None if ballot.visible is None else min(max(0.0, ballot.visible), seconds)
    _write(session, task, signed, ballot, now, state="done", voted=now, seconds=seconds,
           visible=visible)  # fmt: skip


def _change(
    session: Session, past: Sequence[Past], task: Past, signed: int, ballot: Ballot, now: float
) -> None:
    if task != _last(past):
        raise TaskGone
    row = session.execute(
        select(Task.preference, Task.reasons, Task.comment).where(Task.id == task.id)
    ).one()
    if (row[0], tuple(row[1]), row[2]) != (signed, ballot.reasons, ballot.comment):
        _write(session, task, signed, ballot, now)


def _write(
    session: Session, task: Past, signed: int, ballot: Ballot, now: float, **more: object
) -> None:
    vote = {"preference": signed, "reasons": list(ballot.reasons), "comment": ballot.comment}
    session.execute(update(Task).where(Task.id == task.id).values(**vote, **more))
    session.execute(insert(Vote).values(task_id=task.id, at=now, **vote))


def _next(
    session: Session, plan: Plan, rater: int, name: str, past: Sequence[Past], now: float
) -> Past | None:
    return _held(session, plan, past, now) or _new(session, plan, rater, name, past, now)


def _held(session: Session, plan: Plan, past: Sequence[Past], now: float) -> Past | None:
    """The task that the rater has not finished, with its lease renewed."""
    for task in sorted((t for t in past if t.state in _OPEN), key=lambda t: t.state != "open"):
        if task.state == "lapsed":
            if not _slot_back(session, plan, past, task):
                continue
            task = task._replace(state="open", opened=now)
        renewed = {"state": "open", "opened": task.opened, "expires": now + plan.lease}
        session.execute(update(Task).where(Task.id == task.id).values(**renewed))
        return task
    return None


def _new(
    session: Session, plan: Plan, rater: int, name: str, past: Sequence[Past], now: float
) -> Past | None:
    while True:
        found = choose(session, plan, rater, name, past)
        if found is None:
            return None
        purpose, chosen = found
        slot = slots.free(session, chosen, plan.per_item) if purpose == "item" else None
        if purpose != "item" or slot is not None:
            break
        # A server of an earlier version, on the same tables, does not count what it hands out.
        slots.recount(session, (chosen,))
    task = Task(
        public=secrets.token_urlsafe(15), rater_id=rater, comparison_id=chosen, slot=slot,
        left=side(plan, name, chosen), state="open", opened=now, expires=now + plan.lease,
        reasons=[], comment="",
    )  # fmt: skip
    session.add(task)
    session.flush()
    slots.recount(session, () if slot is None else (chosen,))
    return Past(task.id, task.public, chosen, task.left, "open", now, None, task.expires, purpose)


def _slot_back(session: Session, plan: Plan, past: Sequence[Past], task: Past) -> bool:
    """Take a slot again for a task whose lease ran out; False where it cannot be had."""
    if task.purpose != "item":
        return True
    slot = slots.free(session, task.comparison, plan.per_item)
    if slot is None or rated(past) >= plan.per_rater:
        return False
    session.execute(update(Task).where(Task.id == task.id).values(slot=slot))
    slots.recount(session, (task.comparison,))
    return True


def _last(past: Sequence[Past]) -> Past | None:
    votes = [task for task in past if task.state == "done" and task.purpose != "training"]
    return max(votes, key=lambda task: (task.voted or 0.0, task.id), default=None)


def _shown(session: Session, id: int) -> Shown:
    task, found = session.execute(
        select(Task, Comparison)
        .join(Comparison, Comparison.id == Task.comparison_id)
        .where(Task.id == id)
        .execution_options(populate_existing=True)
    ).one()
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
