from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigone.study.declare import Recipe
from epigone.study.specs import RecipeSpec
from epigone.training.blocks import Block, Piece
from epigone.training.schedule import Batch, Update, programme, rates, warmup_steps


def recipe(**settings: Any) -> RecipeSpec:
    return (
        Recipe()
        .resolved()
        .model_copy(update={"lr": 1.0, "warmup": 0.0, "warmup_unit": "steps", **settings})
    )


def batches(*ends: int, targets: int = 10) -> list[Batch]:
    """Batches of so many supervised tokens, with students after the steps `ends`."""
    block = Block((Piece((0,) * (targets + 1), (False,) + (True,) * targets),))
    return [Batch((block,), 100 * (i + 1) if i + 1 in ends else None) for i in range(max(ends))]


def test_warm_up_in_steps_starts_at_zero_and_then_stays() -> None:
    found = rates(recipe(warmup=4.0, lr=2e-3), batches(6))
    assert found == pytest.approx([0, 5e-4, 1e-3, 1.5e-3, 2e-3, 2e-3])
    assert rates(recipe(), batches(2)) == [1.0, 1.0]


def test_warm_up_as_a_fraction_and_in_tokens() -> None:
    assert warmup_steps(recipe(warmup=0.25, warmup_unit="fraction"), batches(10)) == 3
    tokens = recipe(warmup=40.0, warmup_unit="tokens")
    assert rates(tokens, batches(6)) == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1])
    assert warmup_steps(tokens, batches(6)) == 4


def test_a_cosine_ends_at_zero_with_the_run() -> None:
    found = [u.lr for u in programme(recipe(schedule="cosine", warmup=2.0), batches(10))]
    assert found[:2] == [0, 0.5]
    assert found[2:] == pytest.approx([(1 + math.cos(math.pi * i / 8)) / 2 for i in range(8)])
    assert not recipe(schedule="cosine").trunk


def test_a_constant_trunk_is_the_prefix_of_a_longer_one() -> None:
    short = programme(recipe(warmup=3.0), batches(4))
    long = programme(recipe(warmup=3.0), batches(4, 9))
    assert long[:4] == short


def walk(order: list[Update]) -> dict[int, list[tuple[int, float]]]:
    """What each amount's student has been trained on: (batch, rate) of every step."""
    state: list[tuple[int, float]] = []
    kept: list[tuple[int, float]] = []
    students = {}
    for update in order:
        if update.back:
            state = list(kept)
        if update.fork:
            kept = list(state)
        state.append((update.batch, update.lr))
        if update.amount is not None:
            students[update.amount] = list(state)
    return students


def test_wsd_decays_branch_off_and_the_trunk_goes_on_at_the_full_rate() -> None:
    students = walk(programme(recipe(schedule="wsd", decay=0.5), batches(4, 8)))
    assert students[400] == [(0, 1), (1, 1), (2, 1.0), (3, 0.5)]
    assert students[800] == [*((i, 1) for i in range(4)), (4, 1.0), (5, 0.75), (6, 0.5), (7, 0.25)]


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=5, unique=True).map(sorted),
    st.floats(0.01, 1),
    st.floats(0, 10),
)
def test_every_student_of_a_wsd_run_is_that_of_a_run_of_its_own(
    ends: list[int], decay: float, warmup: float
) -> None:
    asked = recipe(schedule="wsd", decay=decay, warmup=warmup)
    together = walk(programme(asked, batches(*ends)))
    for end in ends:
        assert together[100 * end] == walk(programme(asked, batches(end)))[100 * end]
        assert [b for b, _ in together[100 * end]] == list(range(end))
