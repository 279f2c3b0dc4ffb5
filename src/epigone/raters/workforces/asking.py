"""A platform is asked about whoever comes: few at a time, and not again what it did not know."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock

from epigone.raters.workforces import NotAdmitted

_KEYS = 10_000


class Unknown(NotAdmitted):
    """The platform was asked, and does not know this visit."""


class Asking:
    """`most` questions at a time, for which others wait `patience` seconds at most.

    What the platform did not know is not asked again for `keep` seconds: ids that somebody makes
    up must neither hold the site's threads nor use up what the platform allows.
    """

    def __init__(
        self,
        platform: str,
        *,
        most: int = 8,
        patience: float = 1.0,
        keep: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._platform, self._patience, self._keep, self._clock = platform, patience, keep, clock
        self._free, self._lock = BoundedSemaphore(most), Lock()
        self._unknown: OrderedDict[tuple[str, ...], float] = OrderedDict()

    def later(self) -> NotAdmitted:
        """What is said where the platform cannot be asked."""
        return NotAdmitted(
            f"{self._platform} cannot be asked now. Please try again in a few minutes."
        )

    @contextmanager
    def about(self, *visit: str) -> Iterator[None]:
        """Ask inside; raises NotAdmitted, without asking, where it is too much."""
        with self._lock:
            if self._unknown.get(visit, -1.0) > self._clock():
                raise self._stranger()
        if not self._free.acquire(timeout=self._patience):
            raise self.later()
        try:
            yield
        except Unknown:
            with self._lock:
                self._unknown[visit] = self._clock() + self._keep
                while len(self._unknown) > _KEYS:
                    self._unknown.popitem(last=False)
            raise self._stranger() from None
        finally:
            self._free.release()

    def _stranger(self) -> Unknown:
        return Unknown(f"{self._platform} does not know this visit.")
