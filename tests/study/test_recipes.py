from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from epigone.study.recipes import PRESETS, Lora, Recipe, Warmup, parse_warmup
from epigone.study.specs import LoraSpec, RecipeSpec
from epigone.study.values import Mistake


@pytest.mark.parametrize(
    ("given", "value", "unit"),
    [
        (0.1, 0.1, "fraction"),
        ("0.1", 0.1, "fraction"),
        ("10%", 0.1, "fraction"),
        ("2.5 %", 0.025, "fraction"),
        ("100%", 1.0, "fraction"),
        (1e-05, 1e-05, "fraction"),
        (1, 1.0, "steps"),
        (1000, 1000.0, "steps"),
        (1000.0, 1000.0, "steps"),
        ("1000 steps", 1000.0, "steps"),
        ("10", 10.0, "steps"),
        ("1 step", 1.0, "steps"),
        ("2k steps", 2000.0, "steps"),
        ("200k tokens", 200_000.0, "tokens"),
        ("1.5M Tokens", 1_500_000.0, "tokens"),
        (0, 0.0, "fraction"),
        ("0 steps", 0.0, "fraction"),
        ("0%", 0.0, "fraction"),
    ],
)
def test_a_warmup_is_a_share_steps_or_tokens(given: object, value: float, unit: str) -> None:
    recipe = Recipe(warmup=given).resolved()
    assert (recipe.warmup, recipe.warmup_unit) == (value, unit)


@pytest.mark.parametrize(
    "bad",
    ["", "x", "%", "101%", "-1", -0.1, "1000 epochs", "tokens", "0.5 steps", 1.5, "1.5 steps",
     True, [1], {}, math.inf, math.nan, "1 000 steps", "9" * 60, "1e400", "nan%", "٣%"],
)  # fmt: skip
def test_what_is_no_warmup_is_told_in_one_line(bad: object) -> None:
    with pytest.raises(ValidationError, match="warm-up"):
        Recipe(warmup=bad)


@given(st.one_of(st.text(), st.floats(), st.integers(), st.binary(), st.lists(st.integers())))
def test_any_warmup_is_read_or_refused_as_a_value(value: object) -> None:
    try:
        found = parse_warmup(value)
    except ValueError:
        return
    assert math.isfinite(found.value)
    assert found.value >= 0


@given(
    st.one_of(
        st.builds(Warmup, st.floats(0, 1, exclude_max=True), st.just("fraction")),
        st.just(Warmup(1.0, "fraction")),
        st.builds(Warmup, st.integers(1, 10**15).map(float), st.just("steps")),
        st.builds(Warmup, st.integers(1, 10**12).map(float), st.just("tokens")),
    )
)
def test_a_warmup_reads_back_from_how_it_is_written(warmup: Warmup) -> None:
    assert parse_warmup(str(warmup)) == warmup


@given(st.integers(0, 100), st.integers(0, 999))
def test_per_cent_are_the_nearest_number(whole: int, rest: int) -> None:
    text = f"{whole}.{rest:03}%"
    share = Fraction(whole * 1000 + rest, 100_000)
    if share > 1:
        with pytest.raises(ValueError, match="at most 100%"):
            parse_warmup(text)
    else:
        assert parse_warmup(text).value == float(share)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_whole_recipe(preset: str) -> None:
    spec = Recipe(preset=preset).resolved()
    assert spec == RecipeSpec(preset=preset, **PRESETS[preset])
    assert (spec.replay, spec.kl, spec.decay_to_base, spec.template) == (0, 0, 0, "")
    assert spec.schedule == "constant"


def test_the_adapters_preset() -> None:
    spec = Recipe(preset="lora").resolved()
    assert spec.lora == LoraSpec(rank=16, alpha=32.0, dropout=0.0, targets="all-linear")
    assert (spec.optimizer, spec.lr, spec.warmup, spec.warmup_unit) == (
        "adamw", 2e-4, 0.03, "fraction"
    )  # fmt: skip


