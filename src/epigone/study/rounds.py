"""Rounds of active learning: ask a part, train on it, select what to ask next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from epigone.study.amounts import WHOLE
from epigone.study.declare import Corpus
from epigone.study.specs import (
    BY_STUDENTS,
    AskSpec,
    CorpusSpec,
    DataSpec,
    ModelSpec,
    RecipeSpec,
    Select,
    SelectSpec,
    TrainSpec,
)
from epigone.study.step import Step


@dataclass(frozen=True, slots=True)
class Learner:
    """Who selects: students of the study's first base and recipe, of this seed and the next."""

    base: ModelSpec
    recipe: RecipeSpec
    replay: tuple[DataSpec, ...]
    seed: int


def asks(
    name: str,
    whole: AskSpec,
    corpus: CorpusSpec,
    avoided: Mapping[str, Step],
    learner: Learner,
    *,
    by: Select = "random",
    rounds: int = 1,
) -> dict[str, Step]:
    """The steps that ask for a corpus, by their role as its inputs, in their order.

    Each round asks an equal part of `whole`; the rest goes to the first ones.
    """
    found: dict[str, Step] = {}
    for number in range(rounds):
        size = whole.size // rounds + (number < whole.size % rounds)
        part = AskSpec.model_validate(
            dict(whole) | {"size": size, "of": whole.size if rounds > 1 else 0}
        )
        axes = (name,) if rounds == 1 else (name, f"round{number + 1}")
        inputs = dict(avoided)
        if by != "random" and (found or by not in BY_STUDENTS):
            students = _students(axes, corpus, found, avoided, learner, by)
            select = SelectSpec(by=by, pool=part)
            inputs["chosen"] = Step("select", axes, select, {**avoided, **found, **students})
        found[f"asked_{number + 1}"] = Step("ask", axes, part, inputs)
    return found


def _students(
    axes: Sequence[str],
    corpus: CorpusSpec,
    found: Mapping[str, Step],
    avoided: Mapping[str, Step],
    learner: Learner,
    by: Select,
) -> dict[str, Step]:
    """Students of what was asked so far: one, or two of different seeds that can disagree."""
    if by not in BY_STUDENTS:
        return {}
    # Nothing is held out from those who only select.
    spec = corpus.model_copy(update={"held_out": 0})
    before = Step("corpus", (*axes, "before"), spec, {**avoided, **found})
    seeds = (learner.seed,) if by == "loss" else (learner.seed, learner.seed + 1)
    return {
        f"student_{i}": Step(
            "train",
            (learner.base.name, *axes, "before", f"s{seed}"),
            TrainSpec(
                base=learner.base,
                amounts=(WHOLE,),
                recipe=learner.recipe,
                seed=seed,
                replay=learner.replay,
            ),
            {"corpus": before},
        )
        for i, seed in enumerate(seeds, 1)
    }


def random_twins(
    corpora: Mapping[str, Corpus], amounts: Mapping[str, Sequence[int]]
) -> dict[str, str]:
    """For each corpus whose prompts are chosen, one that is the same but for that, if there is.

    The two have an amount in common, at which their students are compared.
    """

    def asked(corpus: Corpus) -> object:
        told = corpus.synthesize
        assert told is not None
        at_random = told.model_copy(update={"select": "random", "rounds": 1})
        return corpus.model_copy(update={"synthesize": at_random})

    return {
        name: twin
        for name, corpus in corpora.items()
        if _chosen(corpus)
        for twin, other in corpora.items()
        if other.synthesize is not None
        and not _chosen(other)
        and asked(other) == asked(corpus)
        and set(amounts[name]) & set(amounts[twin])
    }


def lonely(corpora: Mapping[str, Corpus], amounts: Mapping[str, Sequence[int]]) -> list[str]:
    """Corpora whose prompts are chosen, with nothing to tell whether that was better."""
    twins = random_twins(corpora, amounts)
    return [name for name, corpus in corpora.items() if _chosen(corpus) and name not in twins]


def _chosen(corpus: Corpus) -> bool:
    return corpus.synthesize is not None and corpus.synthesize.select != "random"
