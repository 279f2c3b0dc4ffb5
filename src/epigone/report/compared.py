"""Two studies put together for a comparison: scores, and the settings that differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epigone.findings import Comparison, Side, compare
from epigone.report.view import ReportView
from epigone.runs.store import Store
from epigone.schema import Record
from epigone.study.declare import Declaration
from epigone.study.identity import differences
from epigone.study.specs import (
    BenchmarkSpec,
    ContinuationsSpec,
    CorpusSpec,
    GenerateSpec,
    JudgeSpec,
    Spec,
    ToxicitySpec,
    TrainSpec,
)
from epigone.study.steps import Expansion

# What chooses items, and who is measured: scores are compared item by item.
_NO_CONDITION = frozenset({"model", "label", "limit", "n", "ref", "means", "against", "task"})


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting in which two studies differ, as each has it; None where one has none."""

    name: str
    first: str | None
    second: str | None


@dataclass(frozen=True, slots=True)
class Run:
    """One study of a comparison: as it was declared, as it was run, and what came of it.

    `place` tells it from the other one where their names are the same.
    """

    place: str
    declaration: Declaration
    expansion: Expansion
    records: Sequence[Record]
    view: ReportView

    @property
    def name(self) -> str:
        """The study's name."""
        return self.declaration.name

    @property
    def finished(self) -> tuple[int, int]:
        """Steps that are done, and all."""
        return len(self.records), len(self.expansion.steps)


@dataclass(frozen=True, slots=True)
class Compared:
    """Two studies, what differs in how they were made, and in what came of them."""

    first: Run
    second: Run
    settings: tuple[Setting, ...]
    comparison: Comparison


def run_of(
    place: str, declaration: Declaration, expansion: Expansion, store: Store, view: ReportView
) -> Run:
    """A study with the records of its finished steps."""
    records = [r for s in expansion.steps if (r := store.record(s)) is not None]
    return Run(place, declaration, expansion, records, view)


def compared(first: Run, second: Run) -> Compared:
    """Two studies side by side."""
    sides = [_side(run) for run in (first, second)]
    return Compared(first, second, tuple(_settings(first, second)), compare(sides[0], sides[1]))


def _side(run: Run) -> Side:
    view = run.view
    return Side(
        subjects=view.subjects,
        scores=view.scores,
        summaries=view.findings.summaries,
        verdicts=view.findings.verdicts,
        teacher=run.expansion.teacher,
        answers={i.id: i.answer for i in view.items if i.answer is not None and not i.source},
        conditions=dict(_conditions(run.expansion)),
    )


def _conditions(expansion: Expansion) -> Iterator[tuple[str, Mapping[str, object]]]:
    """How each task is measured, whoever is measured."""
    said: Mapping[str, object] = {}
    for step in expansion.steps:
        spec = step.spec
        if isinstance(spec, BenchmarkSpec):
            # Without a temperature, the seed chooses items alone.
            yield spec.label, _how(spec) if spec.temperature else _how(spec, "seed")
        elif isinstance(spec, GenerateSpec) and spec.model.kind != "teacher":
            # The teacher's own answers are compared one by one.
            yield "", {"max_new_tokens": spec.max_new_tokens}
        elif isinstance(spec, JudgeSpec):
            yield "judge", {**_how(spec), "judge": spec.judge.fingerprint or spec.judge.name}
        elif isinstance(spec, ContinuationsSpec):
            said = _how(spec)
        elif isinstance(spec, ToxicitySpec):
            yield f"toxicity:{spec.scorer.name}", {**said, **_how(spec)}


def _how(spec: Spec, *without: str) -> dict[str, Any]:
    """A spec's settings, but for those that say what or who is measured."""

    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: kept(v) for k, v in value.items() if k not in {*_NO_CONDITION, *without}}
        return value

    found: dict[str, Any] = kept(spec.model_dump(mode="json"))
    return found


def _settings(first: Run, second: Run) -> Iterator[Setting]:
    for name, one, other in differences(_document(first), _document(second)):
        yield Setting(name, _shown(one), _shown(other))


def _document(run: Run) -> dict[str, Any]:
    """Everything that was set, as a nested mapping: declared, filled in, and found."""
    declared = run.declaration.model_dump(mode="json", by_alias=True, exclude={"name", "recipe"})
    trained = [s.spec for s in run.expansion.steps if isinstance(s.spec, TrainSpec)]
    last = max(run.records, key=lambda r: r.finished, default=None)
    made = dict(last.environment) if last else {}
    return {
        **declared,
        "recipe": trained[0].recipe.model_dump(mode="json") if trained else {},
        "weights": {t.base.name: t.base.fingerprint for t in trained},
        "data": {
            s.slug: [source.fingerprint for source in s.spec.sources]
            for s in run.expansion.steps
            if isinstance(s.spec, CorpusSpec)
        },
        "versions": dict(made.get("versions", {})) | {"python": made.get("python")},
        "machine": {k: made.get(k) for k in ("platform", "machine", "cpus")},
    }


def _shown(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, list):
        return ", ".join(_shown(v) or "not set" for v in value) or "none"
    if isinstance(value, Mapping):
        told = ((k, _shown(v)) for k, v in value.items())
        return ", ".join(f"{k}: {v}" for k, v in told if v not in (None, "", "none")) or "none"
    return str(value)
