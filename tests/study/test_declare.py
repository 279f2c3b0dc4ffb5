from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigone.study.recipes import Recipe
from epigone.study.values import amount_label, parse_amount


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("8k", 8000),
        ("1.5m", 1_500_000),
        (8000, 8000),
        ("0.3M", 300_000),
        ("1.001k", 1001),
        ("9.000000000000000000000k", 9000),
    ],
)
def test_amounts(text: object, tokens: int) -> None:
    assert parse_amount(text) == tokens


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "k",
        "-1",
        "0",
        "1.0001k1",
        "8 kk",
        True,
        None,
        "1e3",
        0.5,
        "9" * 400,
        int("9" * 400),
        "9" * 5000 + "k",
        "1.00000000000000000000001k",
    ],
)
def test_what_is_no_amount(bad: object) -> None:
    with pytest.raises(ValueError, match="an amount is"):
        parse_amount(bad)


@given(st.integers(1, 10**12))
def test_thousandths_are_exact(tokens: int) -> None:
    assert parse_amount(f"{tokens // 1000}.{tokens % 1000:03}k") == tokens


@given(st.integers(1, 10**12))
def test_a_label_reads_back_as_its_amount(tokens: int) -> None:
    assert parse_amount(amount_label(tokens)) == tokens


def test_the_preset_is_the_papers() -> None:
    recipe = Recipe().resolved()
    assert (recipe.lr, recipe.warmup, recipe.batch, recipe.block) == (2e-3, 1000, 32, 2048)
    assert recipe.optimizer == "parameter-scaled"


def test_own_settings_go_over_the_preset() -> None:
    recipe = Recipe(batch=4, lr=1e-3).resolved()
    assert (recipe.batch, recipe.lr, recipe.block) == (4, 1e-3, 2048)
