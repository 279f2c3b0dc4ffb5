from __future__ import annotations

import pytest

from epigone.study.confounds import confounds
from epigone.study.cost import training
from epigone.study.recipes import PRESETS
from epigone.study.specs import RecipeSpec
from epigone.study.values import parse_amount

LADDER = [300_000, 20_000_000, 80_000_000, 150_000_000]


def recipe(**changed: object) -> RecipeSpec:
    return RecipeSpec(**{"preset": "false-promise", **PRESETS["false-promise"], **changed})


def told(asked: RecipeSpec, amounts: list[int] = LADDER, share: float = 0.8) -> list[str]:
    reaches = training(None, asked, amounts, share).reaches
    return confounds(asked, {"talk": reaches}, {"talk": share})


def test_the_papers_warm_up_names_amounts_steps_rates_and_a_fix() -> None:
    warm, unequal = told(recipe())
    assert warm.startswith("talk: 2 of 4 amounts end inside the warm-up, below the learning rate")
    assert "300k after 7 of 1,000 steps at 1.2e-05" in warm
    assert "20m after 403 of 1,000 steps at 0.0008" in warm
    assert "80m" not in warm
    assert "(warmup: 50k tokens, and a smaller batch, since 300k is 7 steps only)" in warm
    assert "from 1.2e-05 (300k) to 0.002" in unequal


def test_the_fix_of_a_trunk_fixes_it() -> None:
    (warm, _) = told(recipe(batch=8))
    words = warm.rpartition("(warmup: ")[2].split()
    assert words[1] == "tokens)"
    fixed = recipe(batch=8, warmup=float(parse_amount(words[0])), warmup_unit="tokens")
    assert told(fixed) == []


def test_a_fraction_of_the_largest_amount_is_no_fix_on_a_trunk() -> None:
    tenth = {"warmup": 0.1, "warmup_unit": "fraction"}
    warm, _ = told(recipe(**tenth))
    assert "300k after 7 of 302 steps" in warm
    # By itself each amount warms up over a tenth of its own steps.
    assert told(recipe(schedule="cosine", **tenth), [3_000_000, 150_000_000]) == []
    (cosine, _) = told(recipe(schedule="cosine"), [3_000_000, 150_000_000])
    assert cosine.endswith("(warmup: 10%)")


def test_amounts_behind_the_warm_up_are_no_confound() -> None:
    assert told(recipe(), [80_000_000, 150_000_000]) == []
    assert told(recipe(warmup=0.0)) == []
    assert confounds(recipe(), {}, {}) == []


@pytest.mark.parametrize("schedule", ["constant", "wsd"])
def test_trunks_with_other_ends_warm_up_alike(schedule: str) -> None:
    assert told(recipe(schedule=schedule, decay=0.1)) == told(recipe())
