"""What is done of a study, put together for its report."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from epigone.errors import UserError
from epigone.files import read_json, read_jsonl
from epigone.findings import Findings, Subject, analyse, selected, win_scores
from epigone.models import catalogue
from epigone.report.cells import cells_of
from epigone.report.items import items_of, judge_ratings
from epigone.report.metrics import METRICS
from epigone.report.opinions import opinions
from epigone.report.people import rated
from epigone.report.reported import beside, teacher_values, with_reported
from epigone.report.training import LOG, curves_of
from epigone.report.view import (
    Corpus,
    Reported,
    ReportView,
    Source,
    Step,
    StepState,
    Teacher,
    Trunk,
)
from epigone.report.worth import bases_of, dollars_of, worth
from epigone.runs.lock import Lock, read_lock
from epigone.runs.plan import Planned, plan
from epigone.runs.store import Store
from epigone.schema import Cell, Rating, Record, Score
from epigone.study.declare import Declaration
from epigone.study.judge import second_of
from epigone.study.publications import Publications
from epigone.study.rounds import random_twins
from epigone.study.specs import (
    AskSpec,
    CorpusSpec,
    DataSpec,
    FeedbackSpec,
    GenerateSpec,
    JudgeSpec,
    LoraSpec,
    RecipeSpec,
    Spec,
    TrainSpec,
    amount_folder,
)
from epigone.study.step import Step as StudyStep
from epigone.study.steps import Expansion
from epigone.study.templates import BUILT_IN
from epigone.study.terms import terms_in


def findings_of(
    declaration: Declaration, expansion: Expansion, store: Store, given: Publications
) -> Findings:
    """Findings of the scores that are there."""
    planned = plan(expansion, store)
    subjects = worth(_subjects(expansion), declaration, expansion, planned, store)
    scores = with_reported(_scores(planned, store, expansion.teacher), given)
    return _findings(declaration, subjects, scores, planned, given, read_lock(store.root))


def view_of(
    declaration: Declaration, expansion: Expansion, store: Store, given: Publications
) -> ReportView:
    """Everything that the report shows, read from the finished steps and from what is `given`.

    Raises UserError where no step is finished yet and nothing was reported.
    """
    planned, lock = plan(expansion, store), read_lock(store.root)
    records = [p.record for p in planned if p.record is not None]
    if not records and not given.scores:
        raise UserError("nothing is done yet", value=declaration.name, fix="epigone run")
    teacher = declaration.teacher
    measured = _scores(planned, store, teacher.name)
    scores = with_reported(measured, given)
    people, pending = rated(store.root, declaration.evaluate.raters)
    ratings = [*people, *judge_ratings(planned, store)]
    subjects = worth(_subjects(expansion), declaration, expansion, planned, store)
    said = opinions(planned, store, teacher.name, subjects, scores, people, ratings)
    return ReportView(
        study=declaration.name,
        teacher=Teacher(
            name=teacher.name,
            description=_teacher(declaration),
            terms=teacher.terms,
            reported=tuple(
                Reported(name, r.value, r.source) for name, r in teacher.reported.items()
            ),
        ),
        subjects=subjects,
        scores=scores,
        findings=_findings(declaration, subjects, scores, planned, given, lock),
        selected=selected(subjects, scores, random_twins(declaration.corpora, declaration.amounts)),
        items=items_of(planned, store, teacher.name, ratings),
        corpora=tuple(_corpus(p, store) for p in planned if p.step.stage == "corpus" and p.record),
        trunks=_trunks(planned, expansion, store),
        steps=tuple(_step(p) for p in planned),
        provenance=_provenance(declaration, expansion, records),
        metrics=METRICS,
        remarks=(*_remarks(planned), *([pending] if pending else [])),
        judged=said.judged,
        fooled=said.fooled,
        agreed=said.agreed,
        rating=pending,
        created=max((r.finished for r in records), default=""),
        beside=beside(given, measured),
        figures=given.figures,
        kinds={
            _line(cell): declaration.corpora[cell.corpus].kind
            for cell in expansion.cells()
            if cell.corpus
        },
        cells=cells_of(subjects, expansion, planned),
        text=_text(store.root / "study.yaml"),
        locked=lock.references,
    )


def _teacher(declaration: Declaration) -> str:
    endpoint = declaration.teacher.endpoint
    asked = [name for name, c in declaration.corpora.items() if c.synthesize is not None]
    if endpoint is None or not asked:
        return "recorded: its outputs were read from files" + (
            ", nothing was asked" if endpoint is None else "; its endpoint was measured"
        )
    return f"{endpoint.model} at {endpoint.url}, asked for {', '.join(asked)}"


def _subjects(expansion: Expansion) -> tuple[Subject, ...]:
    found = []
    for s in expansion.subjects:
        if s.cell is None:
            found.append(Subject(s.model, s.base))
            continue
        line = _line(s.cell)
        fed_back = s.made_by is not None and s.made_by.stage == "feedback"
        found.append(Subject(s.model, s.base, line, s.cell.amount, s.cell.seed, fed_back))
    return tuple(found)


def _line(cell: Cell) -> str:
    # Each variant is a line of students of its own, as each corpus is.
    named = (cell.corpus, *cell.variant.split(","))
    return ", ".join(filter(None, named)) if cell.corpus else f"feedback {cell.variant}"


def _trunks(planned: list[Planned], expansion: Expansion, store: Store) -> tuple[Trunk, ...]:
    lines = {
        s.made_by.name: _line(s.cell)
        for s in expansion.subjects
        if s.cell is not None and s.made_by is not None
    }
    found = []
    for p in planned:
        if not isinstance(p.step.spec, TrainSpec) or p.record is None:
            continue
        folder = store.folder(p.step)
        own = {a: folder / amount_folder(a) / LOG for a in p.step.spec.amounts}
        found.append(
            Trunk(
                name=p.step.slug,
                base=p.step.spec.base.name,
                line=lines.get(p.step.name, p.step.slug),
                seed=p.step.spec.seed,
                curves=tuple(curves_of(list(read_jsonl(folder / LOG)))),
                taken={a: sum(r["supervised"] for r in read_jsonl(f)) for a, f in own.items()},
                facts=p.record.facts,
                seconds=p.record.seconds,
                peak_bytes=p.record.peak_bytes,
            )
        )
    return tuple(found)


def _findings(
    declaration: Declaration,
    subjects: Sequence[Subject],
    scores: tuple[Score, ...],
    planned: Sequence[Planned],
    given: Publications,
    lock: Lock,
) -> Findings:
    reported = {name: r.value for name, r in declaration.teacher.reported.items()}
    reported |= teacher_values(given)
    return analyse(
        subjects,
        scores,
        declaration.teacher.name,
        reported,
        bases=bases_of(planned, lock.parameters),
    )


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _scores(planned: list[Planned], store: Store, teacher: str) -> tuple[Score, ...]:
    found = [
        Score.from_json(row)
        for p in planned
        if p.step.stage in ("style", "judge", "benchmark", "toxicity") and p.record is not None
        # Of two students, which is preferred is no score of either.
        if not isinstance(p.step.spec, JudgeSpec) or p.step.spec.against in ("", teacher)
        for row in read_jsonl(store.folder(p.step) / "scores.jsonl")
    ]
    return (*found, *_win_scores(planned, store, teacher))


def _win_scores(planned: list[Planned], store: Store, teacher: str) -> Iterator[Score]:
    """What judges prefer to the teacher's answers; its second sample's are the teacher's own."""
    for p in planned:
        spec = p.step.spec
        if isinstance(spec, JudgeSpec) and spec.against == teacher and p.record is not None:
            rows = read_jsonl(store.folder(p.step) / "ratings.jsonl")
            ratings = [Rating.from_json(row) for row in rows]
            for score in win_scores(ratings, spec.model, teacher, spec.judge.name):
                again = spec.model == second_of(teacher)
                yield replace(score, model=teacher) if again else score


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
        sources=tuple(_source(s) for s in (*spec.sources, *_asked_with(p.step))),
        dropped={
            rule: row["conversations_dropped"] for rule, row in audit["rules"].items() if row["on"]
        },
        lost=dict(lost),
        facts={
            k: _number(v) for k, v in p.record.facts.items() if isinstance(v, int | float | str)
        },
    )


