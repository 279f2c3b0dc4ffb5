"""What a study would do: steps done and to do, why, and how much it takes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from epigone.errors import CorpusError
from epigone.files import cache_root, read_json, write_json
from epigone.models import references
from epigone.runs.store import Damaged, Store
from epigone.schema import Record
from epigone.study import train_file
from epigone.study.amounts import refuse_empty, segments
from epigone.study.identity import differences
from epigone.study.specs import BenchmarkSpec, GenerateSpec, ModelSpec, TrainSpec
from epigone.study.steps import Expansion, Step
from epigone.study.terms import Use, refuse, terms_named
from epigone.study.values import amount_label

State = Literal["done", "failed", "to do", "damaged"]

# Floating-point operations a second that a machine is assumed to do before anything was measured
# on it; a guess that the first step of each stage replaces.
_ASSUMED_FLOPS = 1e11
_ASSUMED_PARAMETERS = 500_000_000
_HISTORY = 5


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
    speeds = _speeds()
    planned: list[Planned] = []
    for step in expansion.steps:
        try:
            record = store.record(step)
        except Damaged as error:
            planned.append(Planned(step, "damaged", str(error), 0.0, None))
            continue
        if record is not None:
            planned.append(Planned(step, "done", "", 0.0, record))
            continue
        failure = store.failure(step)
        state: State = "failed" if failure else "to do"
        seconds = work(step) * speeds.get(step.stage, 1.0)
        planned.append(Planned(step, state, why(step, store, failure), seconds, None))
    return planned


def why(step: Step, store: Store, failure: Mapping[str, Any] | None = None) -> str:
    """Why a step has to run: it failed, it never ran, or the fields that changed since it did."""
    if failure:
        return f"failed: {failure.get('error', '')}"
    last = max(store.relatives(step), key=lambda r: r.finished, default=None)
    if last is None:
        return "never ran"
    reasons: list[str] = []
    for path, old, new in differences(last.identity, step.identity):
        if path.startswith("inputs."):
            role = path.removeprefix("inputs.")
            # The field that changed stands in the input's own identity.
            told = why(step.inputs[role], store) if role in step.inputs else "never ran"
            reasons.append(f"{path}: {f'another {role} step' if told == 'never ran' else told}")
        else:
            reasons.append(f"{path}: {_shown(old)} -> {_shown(new)}")
    return "; ".join(reasons)


def check_data(expansion: Expansion, store: Store, use: Use = "research") -> None:
    """Raise CorpusError where a finished corpus cannot give what later steps ask of it.

    Its rows may name teachers of their own, whose terms forbid the use of students.
    """
    for step in expansion.steps:
        corpus = step.inputs.get("corpus")
        record = store.record(corpus) if corpus else None
        if corpus is None or record is None:
            continue
        refuse(
            f"rows of corpus {corpus.slug!r}", terms_named(record.facts.get("by_terms", ())), use
        )
        if isinstance(step.spec, TrainSpec):
            held, asked = int(record.facts["train_tokens"]), step.spec.amounts[-1]
            if asked <= held and store.record(step) is None:
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


def work(step: Step) -> float:
    """Naive seconds of a step, from its arithmetic; measured speeds correct it by stage."""
    spec = step.spec
    if isinstance(spec, TrainSpec):
        # 6 operations a parameter and token; about two thirds of the tokens are the teacher's.
        return 6 * parameters(spec.base) * spec.amounts[-1] * 1.5 / _ASSUMED_FLOPS
    if isinstance(spec, GenerateSpec):
        if spec.model.kind == "teacher":
            return 0.5
        size = _size(step, spec.model)
        return 2 * size * spec.n * spec.max_new_tokens * 2 / _ASSUMED_FLOPS
    if isinstance(spec, BenchmarkSpec):
        return 2 * _size(step, spec.model) * 8_000 / _ASSUMED_FLOPS
    return 30.0 if step.stage == "corpus" else 0.5


def memory(step: Step) -> float:
    """Expected peak bytes of a step."""
    spec = step.spec
    if isinstance(spec, TrainSpec):
        # Weights, gradients and second moments in fp32, momentum in bf16, and one more gradient.
        return 0.8e9 + 17 * parameters(spec.base)
    if isinstance(spec, GenerateSpec | BenchmarkSpec) and spec.model.kind != "teacher":
        return 0.7e9 + 5 * _size(step, spec.model)
    return 0.5e9


def parameters(model: ModelSpec) -> int:
    """Parameters of a base where they are known without a download, else a guess."""
    return references.parameters(model.ref) or _ASSUMED_PARAMETERS


def learn_speed(step: Step, seconds: float) -> None:
    """Remember how long a step of this stage took on this machine, for later plans."""
    file = cache_root() / "speeds.json"
    ratio = seconds / max(work(step), 1e-9)
    try:
        known = read_json(file)
        history = [float(x) for x in known.get(step.stage, [])][-_HISTORY + 1 :]
    except (OSError, ValueError, TypeError, AttributeError):
        known, history = {}, []
    known[step.stage] = [*history, round(ratio, 4)]
    # Only later estimates lose where the cache cannot be written.
    with suppress(OSError):
        write_json(file, known)


def _speeds() -> dict[str, float]:
    try:
        known = read_json(cache_root() / "speeds.json")
        return {stage: sorted(xs)[len(xs) // 2] for stage, xs in known.items() if xs}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _size(step: Step, model: ModelSpec) -> int:
    if model.kind == "base":
        return parameters(model)
    trunk = step.inputs["student"].spec
    return parameters(trunk.base) if isinstance(trunk, TrainSpec) else _ASSUMED_PARAMETERS


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
