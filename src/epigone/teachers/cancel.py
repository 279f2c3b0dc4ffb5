"""End what is open at an endpoint, and keep what it finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from epigone.models.endpoint import KEY
from epigone.schema import Progress, silent
from epigone.teachers.batch import batching
from epigone.teachers.ledger import Ledger, ledger_file
from epigone.teachers.means import endpoint_of, until_done


def cancel_batches(
    endpoint: str, ledgers: Path, *, key_env: str = KEY, progress: Progress = silent
) -> dict[str, Any]:
    """Cancel the open batches of an endpoint's ledger, and collect the answers they had.

    Waits until the endpoint has ended them, which may take ten minutes. Raises EndpointError where
    it does not answer, HeldElsewhere while another process asks it.
    """
    asks = endpoint_of(endpoint, key_env)
    ledger = Ledger(ledger_file(ledgers, asks))
    known, waiting = len(ledger), sum(len(b.places) for b in ledger.batches.values())

    async def cancelled() -> list[str]:
        async with batching(asks, ledger) as asker:
            asker.watch = lambda: progress(len(ledger) - known, waiting, asker.note)
            return await asker.cancel_all()

    try:
        return {
            "batches": until_done(cancelled()),
            "requests": waiting,
            "answers": len(ledger) - known,
            "ledger": str(ledger.path),
        }
    finally:
        ledger.close()
