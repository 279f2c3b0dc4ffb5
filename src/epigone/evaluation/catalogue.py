"""The benchmarks that Epigone ships, without importing lm-eval."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

TASKS = Path(__file__).parent / "tasks"
_VERSIONS = {"facts": 1, "choices": 1}


def known_tasks() -> Mapping[str, int]:
    """Names of benchmarks with their versions; a test holds them against the task files."""
    return _VERSIONS
