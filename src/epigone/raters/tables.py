"""The tables of a rating database: what is compared, who rates, and every vote."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Base of all tables; times are seconds since 1970."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        float: Double, str: Text, list[Any]: JSON
    }  # fmt: skip


class Plan(Base):
    """The one row that says how the comparisons are handed out; `key` decides sides and order.

    `items` and `checks` count the comparisons' prompts, and the gold and attention tasks.
    """

    __tablename__ = "plan"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str]
    seed: Mapped[int]
    key: Mapped[str]
    per_item: Mapped[int]
    per_rater: Mapped[int]
    check_every: Mapped[int]
    lease: Mapped[float]
    items: Mapped[int]
    checks: Mapped[int]
    created: Mapped[float]


class Comparison(Base):
    """Two outputs for one prompt; `a` and `b` are models in the order of their names.

    `taken` is how many of its slots are held: counted when they change, not for each rater anew.
    """

    __tablename__ = "comparison"
    __table_args__ = (
        UniqueConstraint("purpose", "item", "a", "b"),
        # Who needs raters most is read from it alone, without the texts.
        Index("ix_comparison_taken", "purpose", "a", "b", "taken", "id", "item"),
    )
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    purpose: Mapped[str] = mapped_column(String(16))
    item: Mapped[str] = mapped_column(String(500))
    a: Mapped[str] = mapped_column(String(500))
    b: Mapped[str] = mapped_column(String(500))
    prompt: Mapped[list[Any]]
    a_text: Mapped[str]
    b_text: Mapped[str]
    expected: Mapped[int | None]
    feedback: Mapped[str]
    taken: Mapped[int] = mapped_column(default=0)


class Rater(Base):
    """Somebody who rates; `public` is the only name that leaves the database."""

    __tablename__ = "rater"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    public: Mapped[str] = mapped_column(String(40), unique=True)
    workforce: Mapped[str] = mapped_column(String(16))
    joined: Mapped[float]
    excluded: Mapped[str]
    revoked: Mapped[float | None]


class Worker(Base):
    """The provider's own id of a rater, which stands here and nowhere else."""

    __tablename__ = "worker"
    __table_args__ = (UniqueConstraint("workforce", "worker"),)
    rater_id: Mapped[int] = mapped_column(ForeignKey("rater.id"), primary_key=True)
    workforce: Mapped[str] = mapped_column(String(16))
    worker: Mapped[str] = mapped_column(String(500))


class Visit(Base):
    """One arrival of a rater: a submission or assignment of the provider, of one rater only."""

    __tablename__ = "visit"
    __table_args__ = (UniqueConstraint("workforce", "submission"),)
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    rater_id: Mapped[int] = mapped_column(ForeignKey("rater.id"))
    workforce: Mapped[str] = mapped_column(String(16))
    submission: Mapped[str] = mapped_column(String(500))
    at: Mapped[float]


class Invitation(Base):
    """A private rater's way in; of the token only a digest is kept."""

    __tablename__ = "invitation"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    label: Mapped[str] = mapped_column(String(200))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    created: Mapped[float]
    expires: Mapped[float | None]
    revoked: Mapped[float | None]


class Task(Base):
    """A comparison in a rater's hands.

    `state` is open, done or lapsed. A `slot` (0 to per_item - 1) is held by open and done tasks of
    items, so that the database itself refuses a vote too many; it is given back when a lease runs
    out or the rater is excluded. `preference` is for `a`, whichever side it was on.
    """

    __tablename__ = "task"
    __table_args__ = (
        UniqueConstraint("rater_id", "comparison_id"),
        UniqueConstraint("comparison_id", "slot"),
        Index("ix_task_state_expires", "state", "expires"),
    )
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    public: Mapped[str] = mapped_column(String(40), unique=True)
    rater_id: Mapped[int] = mapped_column(ForeignKey("rater.id"))
    comparison_id: Mapped[int] = mapped_column(ForeignKey("comparison.id"))
    left: Mapped[str] = mapped_column(String(1))
    state: Mapped[str] = mapped_column(String(8))
    slot: Mapped[int | None]
    opened: Mapped[float]
    expires: Mapped[float]
    preference: Mapped[int | None]
    reasons: Mapped[list[Any]]
    comment: Mapped[str]
    seconds: Mapped[float | None]
    visible: Mapped[float | None]
    voted: Mapped[float | None]


class Vote(Base):
    """Every vote as it was given; the task holds the last one."""

    __tablename__ = "vote"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("task.id"), index=True)
    at: Mapped[float]
    preference: Mapped[int]
    reasons: Mapped[list[Any]]
    comment: Mapped[str]


class Login(Base):
    """A session of an administrator's that has not been logged out."""

    __tablename__ = "login"
    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    at: Mapped[float]


class Action(Base):
    """What an administrator did: who, when, what, to whom, and why."""

    __tablename__ = "action"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[float]
    who: Mapped[str] = mapped_column(String(200))
    what: Mapped[str] = mapped_column(String(40))
    target: Mapped[str] = mapped_column(String(500))
    why: Mapped[str]
