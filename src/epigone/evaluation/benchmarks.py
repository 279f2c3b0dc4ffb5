"""Benchmarks: lm-eval's tasks and metrics, asked of our model class, item by item."""

from __future__ import annotations

import hashlib
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epigone.errors import BenchmarkError
from epigone.evaluation import code
from epigone.evaluation.original import draw
from epigone.evaluation.parts import compiled_once, item_ids, load_parts, offline, quiet
from epigone.evaluation.table import write_table
from epigone.evaluation.target import target_of
from epigone.files import SCRATCH, read_jsonl, write_jsonl
from epigone.models.endpoint import Client, Endpoint
from epigone.models.kept import Kept
from epigone.models.load import load
from epigone.schema import Progress, Score, silent
from epigone.study.identity import digest
from epigone.study.specs import BenchmarkSpec

SCORES, TABLE = "scores.jsonl", "samples.parquet"
_NO_CHOICE = "no choice named"
_REFUSED = "refused: "


@dataclass(frozen=True, slots=True)
class Measured:
    """What one model made of one benchmark.

    `rows` holds an item each: its name, part, prompt's hash, target, outputs, why each ended, what
    became of each as a program, and its metrics. `summaries` are metrics that are no mean over
    items, as lm-eval has them.
    """

    scores: list[Score]
    rows: list[dict[str, Any]]
    summaries: dict[str, float]
    shortened: int


