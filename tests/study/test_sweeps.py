from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigone.study.recipes import Recipe
from epigone.study.sweeps import SETTINGS, variants
from epigone.study.values import Mistake


def test_without_a_sweep_there_is_one_recipe_of_no_name() -> None:
    (one,) = variants(Recipe(batch=4), {})
    assert one.name == ""
    assert one.spec == Recipe(batch=4).resolved()
    assert one.where("lr") == ("recipe", "lr")


def test_a_sweep_is_the_product_in_the_files_order() -> None:
    recipe = Recipe.model_validate({"replay_from": ["x.txt"]})
    found = variants(recipe, {"replay": [0, 0.25], "kl": [0.0, 0.1]})
    assert [v.name for v in found] == [
        "replay=0,kl=0", "replay=0,kl=0.1", "replay=0.25,kl=0", "replay=0.25,kl=0.1"
    ]  # fmt: skip
    assert [(v.spec.replay, v.spec.kl) for v in found] == list(product((0, 0.25), (0, 0.1)))
    # Plain text is for those that use it.
    assert [bool(v.recipe.replay_from) for v in found] == [False, False, True, True]
    assert found[3].where("kl") == ("sweep", "kl", 1)


@pytest.mark.parametrize(
    ("sweep", "names"),
    [
        ({"lr": [2e-5, 0.001]}, ["lr=2e-05", "lr=0.001"]),
        ({"warmup": ["10%", "1000 steps", "200k tokens"]},
         ["warmup=0.1", "warmup=1000", "warmup=200k-tokens"]),
        ({"batch": [8, 16]}, ["batch=8", "batch=16"]),
        ({"preset": ["adamw", "lora"]}, ["preset=adamw", "preset=lora"]),
        ({"template": ["chatml", "a/b.jinja"]}, ["template=chatml", "template=a/b.jinja"]),
        ({"precision": ["fp32"]}, ["precision=fp32"]),
    ],
)  # fmt: skip
def test_names_are_short_and_exact(sweep: dict[str, list[Any]], names: list[str]) -> None:
    assert [v.name for v in variants(Recipe(), sweep)] == names


def test_a_swept_rank_goes_over_the_adapters_of_the_recipe() -> None:
    recipe = Recipe.model_validate({"preset": "lora", "lora": {"dropout": 0.1}})
    found = [v.spec.lora for v in variants(recipe, {"lora.rank": [4, 8]})]
    assert [(x.rank, x.alpha, x.dropout) for x in found if x] == [(4, 8, 0.1), (8, 16, 0.1)]


def test_a_decay_is_for_the_swept_schedules_that_have_one() -> None:
    found = variants(Recipe(decay=0.2), {"schedule": ["constant", "wsd"]})
    assert [v.spec.decay for v in found] == [0.0, 0.2]


numbers = st.floats(1e-9, 1e9).map(lambda x: float(f"{x:.3g}"))


@given(st.lists(numbers, min_size=1, max_size=4, unique=True),
       st.lists(st.integers(1, 10**6), min_size=1, max_size=4, unique=True))  # fmt: skip
def test_every_name_reads_back_as_its_settings(rates: list[float], sizes: list[int]) -> None:
    found = variants(Recipe(), {"lr": rates, "batch": sizes})
    assert len({v.name for v in found}) == len(rates) * len(sizes)
    for one in found:
        told = dict(part.split("=") for part in one.name.split(","))
        assert (float(told["lr"]), int(told["batch"])) == (one.spec.lr, one.spec.batch)


@pytest.mark.parametrize(
    ("recipe", "sweep", "where", "what"),
    [
        ({}, {"repaly": [0]}, ("sweep", "repaly"), "unknown recipe setting: repaly (did you mean "
         "'replay'?)"),
        ({}, {"lora": [1]}, ("sweep", "lora"), "only settings of one value can be swept: lora"),
        ({}, {"replay_from": ["a"]}, ("sweep", "replay_from"), "only settings of one value"),
        ({"lr": 1.0}, {"lr": [1.0]}, ("sweep", "lr"), "in the recipe and in the sweep: lr"),
        ({"preset": "lora", "lora": {"rank": 2}}, {"lora.rank": [4]}, ("sweep", "lora.rank"),
         "in the recipe and in the sweep"),
        ({}, {"lora.rank": [4]}, ("sweep", "lora.rank"), "no adapters to sweep over"),
        ({}, {"kl": [0, 0.0]}, ("sweep", "kl", 1), "named twice in sweep.kl: 0.0"),
        ({}, {"warmup": [0.1, "10%"]}, ("sweep", "warmup", 1), "named twice in sweep.warmup: 10%"),
        ({}, {"kl": [0, -1]}, ("sweep", "kl", 1), "kl: input should be greater than or equal to 0"),
        ({}, {"kl": [None]}, ("sweep", "kl", 0), "no value to sweep over"),
        ({}, {"kl": [[0]]}, ("sweep", "kl", 0), "kl: input should be a valid number"),
        ({}, {"replay": [0, 0.5]}, ("sweep", "replay", 1), "replay=0.5: replay without plain text"),
        ({"replay_from": ["x"]}, {"replay": [0]}, ("recipe", "replay_from"),
         "no combination of the sweep uses replay_from"),
        ({"decay": 0.2}, {"schedule": ["constant", "cosine"]}, ("recipe", "decay"),
         "no combination of the sweep uses decay"),
        ({}, {"schedule": ["constant", "wsd"], "decay": [0.1]}, ("sweep", "decay", 0),
         "schedule=constant,decay=0.1: a constant schedule has no decay"),
        ({"decay_to_base": 0.1}, {"preset": ["adamw", "lora"]}, ("recipe", "decay_to_base"),
         "preset=lora: adapters leave the base's weights"),
        ({"optimizer": "adamw", "lr": 1.0, "warmup": 1, "weight_decay": 0.0},
         {"preset": ["adamw", "false-promise"]}, ("sweep",), "are the same recipe"),
        ({}, {k: [x / 7 for x in range(1, 6)] for k in ("lr", "clip", "kl", "weight_decay")}
         | {"batch": [1, 2]}, ("sweep",), "a sweep of more than 1,000 combinations"),
    ],
)  # fmt: skip
def test_mistakes_in_a_sweep(
    recipe: dict[str, Any], sweep: dict[str, list[Any]], where: tuple[object, ...], what: str
) -> None:
    with pytest.raises(Mistake, match=re.escape(what)) as caught:
        variants(Recipe.model_validate(recipe), sweep)
    assert caught.value.where == where
    assert "\n" not in str(caught.value)


def test_every_setting_of_one_value_can_be_swept() -> None:
    assert set(Recipe.model_fields) - set(SETTINGS) == {"lora", "replay_from"}
