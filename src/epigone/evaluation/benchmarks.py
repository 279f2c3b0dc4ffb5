"""Benchmarks: lm-eval's tasks and metrics, asked of our model class, item by item."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from epigone.errors import StepFailed, UnknownName
from epigone.evaluation.catalogue import TASKS, known_tasks
from epigone.files import cache_root, write_jsonl
from epigone.models.load import load
from epigone.models.references import locate
from epigone.schema import Progress, Score, silent
from epigone.study.specs import BenchmarkSpec, amount_folder


def run(
    spec: BenchmarkSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """See `epigone.evaluation.run_benchmark`; writes scores.jsonl and samples.jsonl."""
    if spec.model.kind == "student":
        folder = inputs["student"] / amount_folder(spec.model.amount)
    else:
        folder = locate(spec.model.ref, progress, fingerprint=spec.model.fingerprint)
    started = time.monotonic()
    scores, samples, shortened = _measure(
        folder, [spec.task], spec.model.name, spec.limit, spec.seed, progress
    )
    write_jsonl(out / "samples.jsonl", samples)
    write_jsonl(out / "scores.jsonl", (s.to_json() for s in scores))
    return {
        "values": {s.metric: s.value for s in scores},
        "n": scores[0].n,
        "requests_shortened": shortened,
        "seconds_measuring": round(time.monotonic() - started, 2),
    }


def benchmark(
    folder: Path,
    tasks: Sequence[str],
    *,
    model: str,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[list[Score], list[dict[str, Any]]]:
    """Scores and per-item samples of one model folder; `limit` takes a seeded subset of the items.

    The subset depends on the items' ids and the seed alone, so that it is the same for every model.
    Raises UnknownName for a benchmark that is not shipped, before anything is loaded.
    """
    scores, samples, _ = _measure(folder, tasks, model, limit, seed, progress)
    return scores, samples


def _measure(
    folder: Path,
    tasks: Sequence[str],
    model: str,
    limit: int | None,
    seed: int,
    progress: Progress,
) -> tuple[list[Score], list[dict[str, Any]], int]:
    for task in tasks:
        if task not in known_tasks():
            raise UnknownName("benchmark", task, known_tasks())
    loaded = load(folder)
    scores: list[Score] = []
    samples: list[dict[str, Any]] = []
    with _offline():
        from epigone.evaluation.lm import SharedPrefixLM

        lm = SharedPrefixLM(loaded, progress)
        for task in tasks:
            rows = _evaluate(lm, task, limit, seed)
            samples += [{"task": task, "model": model, **row} for row in rows]
            scores += _scores(task, model, rows)
    return scores, samples, lm.shortened


def _evaluate(lm: Any, task: str, limit: int | None, seed: int) -> list[dict[str, Any]]:
    from lm_eval.evaluator import evaluate

    with _quiet():
        parts = _parts(task)
        chosen = _chosen(parts, limit, seed)
        # `simple_evaluate` would call git and list the machine's packages around this.
        result = evaluate(
            lm=lm,
            task_dict={"tasks": {name: parts[name] for name in chosen}, "groups": {}},
            samples=chosen,
            log_samples=True,
            bootstrap_iters=0,
        )
    rows: list[dict[str, Any]] = []
    for name in chosen:
        metrics = [str(m["metric"]) for m in parts[name].config.metric_list]
        for sample in sorted(result["samples"][name], key=lambda s: s["doc_id"]):
            rows.append(_row(name, sample, metrics))
    return rows


def _parts(task: str, folder: Path = TASKS) -> dict[str, Any]:
    """The leaf tasks of a task or group, by name."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    # lm-eval drops a task file that it cannot read, and says so only at debug level.
    if task not in manager.all_tasks:
        raise StepFailed(f"lm-eval cannot read the files of benchmark {task!r} in {folder}")
    parts: dict[str, Any] = manager.load([task])["tasks"]
    for part in parts.values():
        part.set_fewshot_seed(seed=0)
    return parts


def _chosen(parts: Mapping[str, Any], limit: int | None, seed: int) -> dict[str, list[int]]:
    every = [
        (hashlib.sha256(f"{seed}:{doc['id']}".encode()).hexdigest(), name, index)
        for name, part in parts.items()
        for index, doc in enumerate(part.eval_docs)
    ]
    kept = sorted(every)[:limit]
    found: dict[str, list[int]] = {}
    for name in parts:
        indices = sorted(index for _, part, index in kept if part == name)
        if indices:
            found[name] = indices
    return found


def _row(name: str, sample: Mapping[str, Any], metrics: Sequence[str]) -> dict[str, Any]:
    doc = sample["doc"]
    prompt = sample["arguments"][0][0]
    return {
        "item": doc["id"],
        "part": name,
        "subject": doc.get("subject", ""),
        "question": doc["question"],
        "prompt_sha256": hashlib.sha256(prompt.encode()).hexdigest(),
        "target": sample["target"],
        "output": sample["filtered_resps"],
        "metrics": {m: float(sample[m]) for m in metrics},
    }


def _scores(task: str, model: str, rows: Sequence[Mapping[str, Any]]) -> list[Score]:
    # Subjects are fixed strata, not a random sample of subjects: items are no clusters of them.
    scores = []
    for metric in rows[0]["metrics"]:
        values = {row["item"]: row["metrics"][metric] for row in rows}
        scores.append(
            Score(
                metric=metric,
                model=model,
                family="capability",
                value=sum(values.values()) / len(values),
                n=len(values),
                values=values,
                task=task,
                version=known_tasks()[task],
            )
        )
    return scores


@contextmanager
def _offline() -> Iterator[None]:
    # The shipped tasks read files beside them; nothing may ask a hub because a cache is missing.
    wanted = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(_writable(cache_root() / "datasets")),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.gettempdir())
    return folder


@contextmanager
def _quiet() -> Iterator[None]:
    import lm_eval.api.task

    # Its progress bar cannot be switched off, and ours is on the same terminal.
    bar, lm_eval.api.task.tqdm = lm_eval.api.task.tqdm, lambda rows, **_: rows
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        lm_eval.api.task.tqdm = bar
