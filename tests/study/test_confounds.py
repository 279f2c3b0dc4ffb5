from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from epigone.study.confounds import confounds
from epigone.study.cost import Reach, training
from epigone.study.recipes import PRESETS
from epigone.study.specs import RecipeSpec
from epigone.study.values import parse_amount

LADDER = [300_000, 20_000_000, 80_000_000, 150_000_000]


def recipe(**changed: object) -> RecipeSpec:
    return RecipeSpec(**{"preset": "false-promise", **PRESETS["false-promise"], **changed})


def told(asked: RecipeSpec, amounts: list[int] = LADDER, share: float = 0.8) -> list[str]:
    return several(asked, {"talk": (amounts, share)})


def several(asked: RecipeSpec, corpora: dict[str, tuple[list[int], float]]) -> list[str]:
    def reached(recipe: RecipeSpec, name: str, amounts: Sequence[int]) -> Sequence[Reach]:
        return training(None, recipe, amounts, corpora[name][1]).reaches

    return confounds(asked, {name: amounts for name, (amounts, _) in corpora.items()}, reached)


def mended(asked: RecipeSpec, line: str) -> RecipeSpec:
    """A recipe with the settings that a plan advises."""
    settings: dict[str, object] = {}
    for name, value in re.findall(r"(warmup|batch|block): (\S+?)(?= tokens|,|$)", line):
        settings[name] = float(parse_amount(value)) if name == "warmup" else int(value)
    return asked.model_copy(update={**settings, "warmup_unit": "tokens"})


def test_the_papers_warm_up_names_amounts_steps_rates_and_a_fix() -> None:
    warm, unequal, fix = told(recipe())
    assert warm.startswith("talk: 2 of 4 amounts end inside the warm-up of 1,000 steps, below the")
    assert "300k after 7 at 1.2e-05" in warm
    assert "20m after 403 at 0.0008" in warm
    assert "80m" not in warm
    assert fix == "no amount would end inside the warm-up with warmup: 30k tokens, batch: 16"
    assert "from 1.2e-05 (300k) to 0.002" in unequal


@pytest.mark.parametrize(
    "corpora",
    [
        {"talk": (LADDER, 0.8)},
        # The paper's grid.
        {
            "mix": ([300_000, 1_000_000, 150_000_000], 0.8),
            "nq": ([10_000, 30_000], 0.25),
            "tldr": ([300_000, 6_000_000], 0.25),
        },
        {"few": ([900], 0.25)},
    ],
)
@pytest.mark.parametrize("changed", [{}, {"batch": 8}, {"schedule": "wsd", "decay": 0.2}])
def test_the_advice_mends_every_corpus(
    corpora: dict[str, tuple[list[int], float]], changed: dict[str, object]
) -> None:
    asked = recipe(**changed)
    lines = several(asked, corpora)
    assert len(lines) > len(corpora)
    fixed = mended(asked, lines[-1])
    assert several(fixed, corpora) == []
    for amounts, share in corpora.values():
        assert training(None, fixed, amounts, share).reaches[0].steps >= 10


def test_a_decay_that_begins_inside_the_warm_up_is_told() -> None:
    # 1,607 steps, of which the last 804 fall from the 803rd of 1,000 steps of warm-up.
    warm, unequal, _ = told(recipe(schedule="wsd", decay=0.5), [80_000_000, 150_000_000])
    assert "1 of 2 amounts" in warm
    assert "80m after 1,607 at 0.0016" in warm
    assert "from 0.0016 (80m) to 0.002" in unequal


def test_a_fraction_of_the_largest_amount_is_no_fix_on_a_trunk() -> None:
    tenth = {"warmup": 0.1, "warmup_unit": "fraction"}
    warm, _, _ = told(recipe(**tenth))
    assert "of 302 steps" in warm
    assert "300k after 7 at" in warm
    # By itself each amount warms up over a tenth of its own steps.
    assert told(recipe(schedule="cosine", **tenth), [3_000_000, 150_000_000]) == []
    cosine = told(recipe(schedule="cosine"), [3_000_000, 150_000_000])[-1]
    assert cosine.endswith(" with warmup: 10%")


def test_amounts_behind_the_warm_up_are_no_confound() -> None:
    assert told(recipe(), [80_000_000, 150_000_000]) == []
    assert told(recipe(warmup=0.0)) == []
    assert several(recipe(), {}) == []


def test_a_trunk_that_decays_sees_less_of_the_warm_up() -> None:
    constant, wsd = (told(recipe(schedule=s, decay=0.1))[0] for s in ("constant", "wsd"))
    assert "20m after 403 at 0.0008" in constant
    # The last 40 of 403 steps fall, from the rate of the 363rd.
    assert "20m after 403 at 0.00073" in wsd
