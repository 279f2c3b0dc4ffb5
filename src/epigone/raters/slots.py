"""The slots of comparisons: k of them each, held by the tasks of distinct raters."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from epigone.raters.tables import Comparison, Plan, Rater, Task

_HELD = select(func.count(Task.slot)).where(Task.comparison_id == Comparison.id)
_COUNT = (
    update(Comparison)
    .values(taken=_HELD.scalar_subquery())
    .execution_options(synchronize_session=False)
)


def free(session: Session, comparison: int, per_item: int) -> int | None:
    """The lowest slot of a comparison that nobody holds."""
    used = set(session.scalars(select(Task.slot).where(Task.comparison_id == comparison)))
    return next((slot for slot in range(per_item) if slot not in used), None)


def lapse(session: Session, now: float) -> None:
    """Free the slots of tasks whose lease has run out."""
    over = (
        update(Task)
        .where(Task.state == "open", Task.expires < now)
        .values(state="lapsed", slot=None)
        .returning(Task.comparison_id)
        .execution_options(synchronize_session=False)
    )
    fill(session, session.scalars(over).all())


def give_back(session: Session, rater: int) -> None:
    """Free all slots of a rater; the rater's open tasks lapse."""
    theirs = update(Task).where(Task.rater_id == rater)
    session.execute(theirs.where(Task.state == "open").values(state="lapsed"))
    held = theirs.where(Task.slot.is_not(None)).values(slot=None).returning(Task.comparison_id)
    fill(session, session.scalars(held).all())


def fill(session: Session, comparisons: Collection[int]) -> None:
    """Give free slots to votes that count and have none, then count again.

    Those are votes of raters who were excluded, and are no longer, whose slots others had taken.
    """
    per_item = select(Plan.per_item).scalar_subquery()
    for comparison in sorted(set(comparisons)):
        waiting = (
            select(Task.id, per_item)
            .join(Comparison, Comparison.id == Task.comparison_id)
            .join(Rater, Rater.id == Task.rater_id)
            .where(Task.comparison_id == comparison, Comparison.purpose == "item")
            .where(Task.state == "done", Task.slot.is_(None), Rater.excluded == "")
            .order_by(Task.voted, Task.id)
        )
        for task, most in session.execute(waiting).all():
            slot = free(session, comparison, most)
            if slot is not None:
                session.execute(update(Task).where(Task.id == task).values(slot=slot))
    recount(session, comparisons)


def recount(session: Session, comparisons: Collection[int]) -> None:
    """Count again how many slots are held, after tasks of these comparisons changed."""
    # In parts: a database takes so many values in one statement.
    ids = sorted(set(comparisons))
    for at in range(0, len(ids), 500):
        session.execute(_COUNT.where(Comparison.id.in_(ids[at : at + 500])))


def recount_all(session: Session) -> None:
    """Count the held slots of every comparison again."""
    session.execute(_COUNT)