def _asked_with(step: StudyStep) -> list[DataSpec]:
    """The prompts, passages and seeds that a corpus was asked for with, each once."""
    asked = [s.spec for s in step.inputs.values() if isinstance(s.spec, AskSpec)]
    found = [d for spec in asked for d in (spec.data, spec.seeds) if d is not None]
    return [d for i, d in enumerate(found) if d not in found[:i]]


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
    hash_, dollars = p.step.hash[:12], dollars_of(p.record)
    return Step(p.step.stage, p.step.slug, state, seconds, hash_, note, dollars)


def _provenance(
    declaration: Declaration, expansion: Expansion, records: list[Record]
) -> Mapping[str, Mapping[str, str]]:
    last = max(records, key=lambda r: r.finished, default=None)
    environment = last.environment if last is not None else {}
    trunks = [s.spec for s in expansion.steps if isinstance(s.spec, TrainSpec)]
    models: dict[str, str] = {}
    for trunk in trunks:
        entry = catalogue.load().get(trunk.base.ref)
        terms = f"; {entry.licence}" if entry else ""
        models[trunk.base.name] = trunk.base.fingerprint + terms
    recipes = [trunk.recipe for trunk in trunks]
    recipe = {
        name: " or ".join(dict.fromkeys(_setting(name, getattr(r, name)) for r in recipes))
        for name in (RecipeSpec.model_fields if recipes else ())
    }
    training = next((r.facts for r in records if r.stage == "train"), {})
    seen = {k: str(training[k]) for k in ("master_weights", "compute", "device") if k in training}
    machine = {k: str(environment[k]) for k in ("platform", "machine", "cpus") if k in environment}
    if records:
        peak = max(r.peak_bytes for r in records)
        machine["largest step's memory"] = f"{peak / 1e9:.1f} GB"
    groups: dict[str, dict[str, str]] = {
        "Models": models,
        "Recipe": {**recipe, **seen, "seeds": ", ".join(map(str, declaration.seeds))},
        "Machine": machine,
        "Versions": {
            **{k: str(environment[k]) for k in ("python",) if k in environment},
            **{k: str(v) for k, v in dict(environment.get("versions", {})).items()},
        },
        "Terms": {
            "teacher's outputs": declaration.teacher.terms or "not stated",
            **_terms(expansion),
        },
    }
    return {title: rows for title, rows in groups.items() if rows}


