"""Files of teacher text to a clean corpus: readers, cleaning, dedup, language, split."""

from __future__ import annotations

from epigone.corpus.stage import build, run, stats

__all__ = ["build", "run", "stats"]
