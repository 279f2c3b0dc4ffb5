"""Benchmarks whose answers are programs: graded in the sandbox, pass@k without bias."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import comb
from typing import Any

from epigone.evaluation import sandbox
from epigone.evaluation.grading import Problem, Verdict, grade
from epigone.schema import Progress, silent

TASKS = ("humaneval",)
# Set by `--unsafe-local`: programs then run as ordinary processes of the user.
UNSAFE = "EPIGONE_UNSAFE_LOCAL"
_KS = (1, 10, 100)


def probe() -> None:
    """Raise SandboxError where programs cannot be isolated, unless the user gave that up."""
    if not unsafe():
        sandbox.probe()


def grade_rows(rows: Sequence[dict[str, Any]], *, chat: bool, progress: Progress = silent) -> None:
    """Run every answer's program against the problem's test; adds the metrics of each row."""
    from epigone.evaluation.presets import program

    problems = [
        Problem(
            program(row["doc"], answer, chat=chat),
            f"{row['doc']['test']}\ncheck({row['doc']['entry_point']})",
            row["doc"]["entry_point"],
            row["doc"]["prompt"],
        )
        for row in rows
        for answer in row["outputs"]
    ]
    verdicts = iter(grade(problems, unsafe=unsafe(), progress=progress))
    for row in rows:
        own: list[Verdict] = [next(verdicts) for _ in row["outputs"]]
        if not own:
            continue
        row["verdicts"] = [f"{v.status}: {v.detail}" if v.detail else v.status for v in own]
        passed = sum(v.passed for v in own)
        for k in _KS:
            if k <= len(own):
                row["metrics"][f"pass@{k}"] = pass_at(k, len(own), passed)


def pass_at(k: int, samples: int, passed: int) -> float:
    """The chance that one of k answers passes, estimated from more (Chen et al. 2021, eq. 1)."""
    return 1.0 - comb(samples - passed, k) / comb(samples, k)


def unsafe() -> bool:
    """Whether the user gave up isolation."""
    return os.environ.get(UNSAFE) == "1"
