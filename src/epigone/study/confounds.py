"""Where a study's amounts differ in more than their data: the warm-up that they end in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from epigone.study.cost import Reach, supervised_per_step
from epigone.study.specs import RecipeSpec
from epigone.study.values import amount_label

# A run of fewer steps has hardly any room for a warm-up and for training.
_FEW = 10


def confounds(
    recipe: RecipeSpec, corpora: Mapping[str, Sequence[Reach]], shares: Mapping[str, float]
) -> list[str]:
    """One line for each corpus with amounts that end in the warm-up, and one for unequal rates.

    `corpora` are what the amounts of one recipe have behind them; `shares` of their tokens are
    supervised.
    """
    reaches = [r for rs in corpora.values() for r in rs]
    if not reaches:
        return []
    found = []
    for name, own in corpora.items():
        inside = [r for r in own if r.steps <= r.warmup]
        if inside:
            told = ", ".join(
                f"{amount_label(r.amount)} after {r.steps:,} of {r.warmup:,} steps at "
                f"{r.rate(recipe):.2g}"
                for r in inside
            )
            found.append(
                f"{name}: {len(inside)} of {len(own)} amounts end inside the warm-up, below the "
                f"learning rate {recipe.lr:g}: {told} "
                f"({_fix(recipe, min(own, key=lambda r: r.amount), shares[name])})"
            )
    rates = {f"{r.rate(recipe):.2g}" for r in reaches}
    if len(rates) > 1:
        low, high = (f(reaches, key=lambda r: r.rate(recipe)) for f in (min, max))
        found.append(
            "amounts see different peak learning rates, from "
            f"{low.rate(recipe):.2g} ({amount_label(low.amount)}) to {high.rate(recipe):.2g} "
            f"({amount_label(high.amount)}): their curves show the rate as well as the data"
        )
    return found


def _fix(recipe: RecipeSpec, smallest: Reach, share: float) -> str:
    fix = "warmup: 10%"
    if recipe.trunk:
        # A fraction would be one of the largest amount's run, in which the small ones end.
        step = supervised_per_step(recipe, share)
        fix = f"warmup: {_round(max(step, smallest.amount / 10))} tokens"
    if smallest.steps < _FEW:
        fix += (
            f", and a smaller batch, since {amount_label(smallest.amount)} is {smallest.steps} "
            f"step{'s' if smallest.steps > 1 else ''} only"
        )
    return fix


def _round(tokens: float) -> str:
    digits = len(str(int(tokens))) - 1
    return amount_label(max(1, round(tokens / 10**digits)) * 10**digits)