def run(
    spec: BenchmarkSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """See `epigone.evaluation.run_benchmark`; writes scores.jsonl and samples.parquet."""
    started = time.monotonic()
    learnt = _learnt(spec, inputs)
    target = target_of(spec.model, inputs, progress)
    found = measure(target, spec, out / SCRATCH, learnt=learnt, progress=progress)
    write_table(out / TABLE, found.rows)
    write_jsonl(out / SCORES, (s.to_json() for s in found.scores))
    return {
        "values": {s.metric: s.value for s in found.scores} | found.summaries,
        "n": len(found.rows),
        "in_the_corpus": sum(bool(row["learnt"]) for row in found.rows),
        # A hub may give other items tomorrow.
        "items_sha256": digest({"items": sorted(row["item"] for row in found.rows)}),
        "requests_shortened": found.shortened,
        "refused": sum(any(v.startswith(_REFUSED) for v in r["verdicts"]) for r in found.rows),
        "seconds_measuring": round(time.monotonic() - started, 2),
    }


def _learnt(spec: BenchmarkSpec, inputs: Mapping[str, Path]) -> Set[str]:
    """The items that stand in the part of the corpus that a student has seen."""
    if "overlap" not in inputs:
        return frozenset()
    rows = read_jsonl(inputs["overlap"] / "overlap.jsonl")
    return {row["item"] for row in rows if row["tokens_before"] < spec.model.amount}


def measure(
    target: Path | Endpoint,
    spec: BenchmarkSpec,
    scratch: Path | None = None,
    *,
    learnt: Set[str] = frozenset(),
    progress: Progress = silent,
) -> Measured:
    """Scores and items of one model on one benchmark; `learnt` are items that it was trained on.

    A subset depends on the items' names and the seed alone, so that it is the same for every
    model. Answers are kept in `scratch` as they come, for a run that goes on. Raises
    BenchmarkError, UnknownName and SandboxError before a model answers, EndpointError later.
    """
    if spec.task in code.TASKS:
        code.probe()
    asked = isinstance(target, Endpoint)
    parts = load_parts(spec, chat=spec.format == "chat" or asked)
    chosen = _chosen(parts, spec)
    with offline(), quiet(), compiled_once(), _model(target, spec, scratch, progress) as lm:
        from lm_eval.evaluator import evaluate

        # `simple_evaluate` would call git and list the machine's packages around this.
        result = evaluate(
            lm=lm,
            task_dict={"tasks": {name: parts[name] for name in chosen}, "groups": {}},
            samples=chosen,
            log_samples=True,
            bootstrap_iters=0,
            apply_chat_template=spec.format == "chat",
            fewshot_as_multiturn=spec.format == "chat",
        )
    rows = [r for name, own in chosen.items() for r in _rows(parts[name], name, own, result, spec)]
    for row in rows:
        row["learnt"] = row["item"] in learnt
    if spec.task in code.TASKS:
        code.grade_rows(rows, chat=spec.format == "chat" or asked, progress=progress)
    scores, summaries = _scores(rows, result, spec, getattr(lm, "method", ""))
    return Measured(scores, [_told(row) for row in rows], summaries, lm.shortened)


@contextmanager
def _model(
    target: Path | Endpoint, spec: BenchmarkSpec, scratch: Path | None, progress: Progress
) -> Iterator[Any]:
    kept = Kept(scratch / "answers.jsonl" if scratch else None)
    if isinstance(target, Endpoint):
        from epigone.evaluation.asked import EndpointLM

        client = Client(target)
        try:
            yield EndpointLM(client, kept, progress, instructed=spec.task in code.TASKS)
        finally:
            client.close()
        return
    from epigone.evaluation.lm import SharedPrefixLM

    loaded = load(target)
    chat = spec.format == "chat"
    if chat and not getattr(loaded.tokenizer, "chat_template", None):
        raise BenchmarkError(
            f"{spec.label} is asked in chat, and the model has no chat template",
            value=spec.model.name, fix="format: raw",
        )  # fmt: skip
    yield SharedPrefixLM(loaded, progress, chat=chat, seed=spec.seed, kept=kept)


def _chosen(parts: Mapping[str, Any], spec: BenchmarkSpec) -> dict[str, list[int]]:
    every = [
        (draw(spec.seed, item), name, index)
        for name, part in parts.items()
        for index, item in enumerate(item_ids(part, name, own=spec.suite is None))
    ]
    if not every:
        raise BenchmarkError("a benchmark without items", value=spec.label)
    kept = sorted(every)[: spec.limit]
    found: dict[str, list[int]] = {}
    for name in parts:
        indices = sorted(index for _, part, index in kept if part == name)
        if indices:
            found[name] = indices
    return found


def _rows(
    part: Any, name: str, chosen: Sequence[int], result: Mapping[str, Any], spec: BenchmarkSpec
) -> list[dict[str, Any]]:
    """A row for each item; several filters of its answer add to its metrics."""
    ids = item_ids(part, name, own=spec.suite is None)
    # Requests count the chosen documents, samples all of them.
    stops = {chosen[i.doc_id]: getattr(i, "stops", []) for i in part.instances}
    wrong = {chosen[i.doc_id] for i in part.instances if getattr(i, "unanswered", False)}
    refused = {chosen[i.doc_id]: i.refused for i in part.instances if getattr(i, "refused", "")}
    letters: dict[int, list[float]] = defaultdict(list)
    for request in part.instances:
        if hasattr(request, "letter"):
            letters[chosen[request.doc_id]].append(request.letter)
    rows: dict[int, dict[str, Any]] = {}
    for sample in sorted(result["samples"][name], key=lambda s: s["doc_id"]):
        doc, prompt = sample["doc"], sample["arguments"][0][0]
        row = rows.setdefault(
            sample["doc_id"],
            {
                "item": ids[sample["doc_id"]],
                "part": name,
                "subject": str(doc.get("subject", "")),
                "prompt_sha256": hashlib.sha256(str(prompt).encode()).hexdigest(),
                "target": str(sample["target"]),
                "outputs": letters.get(sample["doc_id"]) or _outputs(sample),
                "stops": stops.get(sample["doc_id"], []),
                "verdicts": [],
                "metrics": {},
                "doc": doc,
            },
        )
        suffix = "" if spec.suite is None or sample["filter"] == "none" else f",{sample['filter']}"
        if sample["doc_id"] in refused:
            # No answer is no wrong answer: the item has no score.
            row["verdicts"] = [_REFUSED + refused[sample["doc_id"]]]
            row["outputs"] = []
            continue
        for metric in sample["metrics"]:
            # Where no choice was named, the first of equal likelihoods would win.
            row["metrics"][f"{metric}{suffix}"] = (
                0.0 if sample["doc_id"] in wrong else sample[metric]
            )
        if sample["doc_id"] in wrong:
            row["verdicts"] = [_NO_CHOICE]
    return list(rows.values())


def _outputs(sample: Mapping[str, Any]) -> list[Any]:
    """Answers as texts, or the log-probability of each choice and whether it is greedy."""
    if len(sample["resps"]) == 1 and isinstance(sample["resps"][0][0], str):
        return list(sample["resps"][0])
    return [answer for answers in sample["resps"] for answer in answers]


def _scores(
    rows: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any],
    spec: BenchmarkSpec,
    method: str,
) -> tuple[list[Score], dict[str, float]]:
    # Subjects are fixed strata, not a random sample of subjects: items are no clusters of them.
    scores: list[Score] = []
    summaries: dict[str, float] = {}
    for metric in dict.fromkeys(m for row in rows for m in row["metrics"]):
        values = {r["item"]: r["metrics"][metric] for r in rows if metric in r["metrics"]}
        summary = _summarised(result, rows, metric)
        if summary is not None:
            # An F1, a perplexity or a correlation over all items has no value of one of them.
            summaries |= {metric: summary} if math.isfinite(summary) else {}
            continue
        mean = sum(map(float, values.values())) / len(values)
        scores.append(
            Score(
                metric=metric,
                model=spec.model.name,
                family="capability",
                value=mean,
                n=len(values),
                values={item: float(v) for item, v in values.items()},
                better="higher" if _higher(result, rows, metric) else "lower",
                task=spec.label,
                version=spec.task_version,
                primary=not scores,
                method=method,
                learnt=tuple(r["item"] for r in rows if r["learnt"] and r["item"] in values),
            )
        )
    return scores, summaries


def _summarised(
    result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], metric: str
) -> float | None:
    """What lm-eval makes of a metric that in any part is no mean over items; NaN for several."""
    # What lm-eval made of them counts items that have no score here, or another.
    altered = any(v.startswith((_NO_CHOICE, _REFUSED)) for row in rows for v in row["verdicts"])
    parts: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        if metric in row["metrics"]:
            parts[row["part"]].append(row["metrics"][metric])
    key = metric if "," in metric else f"{metric},none"
    for part, values in parts.items():
        known = result["results"].get(part, {}).get(key)
        plain = all(isinstance(v, bool | int | float) for v in values)
        mean = sum(map(float, values)) / len(values) if plain else math.nan
        told = isinstance(known, int | float) and not altered
        if not plain or (told and not math.isclose(known, mean, rel_tol=1e-6, abs_tol=1e-6)):
            return float(known) if told and len(parts) == 1 else math.nan
    return None


def _higher(result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], metric: str) -> bool:
    told = result.get("higher_is_better", {}).get(rows[0]["part"], {})
    return told.get(metric.partition(",")[0], True) is not False


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k != "doc"}
