"""The page on recipes says what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from epigone.study.declare import Declaration
from epigone.study.feedback import RATES
from epigone.study.file import parse
from epigone.study.recipes import PRESETS, Recipe
from epigone.study.specs import FeedbackSpec
from epigone.study.values import parse_share

PAGE = (Path(__file__).parents[2] / "docs/recipes.md").read_text()
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
STUDY = """\
name: tiny
teacher: {name: t}
bases: [one]
corpora: {sharegpt: {kind: broad, from: [x.json]}}
amounts: {sharegpt: [8k]}
"""


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table after a heading, without marks."""
    lines = PAGE[PAGE.index(f"\n## {heading}\n") :].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    found = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        cells = re.split(r"(?<!\\)\|", line)[1:-1]
        found.append([cell.strip().replace("`", "") for cell in cells])
    return found


@pytest.mark.parametrize("block", BLOCKS)
def test_every_example_is_a_study(block: str) -> None:
    assert parse(STUDY + block).variants()
    assert set(yaml.safe_load(block)) <= {"recipe", "sweep", "feedback"}


@pytest.mark.parametrize("block", BLOCKS)
def test_editors_accept_every_example(block: str) -> None:
    jsonschema.validate(yaml.safe_load(STUDY + block), Declaration.model_json_schema())


@pytest.mark.parametrize(
    "block",
    [
        "sweep: {repaly: [0]}",
        "sweep: {replay: []}",
        "sweep: {replay: 0.1}",
        "sweep: {kl: [-1]}",
        "sweep: {replay: [null]}",
        "sweep: {lora: [{rank: 2}]}",
        "recipe: {warmup: [1]}",
        "feedback: {ranked: {method: ppo, from: [x]}}",
    ],
)
def test_editors_refuse_what_is_no_study(block: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(STUDY + block), Declaration.model_json_schema())


def test_the_table_has_every_setting() -> None:
    told = [name for row in rows("All settings") for name in row[0].split(", ")]
    assert told == list(Recipe.model_fields)


def number(text: str) -> Any:
    return float(text) if re.fullmatch(r"[0-9.e-]+", text) else text


def test_the_values_of_the_papers_preset() -> None:
    spec = Recipe().resolved()
    for name, _, value, _ in rows("All settings"):
        key = name.split(", ")[0]
        if key in ("optimizer", "lr", "schedule", "batch", "block", "weight_decay", "clip", "loss",
                   "precision", "chunks", "replay", "kl", "decay_to_base"):  # fmt: skip
            assert getattr(spec, key) == number(value)
        elif key == "warmup":
            assert value == f"{spec.warmup:g} {spec.warmup_unit}"


def test_the_presets() -> None:
    told = {row[0].split()[0]: row for row in rows("Take a preset")}
    assert list(told) == list(PRESETS)
    for name, (_, _, optimizer, lr, warmup, _) in told.items():
        recipe = Recipe.model_validate({"preset": name, "warmup": warmup}).resolved()
        assert recipe == Recipe(preset=name).resolved()
        assert (optimizer, float(lr)) == (recipe.optimizer, recipe.lr)


def test_the_settings_of_feedback() -> None:
    told = {row[0]: row[1] for row in rows("Go on with feedback")}
    assert re.findall(r"(\S+) for (\w+)", told.pop("lr")) == [
        (f"{rate:g}".replace("e-0", "e-"), method) for method, rate in RATES.items()
    ]
    for name, value in told.items():
        assert FeedbackSpec.model_fields[name].default == parse_share(
            value if "%" in value else float(value)
        )
