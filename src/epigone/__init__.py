"""Epigone tells what a language model really learns when it imitates another one."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epigone.api import (
        Study,
        benchmark,
        build_corpus,
        generate,
        style,
        train,
    )
    from epigone.errors import EpigoneError, StepFailed, UserError
    from epigone.schema import Conversation, Message, Record, Sample, Score
    from epigone.teachers.collect import ask_teacher

__version__ = "0.1.0"

# Libraries read these once, when they are first imported, in this process or in one that it starts.
NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
}
os.environ.update(NO_TELEMETRY)

__all__ = [
    "Conversation",
    "EpigoneError",
    "Message",
    "Record",
    "Sample",
    "Score",
    "StepFailed",
    "Study",
    "UserError",
    "ask_teacher",
    "benchmark",
    "build_corpus",
    "generate",
    "style",
    "toxicity",
    "train",
]

_HOMES = {
    "epigone.errors": ("EpigoneError", "StepFailed", "UserError"),
    "epigone.schema": ("Conversation", "Message", "Record", "Sample", "Score"),
    "epigone.teachers.collect": ("ask_teacher",),
    "epigone.api": ("Study", "benchmark", "build_corpus", "generate", "style", "toxicity", "train"),
}


def __getattr__(name: str) -> Any:
    # Lazily, so that `import epigone` and the command line's help cost no heavy import.
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'epigone' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
