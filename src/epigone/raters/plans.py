"""A rating database is filled: the plan, the comparisons, and the tasks that train and check."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

from sqlalchemy import delete, func, outerjoin, select
from sqlalchemy.orm import Session

from epigone.errors import UserError
from epigone.raters.comparisons import Pair
from epigone.raters.store import Store
from epigone.raters.tables import Comparison, Plan, Rater, Task
from epigone.schema import Workforce


class Prepared(NamedTuple):
    """What is in a database now: comparisons of models, those just added, those taken out."""

    comparisons: int
    new: int
    retired: int


def prepare(
    store: Store,
    name: str,
    pairs: Sequence[Pair],
    *,
    now: float,
    seed: int = 0,
    per_item: int = 3,
    per_rater: int = 20,
    check_every: int = 6,
    lease: float = 1800.0,
) -> Prepared:
    """Write the plan and all comparisons that are not there yet, and take out all others.

    The same again changes nothing, other numbers change the plan from then on. `lease` is in
    seconds. Raises UserError where an output is not what it was, where people have voted on a
    comparison that would be taken out, or fewer ratings an item are asked for than some already
    have.
    """

    def work(session: Session) -> Prepared:
        store.lock(session)
        most = session.scalar(select(func.max(Task.slot)))
        if most is not None and per_item <= most:
            raise UserError("some items have more ratings already", value=f"{most + 1} an item",
                            fix=f"--per-item {most + 1} or more")  # fmt: skip
        plan = session.get(Plan, 1)
        if plan is None:
            # Not made of the seed: who guessed that would know the sides.
            key = secrets.token_hex(32)
            plan = Plan(id=1, name=name, seed=seed, key=key, created=now, items=0, checks=0)
            plan.per_item, plan.per_rater = per_item, per_rater
            plan.check_every, plan.lease = check_every, lease
            session.add(plan)
        elif (plan.name, plan.seed) != (name, seed):
            raise UserError("the rating database belongs to another study or seed",
                            value=f"{plan.name}, seed {plan.seed}",
                            fix="name another --db")  # fmt: skip
        plan.per_item, plan.per_rater = per_item, per_rater
        plan.check_every, plan.lease = check_every, lease
        there = {(c.purpose, c.item, c.a, c.b): c for c in session.scalars(select(Comparison))}
        asked = {(p.purpose, p.item, p.a, p.b) for p in pairs}
        gone = [found.id for key, found in there.items() if key not in asked]
        _retire(session, gone)
        new = sum(_add(session, there, pair) for pair in pairs)
        every = {(purpose, item) for purpose, item, _, _ in asked}
        plan.items = sum(purpose == "item" for purpose, _ in every)
        plan.checks = sum(purpose in ("gold", "attention") for purpose, _ in every)
        session.flush()
        store.analyze(session)
        return Prepared(sum(key[0] == "item" for key in asked), new, len(gone))

    return store.write(work)


def people_needed(store: Store, workforce: Workforce) -> int:
    """How many people of a workforce have work: those who came, and as many as places are left.

    A rater takes `per_rater` comparisons at most, and one of each prompt.
    """

    def work(session: Session) -> int:
        plan = session.get_one(Plan, 1)
        joined = outerjoin(Comparison, Task, Task.comparison_id == Comparison.id)
        sizes = session.execute(
            select(func.count(func.distinct(Comparison.id)), func.count(Task.slot))
            .select_from(joined)
            .where(Comparison.purpose == "item")
            .group_by(Comparison.item)
        ).all()
        left = [plan.per_item * n - taken for n, taken in sizes]
        came = select(func.count()).select_from(Rater).where(Rater.workforce == workforce)
        each = min(plan.per_rater, len(sizes)) or 1
        return (session.scalar(came) or 0) + max(-(-sum(left) // each), max(left, default=0))

    return store.read(work)


def _retire(session: Session, comparisons: Sequence[int]) -> None:
    # In parts: a database takes so many values in one statement.
    for at in range(0, len(comparisons), 500):
        some = comparisons[at : at + 500]
        held = select(Task.id).where(Task.comparison_id.in_(some))
        if session.scalar(held.where(Task.state == "done").limit(1)) is not None:
            raise UserError("people have voted on comparisons that are asked for no longer",
                            fix="name another --db")  # fmt: skip
        session.execute(delete(Task).where(Task.comparison_id.in_(some)))
        session.execute(delete(Comparison).where(Comparison.id.in_(some)))


def _add(session: Session, there: dict[tuple[str, str, str, str], Comparison], pair: Pair) -> bool:
    row = {**asdict(pair), "prompt": [asdict(message) for message in pair.prompt]}
    old = there.get((pair.purpose, pair.item, pair.a, pair.b))
    if old is None:
        session.add(Comparison(**row))
        return True
    changed = [k for k, value in row.items() if getattr(old, k) != value]
    if changed:
        raise UserError(
            f"the {changed[0].replace('_', ' ')} of an item is not what raters were shown",
            value=pair.item, fix="name another --db",
        )  # fmt: skip
    return False
