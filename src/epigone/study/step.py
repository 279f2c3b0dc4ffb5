"""A step of a study: one unit of work with an identity, and the stages that such work is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from epigone.study.identity import digest, slug
from epigone.study.specs import (
    AskSpec,
    BenchmarkSpec,
    ContinuationsSpec,
    CorpusSpec,
    FeedbackSpec,
    GenerateSpec,
    ItemsSpec,
    JudgeSpec,
    OverlapSpec,
    SecondSpec,
    SelectSpec,
    Spec,
    StyleSpec,
    ToxicitySpec,
    TrainSpec,
)


@dataclass(frozen=True, slots=True)
class Stage:
    """A kind of work: where its function is, and the version that changes with its results.

    `preload` names the modules that a process imports before it forks to do such work.
    """

    run: str
    version: int
    spec: type[Spec]
    preload: tuple[str, ...] = ()


STAGES: Mapping[str, Stage] = {
    "items": Stage("epigone.evaluation:run_items", 2, ItemsSpec),
    "ask": Stage("epigone.teachers:run", 1, AskSpec),
    "select": Stage("epigone.teachers:run_select", 1, SelectSpec),
    "corpus": Stage("epigone.corpus:run", 3, CorpusSpec),
    "overlap": Stage("epigone.corpus:run_overlap", 2, OverlapSpec),
    "train": Stage("epigone.training:run", 3, TrainSpec, ("epigone.training.loop",)),
    "feedback": Stage("epigone.training:run_feedback", 1, FeedbackSpec),
    "generate": Stage(
        "epigone.evaluation:run_generate", 1, GenerateSpec, ("epigone.evaluation.answers",)
    ),
    "second": Stage("epigone.evaluation:run_second", 1, SecondSpec),
    "style": Stage("epigone.evaluation:run_style", 3, StyleSpec),
    "continuations": Stage(
        "epigone.evaluation:run_continuations",
        1,
        ContinuationsSpec,
        ("epigone.evaluation.continuations",),
    ),
    "toxicity": Stage("epigone.evaluation:run_toxicity", 1, ToxicitySpec),
    "judge": Stage("epigone.evaluation:run_judge", 2, JudgeSpec),
    "benchmark": Stage(
        "epigone.evaluation:run_benchmark", 2, BenchmarkSpec, ("epigone.evaluation.lm",)
    ),
}

# Fields of a spec that change no result.
_NO_RESULT = frozenset({"ref", "preset", "means"})
_NESTED = frozenset({dict, list})


def identity(stage: str, spec: Spec, inputs: Mapping[str, str]) -> dict[str, Any]:
    """What changes a step's result: stage, its version, spec, and the hashes of its inputs."""
    return {
        "stage": stage,
        "version": STAGES[stage].version,
        "spec": _identifying(spec.model_dump(mode="json"), stage),
        "inputs": dict(sorted(inputs.items())),
    }


@dataclass(frozen=True)
class Step:
    """One unit of work with an identity and inputs; `axes` make its readable name.

    `model` is the one that it measures, or makes by `feedback` of that name.
    """

    stage: str
    axes: tuple[str, ...]
    spec: Spec
    inputs: Mapping[str, Step] = field(default_factory=dict)
    model: str = ""
    feedback: str = ""

    @property
    def identity(self) -> dict[str, Any]:
        """What changes the step's result: stage, its version, spec, and the inputs' hashes."""
        return identity(self.stage, self.spec, {r: s.hash for r, s in self.inputs.items()})

    @cached_property
    def hash(self) -> str:
        """Hex sha256 of the identity."""
        return digest(self.identity)

    @cached_property
    def slug(self) -> str:
        """Readable name made of the axes."""
        return slug(*self.axes)

    @cached_property
    def name(self) -> str:
        """stage/slug-hash8: the step's folder below steps/."""
        return f"{self.stage}/{self.slug}-{self.hash[:8]}"


def _identifying(spec: dict[str, Any], stage: str) -> dict[str, Any]:
    """A spec without what changes no result: paths, means, a preset filled in, a base's name."""
    found: dict[str, Any] = _kept(spec)
    if stage in ("train", "feedback"):
        del found["base"]["name"]
    # A source's own name, not where it lies, is written into what is made of it.
    for part in ("sources", "replay"):
        for source, told in zip(found.get(part, ()), spec.get(part, ()), strict=True):
            source["name"] = told["ref"].rsplit("/", 1)[-1]
    return found


def _kept(value: Any) -> Any:
    # A study of many cells asks for tens of thousands of these: nothing is called for a scalar.
    if type(value) is dict:
        return {
            k: _kept(v) if type(v) in _NESTED else v
            for k, v in value.items()
            if k not in _NO_RESULT
        }
    return [_kept(v) for v in value] if type(value) is list else value
