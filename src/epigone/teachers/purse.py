"""One budget for all endpoints that are asked for one purpose."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

from epigone.errors import EndpointError
from epigone.teachers.ledger import Ledger


@contextmanager
def purse(ledger: Ledger, budget: Decimal | None, waits: Callable[[], None]) -> Iterator[None]:
    """Count in `ledger.elsewhere` what other endpoints cost of the same budget.

    Only one process at a time spends it, whose end is waited for after `waits` was called: two
    endpoints that are asked at once could each spend the rest of it. Raises EndpointError where
    there can be no lock.
    """
    if budget is None:
        yield
        return
    name = hashlib.sha256(ledger.purpose.encode()).hexdigest()[:12]
    try:
        lock = os.open(ledger.path.parent / f".purse-{name}", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise EndpointError(
            "the budget cannot be held", value=str(ledger.path.parent), fix=str(error)
        ) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waits()
            fcntl.flock(lock, fcntl.LOCK_EX)
        others = [p for p in ledger.path.parent.glob("*.jsonl") if p != ledger.path]
        ledger.elsewhere = sum((_cost(p, ledger.purpose) for p in others), Decimal(0))
        yield
    finally:
        os.close(lock)


def spent_for(ledgers: Path, purpose: str) -> Decimal:
    """US dollars that count against the budget of a purpose, in all ledgers of a folder."""
    return sum((_cost(p, purpose) for p in ledgers.glob("*.jsonl")), Decimal(0))


def _cost(path: Path, purpose: str) -> Decimal:
    other = Ledger(path, purpose, look=True)
    try:
        return other.spent + other.open
    finally:
        other.close()
