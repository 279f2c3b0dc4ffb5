"""Few-shot benchmarks: our model class beside lm-eval's own Hugging Face one, interleaved.

    python bench/few_shot.py smollm2-135m-instruct --runs 5 --limit 56

Both answer the same requests of the same tasks in fp32; the answers are compared before any time
is reported.
"""

from __future__ import annotations

import argparse
import logging
import platform
import statistics
import time
from typing import Any

import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from epigone.evaluation.benchmarks import _chosen
from epigone.evaluation.catalogue import TASKS
from epigone.evaluation.lm import SharedPrefixLM
from epigone.evaluation.parts import load_parts
from epigone.models.load import load
from epigone.models.references import locate
from epigone.study.specs import BenchmarkSpec, ModelSpec


def measure(lm: Any, chosen: dict[str, list[int]], manager: TaskManager) -> tuple[float, Any]:
    start = time.perf_counter()
    result = simple_evaluate(
        model=lm,
        tasks=list(chosen),
        samples=chosen,
        task_manager=manager,
        log_samples=True,
        bootstrap_iters=0,
    )
    return time.perf_counter() - start, result["samples"]


def answers(samples: Any) -> dict[str, Any]:
    """What each item was answered: the text, or the position of the likeliest choice."""
    out = {}
    for rows in samples.values():
        for row in rows:
            replies = row["filtered_resps"]
            if isinstance(replies[0], str):
                out[row["doc"]["id"]] = replies[0].strip()
            else:
                values = [float(r[0]) for r in replies]
                out[row["doc"]["id"]] = values.index(max(values))
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--limit", type=int, default=56)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    loaded = load(locate(options.model), "fp32")
    theirs = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=options.batch)
    ours = SharedPrefixLM(loaded)
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch")
    print(f"{torch.__version__}; {options.model}, fp32, {options.limit} items a task\n")
    print("| task | lm-eval s | ours s | ratio | answers that differ |")
    print("| --- | --- | --- | --- | --- |")
    for task in ("choices", "facts"):
        model = ModelSpec(kind="base", name="base")
        spec = BenchmarkSpec(
            model=model, task=task, task_version=1, label=task, limit=options.limit
        )
        chosen = _chosen(load_parts(spec), spec)
        times: dict[str, list[float]] = {"theirs": [], "ours": []}
        differ = 0
        for _ in range(options.runs):
            seconds, a = measure(theirs, chosen, manager)
            times["theirs"].append(seconds)
            seconds, b = measure(ours, chosen, manager)
            times["ours"].append(seconds)
            first, second = answers(a), answers(b)
            differ = sum(first[k] != second[k] for k in first)
        t, o = statistics.median(times["theirs"]), statistics.median(times["ours"])
        ratios = [x / y for x, y in zip(times["theirs"], times["ours"], strict=True)]
        print(
            f"| {task} | {t:.1f} | {o:.1f} | {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f}-{max(ratios):.2f}) | {differ} of {len(first)} |"
        )


if __name__ == "__main__":
    main()
