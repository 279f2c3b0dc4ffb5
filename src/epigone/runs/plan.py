"""What a study would do: steps done and to do, why, and how much it takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from epigone.errors import CorpusError
from epigone.files import aside_of, cache_root
from epigone.formats import cache_document, read_cache
from epigone.models import references
from epigone.runs.estimate import (
    Answering,
    ShapeOf,
    amounts_of,
    answers_of,
    base_of,
    questions_of,
    rows_of,
)
from epigone.runs.store import Damaged, Listing, Store
from epigone.schema import Record
from epigone.study import cost, train_file
from epigone.study.amounts import refuse_empty, segments
from epigone.study.cost import Shape
from epigone.study.identity import differences
from epigone.study.specs import (
    CANDIDATES,
    CorpusSpec,
    FeedbackSpec,
    JudgeSpec,
    ModelSpec,
    SelectSpec,
    TrainSpec,
    asked_model,
)
from epigone.study.step import Step
from epigone.study.steps import Expansion
from epigone.study.terms import Use, refuse, terms_named
from epigone.study.values import amount_label

State = Literal["done", "failed", "to do", "damaged"]

# Floating-point operations a second that a machine is assumed to do before anything was measured
# on it; a guess that the first step of each stage replaces.
_ASSUMED_FLOPS = 1e11
_ASSUMED_SHAPE = Shape(500_000_000, 136_000_000, 24, 896, 151_936, 896, 128)
_ASSUMED_FEEDBACK = (1_000, 2_000_000)
_START_SECONDS = 5.0
_SECONDS_A_VERDICT = 2.0
_HISTORY = 5
_SPEEDS = "stage-speeds.json"


@dataclass(frozen=True, slots=True)
class Planned:
    """A step with its state, the reason to run it, and the seconds it is expected to take."""

    step: Step
    state: State
    why: str
    seconds: float
    record: Record | None


def plan(expansion: Expansion, store: Store) -> list[Planned]:
    """State, reason and expected time of every step, in the order of the expansion."""
    pace, listing = expectation(), Listing(store)
    reasons = Reasons(listing)
    planned: list[Planned] = []
    for step in expansion.steps:
        try:
            record = listing.record(step)
        except Damaged as error:
            planned.append(Planned(step, "damaged", str(error), 0.0, None))
            continue
        if record is not None:
            planned.append(Planned(step, "done", "", 0.0, record))
            continue
        failure = listing.failure(step)
        state: State = "failed" if failure else "to do"
        why = f"failed: {failure.get('error', '')}" if failure else reasons.of(step)
        planned.append(Planned(step, state, why, pace(step), None))
    return planned


def expectation() -> Callable[[Step], float]:
    """How many seconds a step will take: its arithmetic, by the speeds measured on this machine."""
    speeds, shape = _speeds(), cache(references.shape)
    return lambda step: work(step, shape) * speeds.get(step.stage, 1.0)


class Reasons:
    """Why steps have to run that did not fail; each is looked at once, however many build on it."""

    def __init__(self, listing: Listing) -> None:
        """Look at nothing yet."""
        self._listing = listing
        self._told: dict[str, str] = {}

    def of(self, step: Step) -> str:
        """The fields that changed since the step last ran, or that it never did."""
        if step.name not in self._told:
            self._told[step.name] = self._look(step)
        return self._told[step.name]

    def _look(self, step: Step) -> str:
        last = max(self._listing.relatives(step), key=lambda r: r.finished, default=None)
        if last is None:
            return "never ran"
        reasons: list[str] = []
        for path, old, new in differences(last.identity, step.identity):
            if path.startswith("inputs."):
                role = path.removeprefix("inputs.")
                # The field that changed stands in the input's own identity.
                told = self.of(step.inputs[role]) if role in step.inputs else "never ran"
                reasons.append(f"{path}: {f'another {role} step' if told == 'never ran' else told}")
            else:
                reasons.append(f"{path}: {_shown(old)} -> {_shown(new)}")
        return "; ".join(reasons)


def check_data(expansion: Expansion, store: Store, use: Use = "research") -> None:
    """Raise CorpusError where a finished corpus cannot give what later steps ask of it.

    Its rows may name teachers of their own, whose terms forbid the use of students.
    """
    records: dict[str, Record | None] = {}
    counted: set[tuple[str, tuple[int, ...]]] = set()
    for step in expansion.steps:
        corpus = step.inputs.get("corpus")
        if corpus is None:
            continue
        if corpus.name not in records:
            records[corpus.name] = record = store.record(corpus)
            terms = terms_named(record.facts.get("by_terms", ())) if record else ()
            refuse(f"rows of corpus {corpus.slug!r}", terms, use)
        record = records[corpus.name]
        if record is not None and isinstance(step.spec, TrainSpec):
            held, asked = int(record.facts["train_tokens"]), step.spec.amounts[-1]
            # Seeds, bases and variants of the grid take the same conversations.
            same = (corpus.name, step.spec.amounts)
            if asked <= held and same not in counted and store.record(step) is None:
                counted.add(same)
                folder = store.folder(corpus)
                parts = segments(folder / train_file.NAME, step.spec.amounts)
                refuse_empty(parts, step.spec.amounts)
            if asked > held:
                raise CorpusError(
                    f"amount larger than corpus {corpus.slug!r}, which holds {held:,} "
                    "teacher tokens",
                    value=amount_label(asked),
                    fix="ask for less, or add sources",
                )


def work(step: Step, shape_of: ShapeOf = references.shape) -> float:
    """Naive seconds of a step, from its arithmetic; measured speeds correct it by stage.

    Who asks about many steps may give a `shape_of` that remembers.
    """
    spec = step.spec

    def size(model: ModelSpec) -> Shape:
        return shape_of(model.ref) or _ASSUMED_SHAPE

    if isinstance(spec, TrainSpec):
        corpus = step.inputs["corpus"].spec if "corpus" in step.inputs else None
        kind = corpus.kind if isinstance(corpus, CorpusSpec) else "broad"
        shape, share, answer = size(spec.base), cost.SUPERVISED[kind], cost.ANSWER[kind]
        flops = cost.training(shape, spec.recipe, amounts_of(step), share, answer).flops
    elif isinstance(spec, FeedbackSpec):
        counted = rows_of(spec.sources) or _ASSUMED_FEEDBACK
        flops = cost.feedback_flops(size(spec.base), spec, *counted)
    elif isinstance(spec, SelectSpec):
        students = [s.spec.base for s in step.inputs.values() if isinstance(s.spec, TrainSpec)]
        read = CANDIDATES * spec.pool.size * cost.PROMPT_TOKENS
        flops = sum(2.0 * size(base).parameters * read for base in students)
    elif isinstance(spec, Answering) and spec.model.kind != "teacher":
        flops = cost.answer_flops(size(base_of(step, spec.model)), *answers_of(spec))
    elif isinstance(spec, JudgeSpec):
        at_once = spec.judge.means.concurrency if spec.judge.means else 1
        asked = sum(questions_of(step, spec).values())
        return _START_SECONDS + asked * _SECONDS_A_VERDICT / at_once
    else:
        return 30.0 if step.stage == "corpus" else 0.5
    # Without the seconds that any step takes, a tiny one would teach a speed that is no speed.
    return _START_SECONDS + flops / _ASSUMED_FLOPS


def memory(step: Step, count: Callable[[str], int | None] = references.parameters) -> float:
    """Expected peak bytes of a step.

    Who asks about many steps may give a `count` of a model's parameters that remembers.
    """
    spec = step.spec

    def parameters(model: ModelSpec) -> int:
        return count(model.ref) or _ASSUMED_SHAPE.parameters

    if isinstance(spec, TrainSpec):
        # Beside the state, most of one more gradient; what this machine multiplies in is not known.
        return 0.8e9 + (cost.state_bytes(spec.recipe) + 3) * parameters(spec.base)
    if isinstance(spec, FeedbackSpec):
        return 0.8e9 + cost.FEEDBACK_BYTES * parameters(spec.base)
    if isinstance(spec, SelectSpec):
        students = [s.spec for s in step.inputs.values() if isinstance(s.spec, TrainSpec)]
        return 0.7e9 + sum(5 * parameters(s.base) for s in students)
    if isinstance(spec, Answering) and spec.model.kind != "teacher":
        return 0.7e9 + 5 * parameters(base_of(step, spec.model))
    return 0.5e9


def asks_endpoint(step: Step) -> bool:
    """Whether another machine does a step's work: it takes answers of an endpoint."""
    return asked_model(step.spec) is not None


def learn_speed(step: Step, seconds: float) -> None:
    """Remember how long a step of this stage took on this machine, for later plans."""
    file = cache_root() / _SPEEDS
    ratio = seconds / max(work(step), 1e-9)
    known = read_cache(file)
    try:
        history = [float(x) for x in known.get(step.stage, [])][-_HISTORY + 1 :]
    except (ValueError, TypeError):
        history = []
    known[step.stage] = [*history, round(ratio, 4)]
    # Only later estimates lose where it is torn or cannot be written: nobody waits for the disk.
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = aside_of(file)
        aside.write_text(json.dumps(cache_document(known)))
        aside.replace(file)


def _speeds() -> dict[str, float]:
    try:
        known = read_cache(cache_root() / _SPEEDS)
        return {stage: sorted(xs)[len(xs) // 2] for stage, xs in known.items() if xs}
    except (ValueError, TypeError):
        return {}


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
