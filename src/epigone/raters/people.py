"""Raters and their invitations: who comes in, who is excluded, and what they said."""

from __future__ import annotations

import hashlib
import secrets
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import ColumnElement, Select, String, literal, select, update
from sqlalchemy import cast as sql_cast
from sqlalchemy.orm import Session

from epigone.errors import UserError
from epigone.raters import slots
from epigone.raters.logins import note
from epigone.raters.store import Store
from epigone.raters.tables import (
    Comparison,
    Invitation,
    Rater,
    Task,
    Visit,
    Worker,
)
from epigone.raters.workforces import Arrival, NotAdmitted
from epigone.schema import Purpose, Rating, Workforce

_INVITED = "invitation-"
_WORKER = literal(_INVITED).concat(sql_cast(Invitation.id, String))
NO_INVITATION = "This invitation does not work, or works no longer."


@dataclass(frozen=True, slots=True)
class Entered:
    """A rater who came in, and the submission by which the visit is known."""

    rater: int
    public: str
    submission: str


@dataclass(frozen=True, slots=True)
class Stay:
    """A visit: who came, its answers to items, and whether the rater is excluded."""

    workforce: Workforce
    arrival: Arrival
    answers: int
    excluded: bool


def enter(store: Store, workforce: Workforce, arrival: Arrival, now: float) -> Entered:
    """The rater of an arrival, the same one for the same worker, and the visit.

    Raises NotAdmitted where another worker came with that submission, and for an invitation that
    was revoked or ran out after its link was opened.
    """

    def work(session: Session) -> Entered:
        store.lock(session)
        name = arrival.worker
        if workforce == "private":
            invitation = session.scalar(select(Invitation).where(Invitation.digest == name))
            if invitation is None or not _admits(invitation, now):
                raise NotAdmitted(NO_INVITATION)
            name = f"{_INVITED}{invitation.id}"
        rater = session.scalar(
            select(Rater)
            .join(Worker, Worker.rater_id == Rater.id)
            .where(Worker.workforce == workforce, Worker.worker == name)
        )
        if rater is None:
            public = f"r-{secrets.token_hex(8)}"
            rater = Rater(public=public, workforce=workforce, joined=now, excluded="")
            session.add(rater)
            session.flush()
            session.add(Worker(rater_id=rater.id, workforce=workforce, worker=name))
        # Where no provider counts visits, each rater has one, by the rater's own name.
        submission = arrival.submission or rater.public
        visit = session.scalar(
            select(Visit).where(Visit.workforce == workforce, Visit.submission == submission)
        )
        if visit is not None and visit.rater_id != rater.id:
            # One assignment under several workers' ids would be several distinct raters.
            raise NotAdmitted("Somebody else came in with this link.")
        if visit is None:
            visit = Visit(rater_id=rater.id, submission=submission,
                          workforce=workforce, at=now)  # fmt: skip
            session.add(visit)
        return Entered(rater.id, rater.public, submission)

    return store.write(work)


def is_known(store: Store, workforce: Workforce, arrival: Arrival) -> bool:
    """Whether an arrival's worker is a rater already."""
    query = select(Worker.rater_id).where(
        Worker.workforce == workforce, Worker.worker == arrival.worker
    )
    return store.read(lambda session: session.scalar(query)) is not None


def stay(store: Store, workforce: Workforce, submission: str) -> Stay:
    """Who came by a visit, and what it brought."""
    ((_, found),) = _stays(store, Visit.workforce == workforce, Visit.submission == submission)
    return found


def visits(store: Store, workforce: Workforce) -> list[tuple[str, Stay]]:
    """Every visit of a workforce with its rater's public name, in the order of arrival."""
    return _stays(store, Visit.workforce == workforce)


def _stays(store: Store, *chosen: ColumnElement[bool]) -> list[tuple[str, Stay]]:
    def work(session: Session) -> list[tuple[str, Stay]]:
        answers = _answers(session, select(Visit.rater_id).where(*chosen))
        rows = session.execute(
            select(Visit, Rater, Worker)
            .join(Rater, Rater.id == Visit.rater_id)
            .join(Worker, Worker.rater_id == Visit.rater_id)
            .where(*chosen)
            .order_by(Visit.id)
        )
        return [
            (rater.public, Stay(cast(Workforce, visit.workforce),
                                Arrival(worker.worker, visit.submission),
                                answers[visit.id], bool(rater.excluded)))
            for visit, rater, worker in rows
        ]  # fmt: skip

    return store.read(work)


def _answers(session: Session, raters: Select[Any]) -> Counter[int]:
    """Answers to items by visit: a vote belongs to the last visit before it, and to no other."""
    begun: dict[int, list[tuple[float, int]]] = {}
    for rater, at, visit in session.execute(
        select(Visit.rater_id, Visit.at, Visit.id)
        .where(Visit.rater_id.in_(raters))
        .order_by(Visit.at, Visit.id)
    ):
        begun.setdefault(rater, []).append((at, visit))
    votes = (
        select(Task.rater_id, Task.voted)
        .join(Comparison, Comparison.id == Task.comparison_id)
        .where(Task.state == "done", Comparison.purpose == "item", Task.rater_id.in_(raters))
    )
    found: Counter[int] = Counter()
    for rater, voted in session.execute(votes):
        at = bisect_right(begun[rater], voted or 0.0, key=lambda visit: visit[0])
        found[begun[rater][max(at - 1, 0)][1]] += 1
    return found