@given(st.integers(1, 512))
def test_another_rank_keeps_the_adapters_scale(rank: int) -> None:
    lora = Recipe(preset="lora", lora=Lora(rank=rank)).resolved().lora
    assert lora is not None
    assert lora.alpha / lora.rank == 2


def test_the_order_of_adapted_modules_is_no_other_recipe() -> None:
    one, two = (
        Recipe.model_validate({"preset": "lora", "lora": {"targets": names}}).resolved()
        for names in (["q_proj", "v_proj"], ["v_proj", "q_proj", "v_proj"])
    )
    assert one == two
    assert one.lora is not None
    assert one.lora.targets == ("q_proj", "v_proj")


def test_a_whole_number_is_the_same_recipe_as_its_float() -> None:
    one, two = Recipe(clip=1, kl=1).resolved(), Recipe(clip=1.0, kl=1.0).resolved()
    assert one.model_dump_json() == two.model_dump_json()


def test_a_decay_is_there_with_wsd_and_nowhere_else() -> None:
    assert Recipe(schedule="wsd").resolved().decay == 0.1
    assert Recipe(schedule="wsd", decay="25%").resolved().decay == 0.25
    assert Recipe(schedule="cosine").resolved().decay == 0.0
    assert [Recipe(schedule=s).resolved().trunk for s in ("constant", "wsd", "cosine")] == [
        True, True, False
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "where", "what"),
    [
        ({"decay": 0.1}, "decay", "a constant schedule has no decay: 0.1 (schedule: wsd)"),
        ({"decay": 0.1, "schedule": "cosine"}, "decay", "a cosine schedule has no decay"),
        ({"schedule": "wsd", "decay": 0.6, "warmup": 0.5}, "decay", "warm-up of 50% and a decay"),
        ({"schedule": "wsd", "warmup": "95%"}, "warmup", "overlap"),
        ({"replay": 0.2}, "replay", "replay without plain text: 0.2"),
        ({"replay_from": ["x.txt"]}, "replay_from", "plain text that no replay uses"),
        ({"replay_from": ["x.txt"], "replay": 0}, "replay_from", "that no replay uses"),
        ({"lora": {}}, "lora", "(preset: lora, or optimizer: adamw)"),
        ({"preset": "lora", "optimizer": "parameter-scaled"}, "optimizer", "too small"),
        ({"preset": "lora", "decay_to_base": 0.1}, "decay_to_base", "weight_decay pulls"),
    ],
)
def test_settings_that_contradict_each_other(
    settings: dict[str, Any], where: str, what: str
) -> None:
    with pytest.raises(Mistake, match=re.escape(what)) as caught:
        Recipe.model_validate(settings).resolved()
    assert caught.value.where == (where,)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "wsd", "decay": 0.9, "warmup": 0.1},
        {"chunks": "contiguous", "kl": 0.1, "loss": "row-mean"},
        {"decay_to_base": 0.1, "weight_decay": 0.1},
        {"preset": "lora", "kl": 0.1, "schedule": "cosine"},
        {"preset": "lora", "decay_to_base": 0},
        {"preset": "false-promise", "optimizer": "adamw", "lora": {"rank": 4}},
        {"replay": "25%", "replay_from": ["a.txt", {"ref": "b.txt", "terms": "mit"}]},
    ],
)
def test_settings_that_go_together(settings: dict[str, Any]) -> None:
    Recipe.model_validate(settings).resolved()


@pytest.mark.parametrize(
    "settings",
    [
        {"replay": 1}, {"replay": -0.1}, {"replay": "100%"}, {"replay": "x"}, {"kl": -1},
        {"decay_to_base": -1}, {"schedule": "wds"}, {"schedule": "wsd", "decay": 0},
        {"chunks": "docs"}, {"lora": {"rank": 0}}, {"lora": {"alpha": 0}}, {"lora": {"r": 8}},
        {"lora": {"dropout": 1}}, {"lora": {"targets": []}}, {"lora": {"targets": "("}},
        {"lora": {"targets": [""]}}, {"replay": 0.1, "replay_from": []}, {"lora": True},
        {"replay": 0.1, "replay_from": [{"ref": "x", "weight": 2}]},
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate(settings)
