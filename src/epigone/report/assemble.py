"""What is done of a study, put together for its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epigone.errors import UserError
from epigone.files import read_json, read_jsonl
from epigone.findings import Findings, Subject, analyse
from epigone.models import catalogue
from epigone.report.metrics import METRICS
from epigone.report.view import (
    Corpus,
    Item,
    Output,
    Reported,
    ReportView,
    Source,
    Step,
    StepState,
    Teacher,
)
from epigone.runs.plan import Planned, plan
from epigone.runs.store import Store
from epigone.schema import Record, Sample, Score
from epigone.study.declare import Declaration
from epigone.study.specs import CorpusSpec, DataSpec, GenerateSpec, TrainSpec
from epigone.study.steps import Expansion


def findings_of(declaration: Declaration, expansion: Expansion, store: Store) -> Findings:
    """Findings of the scores that are there."""
    return _findings(declaration, expansion, _scores(plan(expansion, store), store))


def view_of(declaration: Declaration, expansion: Expansion, store: Store) -> ReportView:
    """Everything that the report shows, read from the finished steps.

    Raises UserError where no step is finished yet.
    """
    planned = plan(expansion, store)
    records = [p.record for p in planned if p.record is not None]
    if not records:
        raise UserError("nothing is done yet", value=declaration.name, fix="epigone run")
    scores = _scores(planned, store)
    teacher = declaration.teacher
    return ReportView(
        study=declaration.name,
        teacher=Teacher(
            name=teacher.name,
            description="recorded: its outputs were read from files, nothing was asked",
            terms=teacher.terms,
            reported=tuple(
                Reported(name, r.value, r.source) for name, r in teacher.reported.items()
            ),
        ),
        subjects=_subjects(expansion),
        scores=scores,
        findings=_findings(declaration, expansion, scores),
        items=_items(planned, store, teacher.name),
        corpora=tuple(_corpus(p, store) for p in planned if p.step.stage == "corpus" and p.record),
        steps=tuple(_step(p) for p in planned),
        provenance=_provenance(declaration, expansion, records),
        metrics=METRICS,
        remarks=_remarks(planned),
        created=max(r.finished for r in records),
    )


def _subjects(expansion: Expansion) -> tuple[Subject, ...]:
    return tuple(
        Subject(s.model, s.base)
        if s.cell is None
        else Subject(s.model, s.base, s.cell.corpus, s.cell.amount, s.cell.seed)
        for s in expansion.subjects
    )


def _findings(
    declaration: Declaration, expansion: Expansion, scores: tuple[Score, ...]
) -> Findings:
    reported = {name: r.value for name, r in declaration.teacher.reported.items()}
    return analyse(
        _subjects(expansion), scores, teacher=declaration.teacher.name, reported=reported
    )


def _scores(planned: list[Planned], store: Store) -> tuple[Score, ...]:
    return tuple(
        Score.from_json(row)
        for p in planned
        if p.step.stage in ("style", "benchmark") and p.record is not None
        for row in read_jsonl(store.folder(p.step) / "scores.jsonl")
    )


def _items(planned: list[Planned], store: Store, teacher: str) -> tuple[Item, ...]:
    samples: dict[str, dict[str, Sample]] = {}
    for p in planned:
        if p.step.stage == "generate" and p.record is not None:
            rows = read_jsonl(store.folder(p.step) / "samples.jsonl")
            samples[p.step.model] = {s.item: s for s in map(Sample.from_json, rows)}
    answers = samples.pop(teacher, {})
    first: dict[str, Sample] = dict(answers)
    for by_item in samples.values():
        first = {**by_item, **first}
    return tuple(
        Item(
            id=item,
            prompt=sample.prompt,
            answer=answers[item].output if item in answers else None,
            outputs=tuple(
                Output(model, by_item[item].output, by_item[item].stop)
                for model, by_item in samples.items()
                if item in by_item
            ),
        )
        for item, sample in first.items()
    )


def _corpus(p: Planned, store: Store) -> Corpus:
    audit = read_json(store.folder(p.step) / "audit.json")
    spec = p.step.spec
    assert isinstance(spec, CorpusSpec)
    assert p.record is not None
    lost: Counter[str] = Counter()
    for source in audit["sources"]:
        for loss in source["lost"]:
            unit = "rows" if loss["rows"] else "bytes"
            lost[f"{loss['reason']} ({unit})"] += loss[unit]
        for reason, row in source["invalid"].items():
            lost[f"{reason} (rows)"] += row["rows"]
    return Corpus(
        name=p.step.slug,
        kind=spec.kind,
        read=sum(s["read"] for s in audit["sources"]),
        kept=p.record.facts["kept"],
        sources=tuple(_source(s) for s in spec.sources),
        dropped={
            rule: row["conversations_dropped"] for rule, row in audit["rules"].items() if row["on"]
        },
        lost=dict(lost),
        facts={
            k: _number(v) for k, v in p.record.facts.items() if isinstance(v, int | float | str)
        },
    )


def _source(source: DataSpec) -> Source:
    return Source(
        name=source.ref if source.ref in catalogue.load() else Path(source.ref).name,
        licence=source.licence,
        terms=source.terms,
        sha256=source.fingerprint.removeprefix("sha256:"),
    )


def _step(p: Planned) -> Step:
    state: StepState = {"done": "done", "failed": "failed", "damaged": "failed"}.get(
        p.state, "pending"
    )  # type: ignore[assignment]
    note = p.why if state == "failed" else ""
    seconds = p.record.seconds if p.record else None
    return Step(p.step.stage, p.step.slug, state, seconds, p.step.hash[:12], note)


def _provenance(
    declaration: Declaration, expansion: Expansion, records: list[Record]
) -> Mapping[str, Mapping[str, str]]:
    last = max(records, key=lambda r: r.finished)
    trunks = [s.spec for s in expansion.steps if isinstance(s.spec, TrainSpec)]
    models: dict[str, str] = {}
    for trunk in trunks:
        entry = catalogue.load().get(trunk.base.ref)
        terms = f"; {entry.licence}" if entry else ""
        models[trunk.base.name] = trunk.base.fingerprint + terms
    recipe = {k: str(v) for k, v in trunks[0].recipe.model_dump().items()} if trunks else {}
    training = next((r.facts for r in records if r.stage == "train"), {})
    seen = {k: str(training[k]) for k in ("master_weights", "compute", "device") if k in training}
    machine = {k: str(last.environment.get(k, "")) for k in ("platform", "machine", "cpus")}
    peak = max(r.peak_bytes for r in records)
    return {
        "Models": models,
        "Recipe": {**recipe, **seen, "seeds": ", ".join(map(str, declaration.seeds))},
        "Machine": {**machine, "largest step's memory": f"{peak / 1e9:.1f} GB"},
        "Versions": {
            "python": str(last.environment.get("python", "")),
            **{k: str(v) for k, v in dict(last.environment.get("versions", {})).items()},
        },
        "Terms": {"teacher's outputs": declaration.teacher.terms or "not stated"},
    }


def _remarks(planned: list[Planned]) -> tuple[str, ...]:
    remarks: list[str] = []
    for p in planned:
        if p.step.stage == "train" and p.record is not None:
            facts = p.record.facts
            remarks.append(
                f"{p.step.slug}: {facts['supervised']:,} supervised of {facts['tokens']:,} tokens "
                f"in {facts['steps']} optimiser steps, {facts['warmup_steps']} of them warm-up; "
                f"every amount is a checkpoint of this one run."
            )
        if p.step.stage == "generate" and isinstance(p.step.spec, GenerateSpec):
            if p.step.spec.model.kind != "teacher":
                continue
            remarks.append(
                f"Style is measured on the first {p.step.spec.n} held-out prompts, and there on "
                f"the first {p.step.spec.max_new_tokens} tokens of each answer: models may write "
                f"no more, and a longer recorded answer is cut there."
            )
    return tuple(remarks)


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
