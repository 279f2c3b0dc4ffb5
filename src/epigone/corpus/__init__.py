"""Files of teacher text to a clean corpus: readers, cleaning, dedup, language, mixing, split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epigone.corpus.overlap import run as run_overlap
    from epigone.corpus.stage import build, run
    from epigone.corpus.statistics import stats

__all__ = ["build", "run", "run_overlap", "stats"]


def __getattr__(name: str) -> Any:
    # What the stage needs is imported only when it runs: a plan must not pay for it.
    if name in ("build", "run"):
        from epigone.corpus import stage

        return getattr(stage, name)
    if name == "run_overlap":
        from epigone.corpus.overlap import run as run_overlap

        return run_overlap
    if name == "stats":
        from epigone.corpus.statistics import stats

        return stats
    raise AttributeError(name)
