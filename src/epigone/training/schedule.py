"""When the learning rate is what, and what is done in which order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from epigone.study.cost import decay_steps
from epigone.study.specs import RecipeSpec
from epigone.training.blocks import Block


@dataclass(frozen=True, slots=True)
class Batch:
    """Blocks of one optimiser step; `amount` is set where a student is taken after it."""

    blocks: tuple[Block, ...]
    amount: int | None
    text: tuple[Block, ...] = ()

    @property
    def targets(self) -> int:
        """Supervised tokens of the teacher."""
        return sum(b.targets for b in self.blocks)


@dataclass(frozen=True, slots=True)
class Update:
    """One optimiser step of a run: the batch (by number), its rate, and what stands around it.

    Before it, the state may be kept aside (`fork`) or that which was kept comes `back`; after it,
    the student of `amount` may be taken. `branch` is the amount for which the rate is falling.
    """

    batch: int
    lr: float
    amount: int | None = None
    fork: bool = False
    back: bool = False
    branch: int | None = None


def warmup_steps(recipe: RecipeSpec, batches: Sequence[Batch]) -> int:
    """Steps with a rate below the peak, at the beginning of a run of these batches."""
    if recipe.warmup_unit == "fraction":
        return math.ceil(recipe.warmup * len(batches))
    if recipe.warmup_unit == "steps":
        return int(recipe.warmup)
    seen = [0, *accumulate(b.targets for b in batches)]
    return sum(tokens < recipe.warmup for tokens in seen[:-1])


def rates(recipe: RecipeSpec, batches: Sequence[Batch]) -> list[float]:
    """The rate of every step before it falls: linear from 0 in warm-up, then the peak.

    With a warm-up in tokens, a step's rate follows from the supervised tokens before it.
    """
    if recipe.warmup_unit == "tokens" and recipe.warmup:
        seen = [0, *accumulate(b.targets for b in batches)]
        return [recipe.lr * min(1.0, n / max(recipe.warmup, 1.0)) for n in seen[:-1]]
    steps = warmup_steps(recipe, batches)
    return [recipe.lr * min(1.0, i / steps) if steps else recipe.lr for i in range(len(batches))]


def programme(recipe: RecipeSpec, batches: Sequence[Batch]) -> list[Update]:
    """Every optimiser step of a run, in order.

    A cosine falls to 0 over the steps after the warm-up. With wsd, the run of each amount ends
    with a decay over the last share `decay` of its steps, which branches off the trunk: the state
    before it is kept, the decay is run, and the trunk goes on at the full rate from where it was
    (Hu et al. 2024, MiniCPM; Hägele et al. 2024).
    """
    rate = rates(recipe, batches)
    if recipe.schedule == "cosine":
        begin = warmup_steps(recipe, batches)
        span = max(1, len(batches) - begin)
        rate = [
            r if i < begin else recipe.lr * (1 + math.cos(math.pi * (i - begin) / span)) / 2
            for i, r in enumerate(rate)
        ]
    trunk = [Update(i, r, batches[i].amount) for i, r in enumerate(rate)]
    if recipe.schedule != "wsd" or not recipe.decay:
        return trunk
    ends = [i + 1 for i, b in enumerate(batches) if b.amount is not None]
    order: list[Update] = []
    at = 0
    for end in ends:
        steps = decay_steps(recipe, end)
        begin = end - steps
        order += [Update(i, rate[i]) for i in range(at, begin)]
        last = end == ends[-1]
        for k, i in enumerate(range(begin, end)):
            amount = batches[end - 1].amount
            order.append(
                Update(
                    i,
                    rate[i] * (steps - k) / steps,
                    amount if i == end - 1 else None,
                    fork=k == 0 and not last,
                    branch=amount,
                )
            )
        at = begin
    return _with_returns(order)


def _with_returns(order: list[Update]) -> list[Update]:
    # The first step after a branch, be it on the trunk or on the next branch, starts from the
    # state that was kept.
    found: list[Update] = []
    for before, update in zip([None, *order], order, strict=False):
        left = before is not None and before.amount is not None
        found.append(
            Update(update.batch, update.lr, update.amount, update.fork, left, update.branch)
        )
    return found
