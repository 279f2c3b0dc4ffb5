"""Where a study's amounts differ in more than their data: the warm-up that they end in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from epigone.study.cost import Reach
from epigone.study.specs import RecipeSpec
from epigone.study.values import amount_label

# A run of fewer steps has hardly any room for a warm-up and for training.
_FEW = 10
_SHORTEST = 128


# What the amounts of a corpus would have behind them under a recipe.
Reached = Callable[[RecipeSpec, str, Sequence[int]], Sequence[Reach]]


def confounds(
    recipe: RecipeSpec, corpora: Mapping[str, Sequence[int]], reached: Reached
) -> list[str]:
    """One line for each corpus with amounts that end in the warm-up, and what would mend it.

    `corpora` are the amounts of each corpus, which rise.
    """
    behind = {name: reached(recipe, name, amounts) for name, amounts in corpora.items()}
    reaches = [r for own in behind.values() for r in own]
    if not reaches:
        return []
    found = []
    for name, own in behind.items():
        if inside := _inside(recipe, own):
            told = ", ".join(
                f"{amount_label(r.amount)} after {r.steps:,} at {r.rate(recipe):.2g}"
                for r in inside
            )
            found.append(
                f"{name}: {len(inside)} of {len(own)} amounts end inside the warm-up of "
                f"{inside[0].warmup:,} steps, below the learning rate {recipe.lr:g}: {told}"
            )
    rates = {f"{r.rate(recipe):.2g}" for r in reaches}
    if len(rates) > 1:
        low, high = (f(reaches, key=lambda r: r.rate(recipe)) for f in (min, max))
        found.append(
            "amounts see different peak learning rates, from "
            f"{low.rate(recipe):.2g} ({amount_label(low.amount)}) to {high.rate(recipe):.2g} "
            f"({amount_label(high.amount)}): their curves show the rate as well as the data"
        )
    if found:
        mended = _mended(recipe, corpora, reached)
        found.append(
            f"no amount would end inside the warm-up with {mended}"
            if mended
            else "no smaller warm-up, batch or block was found under which every amount gets there"
        )
    return found


def _inside(recipe: RecipeSpec, reaches: Sequence[Reach]) -> list[Reach]:
    return [r for r in reaches if r.rate(recipe) < recipe.lr * (1 - 1e-9)]


def _mended(recipe: RecipeSpec, corpora: Mapping[str, Sequence[int]], reached: Reached) -> str:
    """Settings, as close as can be, in which every amount reaches the full rate; or nothing.

    The smallest amounts are left out where nothing else does.
    """
    amounts = sorted({a for own in corpora.values() for a in own})
    for dropped in range(len(amounts)):
        kept = {n: [a for a in own if a >= amounts[dropped]] for n, own in corpora.items()}
        said = _settings(recipe, {n: own for n, own in kept.items() if own}, reached)
        if said:
            without = ", ".join(map(amount_label, amounts[:dropped]))
            return said + f", and without {without}" * bool(without)
    return ""


def _settings(recipe: RecipeSpec, corpora: Mapping[str, Sequence[int]], reached: Reached) -> str:
    smallest = min(min(amounts) for amounts in corpora.values())
    warmup = {"warmup": 0.1, "warmup_unit": "fraction"}
    said = "warmup: 10%"
    if recipe.trunk:
        # A fraction would be one of the largest amount's run, in which the small ones end.
        tokens = _rounded(smallest / 10)
        warmup = {"warmup": float(tokens), "warmup_unit": "tokens"}
        said = f"warmup: {amount_label(tokens)} tokens"
    for batch, block in _smaller(recipe):
        tried = recipe.model_copy(update={**warmup, "batch": batch, "block": block})
        reaches = [r for name, own in corpora.items() for r in reached(tried, name, own)]
        if min(r.steps for r in reaches) >= _FEW and not _inside(tried, reaches):
            said += f", batch: {batch}" * (batch != recipe.batch)
            return said + f", block: {block}" * (block != recipe.block)
    return ""


def _smaller(recipe: RecipeSpec) -> Iterator[tuple[int, int]]:
    """Batches and blocks that are smaller and smaller."""
    batch, block = recipe.batch, recipe.block
    yield batch, block
    while batch > 1 or block > _SHORTEST:
        batch, block = (batch // 2, block) if batch > 1 else (batch, block // 2)
        yield batch, block


def _rounded(tokens: float) -> int:
    """To one digit, and at least one."""
    unit: int = 10 ** (len(str(int(tokens))) - 1)
    return max(1, int(tokens) // unit * unit)
