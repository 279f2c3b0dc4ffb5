"""Administrators: who is logged in, and the log of what was done."""

from __future__ import annotations

import secrets

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from epigone.raters.sessions import SHIFT
from epigone.raters.store import Store
from epigone.raters.tables import Action, Login

_REFUSED = "login refused"


def log_in(store: Store, now: float, who: str) -> str:
    """The name of a new session, which works until it is logged out."""
    name = secrets.token_hex(16)

    def work(session: Session) -> None:
        session.execute(delete(Login).where(Login.at < now - SHIFT))
        session.add(Login(name=name, at=now))
        note(session, now, who, "login")

    store.write(work)
    return name


def log_out(store: Store, name: str, now: float, who: str) -> None:
    """End a session, wherever its cookie is by now."""

    def work(session: Session) -> None:
        session.execute(delete(Login).where(Login.name == name))
        note(session, now, who, "logout")

    store.write(work)


def is_logged_in(store: Store, name: str) -> bool:
    """Whether a session has not been logged out."""
    return store.read(lambda session: session.get(Login, name) is not None)


def refused(store: Store, now: float, who: str) -> None:
    """Note a wrong token: one line for an address, or guesses would hide what was done."""

    def work(session: Session) -> None:
        store.lock(session)
        same = select(Action).where(Action.what == _REFUSED, Action.who == who)
        found = session.scalar(same)
        if found is None:
            note(session, now, who, _REFUSED, why="1 time")
        else:
            times = int(found.why.partition(" ")[0]) + 1
            found.at, found.why = now, f"{times} times"

    store.write(work)


def actions(store: Store, last: int = 50, skip: int = 0) -> list[Action]:
    """The last things that administrators did, the newest first, after `skip` newer ones."""
    newest = select(Action).order_by(Action.at.desc(), Action.id.desc()).offset(skip).limit(last)
    return store.read(lambda session: list(session.scalars(newest)))


def note(
    session: Session, now: float, who: str, what: str, target: str = "", why: str = ""
) -> None:
    """Write into the log, in the same transaction as what was done."""
    session.add(Action(at=now, who=who[:200], what=what, target=target[:500], why=why))
