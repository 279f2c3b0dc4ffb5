"""How the rating goes: by pair of models, and by rater."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from epigone.raters import quality
from epigone.raters.agreement import Agreement, krippendorff
from epigone.raters.quality import Conduct
from epigone.raters.store import Store
from epigone.raters.tables import Comparison, Invitation, Plan, Rater, Task, Worker
from epigone.schema import Rating


@dataclass(frozen=True, slots=True)
class PairProgress:
    """Two models: comparisons, votes that count, votes wanted, and tasks in somebody's hands."""

    a: str
    b: str
    comparisons: int
    votes: int
    wanted: int
    open: int


@dataclass(frozen=True, slots=True)
class RaterLine:
    """A rater: votes on items, checks passed and given, the median seconds, and how often left.

    `proposed` are reasons to think about an exclusion; `invitation` is the number and label of the
    invitation of a private rater.
    """

    rater: str
    workforce: str
    votes: int
    passed: int
    checks: int
    seconds: float | None
    left: float | None
    excluded: str
    revoked: bool
    proposed: tuple[str, ...]
    invitation: str


def pairs(store: Store, now: float) -> list[PairProgress]:
    """Progress by pair of models."""

    def work(session: Session) -> list[PairProgress]:
        k = session.get_one(Plan, 1).per_item
        of = select(Comparison.a, Comparison.b, func.count()).where(Comparison.purpose == "item")
        sizes = session.execute(
            of.group_by(Comparison.a, Comparison.b).order_by(Comparison.a, Comparison.b)
        ).all()
        held = (
            select(Comparison.a, Comparison.b, Task.state, func.count())
            .join(Task, Task.comparison_id == Comparison.id)
            .where(Comparison.purpose == "item", Task.slot.is_not(None))
            .where((Task.state == "done") | (Task.expires >= now))
            .group_by(Comparison.a, Comparison.b, Task.state)
        )
        counts = {(a, b, state): n for a, b, state, n in session.execute(held)}
        return [
            PairProgress(a, b, n, counts.get((a, b, "done"), 0), k * n,
                         counts.get((a, b, "open"), 0))
            for a, b, n in sizes
        ]  # fmt: skip

    return store.read(work)


def raters(store: Store, ratings: Sequence[Rating]) -> list[RaterLine]:
    """One line a rater, in the order in which they came."""
    seen = {c.rater: c for c in quality.conduct(ratings)}
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for proposal in quality.proposed(ratings):
        reasons[proposal.rater].append(proposal.reason)

    def work(session: Session) -> list[tuple[Rater, str]]:
        by_worker = {f"invitation-{i.id}": f"{i.id} {i.label}".strip()
                     for i in session.scalars(select(Invitation))}  # fmt: skip
        of = select(Rater, Worker.worker).join(Worker, Worker.rater_id == Rater.id)
        rows = session.execute(of.order_by(Rater.id))
        return [(rater, by_worker.get(worker, "") if rater.workforce == "private" else "")
                for rater, worker in rows]  # fmt: skip

    return [
        _line(row, seen.get(row.public), tuple(reasons[row.public]), invited)
        for row, invited in store.read(work)
    ]


def agreement(ratings: Sequence[Rating]) -> Agreement | None:
    """Krippendorff's alpha of the ratings that count, None where there is nothing to agree on."""
    counted = [r for r in ratings if r.purpose == "item" and not r.excluded]
    by_unit = Counter((r.item, r.a, r.b) for r in counted)
    return _alpha(tuple(counted)) if max(by_unit.values(), default=0) > 1 else None


@lru_cache(maxsize=1)
def _alpha(ratings: tuple[Rating, ...]) -> Agreement:
    """The last one is kept: it takes a second of thousands, and the page is looked at often."""
    return krippendorff(ratings)


def _line(rater: Rater, seen: Conduct | None, proposed: tuple[str, ...], invited: str) -> RaterLine:
    rest = rater.excluded, rater.revoked is not None, proposed, invited
    if seen is None:
        return RaterLine(rater.public, rater.workforce, 0, 0, 0, None, None, *rest)
    return RaterLine(
        rater.public, rater.workforce, seen.n, seen.gold + seen.attention,
        seen.golds + seen.attentions, seen.seconds, seen.left, *rest,
    )  # fmt: skip
