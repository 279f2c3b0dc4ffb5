"""What a run does as log lines that name their step."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from epigone import logs
from epigone.files import read_json
from epigone.runs.store import FAILURE
from epigone.schema import Record
from epigone.study.step import Step

if TYPE_CHECKING:
    from epigone.runs.roles import Watcher

_LOG = logging.getLogger(__name__)


def logged(watcher: Watcher) -> Watcher:
    """The same watcher, after whom each event is logged, if anything is."""
    return _Logged(watcher) if logs.on() else watcher


class _Logged:
    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def started(self, step: Step, number: int, of: int) -> None:
        self._watcher.started(step, number, of)
        _LOG.info("begins, %d of %d", number, of, extra={"step": step.name})

    def progress(self, step: Step, done: float, total: float, note: str) -> None:
        self._watcher.progress(step, done, total, note)

    def finished(self, step: Step, record: Record) -> None:
        self._watcher.finished(step, record)
        told = {"step": step.name}
        _LOG.info("done in %.1f s, %d bytes", record.seconds, record.peak_bytes, extra=told)

    def failed(self, step: Step, error: str, log: Path) -> None:
        self._watcher.failed(step, error, log)
        told = {"step": step.name, "trace": _trace(log.with_name(FAILURE))}
        _LOG.error("failed: %s; its log: %s", error, log, extra=told)

    def blocked(self, steps: Sequence[Step], by: Step) -> None:
        self._watcher.blocked(steps, by)
        for step in steps:
            _LOG.warning("blocked by %s", by.name, extra={"step": step.name})

    def remaining(self, done: int, of: int, seconds: float) -> None:
        self._watcher.remaining(done, of, seconds)
        _LOG.debug("%d of %d steps done, %.0f s left", done, of, seconds)


def _trace(failure: Path) -> str:
    try:
        return str(read_json(failure)["traceback"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
