"""The step of a study that asks a judge, and what it writes down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epigone.errors import StepFailed
from epigone.evaluation.judge.answers import read_answers, read_references
from epigone.evaluation.judge.ask import Judge, Question, Verdict
from epigone.evaluation.judge.protocols import (
    missing,
    questions,
    rated_together,
    ratings,
    scores,
    unread,
)
from epigone.files import write_jsonl
from epigone.models.endpoint import Client, Endpoint
from epigone.models.references import locate_data, parse
from epigone.schema import Progress
from epigone.study.specs import JudgeSpec, MeansSpec, ModelSpec

VERDICTS, RATINGS, SCORES = "verdicts.jsonl", "ratings.jsonl", "scores.jsonl"
# A busy endpoint lets requests wait for one another.
_SECONDS = 600.0


def run(
    spec: JudgeSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """See `epigone.evaluation.run_judge`; writes verdicts.jsonl, ratings.jsonl and scores.jsonl."""
    model = read_answers(inputs["model"] / "samples.jsonl", spec.model)
    against = None
    if spec.against:
        against = read_answers(inputs["against"] / "samples.jsonl", spec.against)
    references = {}
    if spec.references is not None:
        told = spec.references
        references = read_references(locate_data(told.ref, progress, fingerprint=told.fingerprint))
        if not set(references) & set(model):
            raise StepFailed("no reference is of an item that is judged")
    asked = questions(spec.rubrics, model, against, spec.n, references)
    verdicts = ask(spec.judge, spec.rubrics, spec.max_tokens, spec.tries, asked, progress)
    name = spec.judge.name
    found = scores(verdicts, name, spec.model, spec.against, model, spec.n, references)
    write(out, verdicts, name)
    write_jsonl(out / SCORES, (s.to_json() for s in found))
    check_read(unread(verdicts), name)
    own, other = (sum(v.values()) for v in rated_together(verdicts, spec.model, spec.against))
    return {
        "judge": name,
        "endpoint": spec.judge.ref,
        "questions": len(verdicts),
        "tries": sum(v.tries for v in verdicts),
        "missing": missing(verdicts),
        "with_references": len(set(references) & set(model)),
        "score_over_the_others": own / other if other else None,
        "values": {s.metric: s.value for s in found},
    }


def check_read(lost: int, judge: str) -> None:
    """Raise StepFailed where a judge was asked and said nothing that can be read (`unread`)."""
    if lost:
        raise StepFailed(f"{judge} gave no verdict that can be read on any of {lost} questions")


def ask(
    judge: ModelSpec,
    rubrics: Mapping[str, str],
    max_tokens: int,
    tries: int,
    asked: Sequence[Question],
    progress: Progress,
) -> list[Verdict]:
    """A judge's verdicts; see `Judge.ask` for what it raises."""
    means = judge.means or MeansSpec()
    url, _, model = parse(judge.ref).value.partition("#")
    client = Client(Endpoint(url, model, means.key_env, _SECONDS))
    try:
        return Judge(client, rubrics, max_tokens, tries, means.concurrency).ask(asked, progress)
    finally:
        client.close()


def write(out: Path, verdicts: Sequence[Verdict], judge: str) -> None:
    """Write down every verdict, and the preferences among them as ratings."""
    rows = [v.to_json() for v in verdicts]
    rows.sort(key=lambda r: (r["protocol"], r["item"], r["models"]))
    write_jsonl(out / VERDICTS, rows)
    write_jsonl(out / RATINGS, (r.to_json() for r in ratings(verdicts, judge)))