def find(store: Store, public: str, now: float) -> tuple[int, bool] | None:
    """A rater's number by the public name, and whether the way in was revoked, or ran out."""

    def work(session: Session) -> tuple[int, bool] | None:
        row = session.execute(
            select(Rater.id, Rater.revoked, Rater.workforce, Invitation)
            .join(Worker, Worker.rater_id == Rater.id)
            .outerjoin(Invitation, Worker.worker == _WORKER)
            .where(Rater.public == public)
        ).one_or_none()
        if row is None:
            return None
        over = row.workforce == "private" and not _admits(row.Invitation, now)
        return row.id, row.revoked is not None or over

    return store.read(work)


def invite(
    store: Store, labels: Sequence[str], now: float, *, days: float | None = None, who: str
) -> list[str]:
    """Invitations for as many people as labels; the secret of each is returned, and not kept."""
    made = [secrets.token_urlsafe(18) for _ in labels]

    def work(session: Session) -> None:
        for label, secret in zip(labels, made, strict=True):
            expires = None if days is None else now + 86_400 * days
            session.add(Invitation(label=label, digest=_digest(secret), created=now,
                                   expires=expires))  # fmt: skip
            note(session, now, who, "invite", label)

    store.write(work)
    return made


def invited(store: Store, secret: str, now: float) -> str | None:
    """The digest by which an invitation's secret is known; None where it does not admit."""

    def work(session: Session) -> str | None:
        found = session.scalar(select(Invitation).where(Invitation.digest == _digest(secret)))
        return found.digest if found is not None and _admits(found, now) else None

    return store.read(work)


def invitations(store: Store) -> list[Invitation]:
    """All invitations, in the order in which they were made."""
    return store.read(lambda s: list(s.scalars(select(Invitation).order_by(Invitation.id))))


def revoke(store: Store, named: str, now: float, *, who: str) -> int:
    """Revoke the invitations of a label, or else of a number; their sessions end as well.

    How many were revoked is returned; raises UserError where there is none of that name.
    """

    def work(session: Session) -> int:
        rows = list(session.scalars(select(Invitation).where(Invitation.label == named)))
        if not rows and named.isascii() and named.isdigit() and len(named) < 9:
            rows = list(session.scalars(select(Invitation).where(Invitation.id == int(named))))
        if not rows:
            raise UserError("no such invitation", value=named, fix="a label or a number")
        return sum(_revoke(session, row, now, who) for row in rows)

    return store.write(work)


def revoke_one(store: Store, invitation: int, now: float, *, who: str) -> None:
    """Revoke the invitation of a number; raises UserError where there is none."""

    def work(session: Session) -> None:
        row = session.get(Invitation, invitation) if invitation < 1 << 31 else None
        if row is None:
            raise UserError("no such invitation", value=invitation)
        _revoke(session, row, now, who)

    store.write(work)


def exclude(store: Store, rater: str, why: str, now: float, *, who: str) -> None:
    """Let a rater's votes not count, and free their places; raises UserError if nobody is so named.

    Nothing is deleted: `include` takes it back.
    """
    if not why.strip():
        raise UserError("an exclusion has a reason", value=rater, fix="--why")

    def work(session: Session) -> None:
        store.lock(session)
        found = _named(session, rater)
        found.excluded = why.strip()
        slots.give_back(session, found.id)
        note(session, now, who, "exclude", rater, why)

    store.write(work)


def include(store: Store, rater: str, why: str, now: float, *, who: str) -> None:
    """Let an excluded rater's votes count again.

    All of them count, also where others have filled the places since: such items have more than
    their number of ratings, until one of the others is excluded.
    """

    def work(session: Session) -> None:
        store.lock(session)
        found = _named(session, rater)
        found.excluded = ""
        done = select(Task.comparison_id).where(Task.rater_id == found.id, Task.state == "done")
        slots.fill(session, session.scalars(done).all())
        note(session, now, who, "include", rater, why)

    store.write(work)


def ratings(store: Store) -> Iterator[Rating]:
    """Every vote as the project's other rooms know it, excluded ones as well, oldest first."""

    def work(session: Session) -> list[Any]:
        joined = (
            select(Task, Rater, Comparison.item, Comparison.a, Comparison.b, Comparison.purpose,
                   Comparison.expected)
            .join(Rater, Rater.id == Task.rater_id)
            .join(Comparison, Comparison.id == Task.comparison_id)
            .where(Task.state == "done")
            .order_by(Task.voted, Task.id)
        )  # fmt: skip
        return list(session.execute(joined).all())

    for task, rater, item, a, b, purpose, expected in store.read(work):
        at = datetime.fromtimestamp(task.voted, UTC).isoformat(timespec="seconds")
        yield Rating(
            item=item, rater=rater.public, a=a, b=b, preference=task.preference, left=task.left,
            workforce=cast(Workforce, rater.workforce), purpose=cast(Purpose, purpose),
            expected=expected, seconds=task.seconds if task.visible is None else task.visible,
            reasons=tuple(task.reasons), comment=task.comment, excluded=rater.excluded, at=at,
        )  # fmt: skip


def _admits(invitation: Invitation | None, now: float) -> bool:
    if invitation is None or invitation.revoked is not None:
        return False
    return invitation.expires is None or invitation.expires >= now


def _revoke(session: Session, row: Invitation, now: float, who: str) -> bool:
    if row.revoked is not None:
        return False
    row.revoked = now
    workers = select(Worker.rater_id).where(
        Worker.workforce == "private", Worker.worker == f"{_INVITED}{row.id}"
    )
    session.execute(update(Rater).where(Rater.id.in_(workers)).values(revoked=now))
    note(session, now, who, "revoke", f"{row.id} {row.label}".strip())
    return True


def _named(session: Session, rater: str) -> Rater:
    found = session.scalar(select(Rater).where(Rater.public == rater))
    if found is None:
        raise UserError("no such rater", value=rater)
    return found


def _digest(secret: str) -> str:
    # The secret is long and random: nothing slower is needed to keep it from being guessed.
    return hashlib.sha256(secret.encode()).hexdigest()
