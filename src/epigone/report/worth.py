"""What students cost and how large bases are, from records and from models' own files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from math import prod
from types import MappingProxyType

from epigone.files import read_jsonl
from epigone.findings import Base, Subject
from epigone.models import references
from epigone.report.training import LOG
from epigone.runs.plan import Planned
from epigone.runs.store import Store
from epigone.schema import Cell, Record
from epigone.study.declare import Declaration
from epigone.study.specs import (
    AskSpec,
    BenchmarkSpec,
    FeedbackSpec,
    GenerateSpec,
    ModelSpec,
    TrainSpec,
    amount_folder,
)
from epigone.study.step import Step
from epigone.study.steps import Expansion

# What lm-eval calls the loss of text by its bytes, which models of all tokenizers share.
_LOSS = "bits_per_byte"


def bases_of(
    planned: Sequence[Planned], sizes: Mapping[str, int] = MappingProxyType({})
) -> tuple[Base, ...]:
    """Each base's weights, and its loss where the study has a benchmark that measures it.

    `sizes` are weights by name, for bases whose own folder is gone. Of several such benchmarks the
    first counts, for every base.
    """
    known: dict[str, ModelSpec] = {}
    losses: dict[str, dict[str, float]] = {}
    for p in planned:
        model = _base(p.step)
        if model is not None:
            known.setdefault(model.name, model)
        spec = p.step.spec
        if isinstance(spec, BenchmarkSpec) and spec.model.kind == "base" and p.record is not None:
            found = p.record.facts.get("values", {}).get(_LOSS)
            if isinstance(found, float):
                losses.setdefault(spec.label, {})[spec.model.name] = found
    loss = next(iter(losses.values()), {})
    return tuple(
        Base(name, references.parameters(m.ref) or sizes.get(name), loss.get(name))
        for name, m in known.items()
    )


def _base(step: Step) -> ModelSpec | None:
    spec = step.spec
    if isinstance(spec, TrainSpec | FeedbackSpec):
        return spec.base
    if isinstance(spec, GenerateSpec | BenchmarkSpec) and spec.model.kind == "base":
        return spec.model
    return None


def worth(
    subjects: Sequence[Subject],
    declaration: Declaration,
    expansion: Expansion,
    planned: Sequence[Planned],
    store: Store,
) -> tuple[Subject, ...]:
    """The subjects with the tasks that their corpus is for, and with what they cost.

    Hours are those of training times the processes that trained: GPU-hours on GPUs. Dollars are the
    corpus's, shared by tokens; both are None where they are not known.
    """
    records = {p.step.name: p.record for p in planned if p.record is not None}
    found = []
    for subject, its in zip(subjects, expansion.subjects, strict=True):
        cell, made_by = its.cell, its.made_by
        if cell is None or made_by is None:
            found.append(subject)
            continue
        corpus = declaration.corpora.get(cell.corpus)
        local = corpus is not None and corpus.kind == "local"
        record = records.get(made_by.name)
        trained = record is not None and made_by.stage == "train"
        found.append(
            replace(
                subject,
                # A local corpus whose task nothing measures is no broad one.
                supports=(corpus.benchmark or cell.corpus,) if corpus and local else (),
                hours=_hours(store, made_by, cell, record) if trained and record else None,
                dollars=_dollars(made_by, cell, records) if trained else None,
            )
        )
    return tuple(found)


def _hours(store: Store, step: Step, cell: Cell, record: Record) -> float:
    """The share of a trunk's time that its student's supervised tokens took."""
    folder = store.folder(step)
    own = _supervised(read_jsonl(folder / amount_folder(cell.amount) / LOG))
    every = _supervised(read_jsonl(folder / LOG))
    share = min(1.0, own / every) if every else 1.0
    return share * record.seconds * processes(record) / 3600


def _supervised(rows: Iterable[dict[str, int]]) -> int:
    return sum(row["supervised"] for row in rows)


def processes(record: Record) -> int:
    """How many processes trained, from a layout such as "replicate=2,shard=1,tensor=1"."""
    sizes = [part.partition("=")[2] for part in str(record.facts.get("layout", "")).split(",")]
    return prod(int(n) for n in sizes if n.isdigit())


def _dollars(step: Step, cell: Cell, records: dict[str, Record]) -> float | None:
    corpus = step.inputs["corpus"]
    asked = [s for s in corpus.inputs.values() if isinstance(s.spec, AskSpec)]
    own = records.get(corpus.name)
    costs = [dollars_of(records.get(s.name)) for s in asked]
    known = [c for c in costs if c is not None]
    if own is None or not asked or len(known) < len(costs):
        return None
    tokens = own.facts.get("train_tokens")
    share = min(1.0, cell.amount / tokens) if isinstance(tokens, int) and tokens else 1.0
    return share * sum(known)


def dollars_of(record: Record | None) -> float | None:
    """What a step's answers cost in US dollars; None where that is not known, or nothing was asked.

    A run that went on with answers of an earlier one does not know what those cost.
    """
    facts = record.facts if record is not None else {}
    if "cost" not in facts or facts.get("price") == "not known" or facts.get("known"):
        return None
    try:
        return float(Decimal(str(facts["cost"])))
    except InvalidOperation:
        return None