def _setting(name: str, value: Any) -> str:
    if isinstance(value, LoraSpec):
        where = value.targets if isinstance(value.targets, str) else ", ".join(value.targets)
        of = f"rank {value.rank}, alpha {value.alpha:g}, dropout {value.dropout:g}"
        return f"{of}, on {where}"
    if name == "template":
        known = {"": "the base's own"} | {text: name for name, text in BUILT_IN.items()}
        own = hashlib.sha256(value.encode()).hexdigest()[:12]
        return known.get(value, f"the study's own, sha256 {own}")
    return "none" if value is None else str(value)


def _terms(expansion: Expansion) -> dict[str, str]:
    """Terms of what students learn from besides corpora, which tell theirs themselves."""
    found: dict[str, str] = {}
    for step in expansion.steps:
        if isinstance(step.spec, TrainSpec | FeedbackSpec) and (own := terms_in(step.spec)):
            name = "replay text" if step.stage == "train" else f"feedback {step.feedback}"
            found[name] = "; ".join(terms.title for terms in own)
    return found


def _remarks(planned: list[Planned]) -> tuple[str, ...]:
    remarks: list[str] = []
    for p in planned:
        if p.step.stage == "train" and p.record is not None:
            facts = p.record.facts
            remarks.append(
                f"{p.step.slug}: {facts['supervised']:,} supervised of {facts['tokens']:,} tokens "
                f"in {facts['steps']} optimiser steps, {facts['warmup_steps']} of them warm-up"
                f"{_trunk(p.step.spec)}."
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


def _trunk(spec: Spec) -> str:
    if not isinstance(spec, TrainSpec) or len(spec.amounts) < 2:
        return ""
    how = "a decay that leaves" if spec.recipe.schedule == "wsd" else "a checkpoint of"
    return f"; every amount is {how} this one run"


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
