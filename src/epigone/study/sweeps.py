"""Sweeps: one recipe and lists of values to the variants that are their product."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any

from pydantic import Field, ValidationError

from epigone.errors import UnknownName, UserError
from epigone.study.recipes import Lora, Recipe, plain_number
from epigone.study.specs import RecipeSpec
from epigone.study.values import Mistake, told

_LARGEST = 1_000
_LISTS = ("lora", "replay_from")
_LORA = tuple(f"lora.{name}" for name in Lora.model_fields if name != "targets")
# What can be swept: every setting of one value, those of `lora` by their dotted names.
SETTINGS = (*(name for name in Recipe.model_fields if name not in _LISTS), *_LORA)


class _Schema:
    """What an editor is told of a sweep: for every setting a list of its values."""

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        recipe, lora = Recipe.model_json_schema(), Lora.model_json_schema()
        kinds = recipe["properties"] | {f"lora.{k}": v for k, v in lora["properties"].items()}
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {name: _values(kinds[name]) for name in SETTINGS},
        }


def _values(setting: Mapping[str, Any]) -> dict[str, Any]:
    kinds = [k for k in setting.get("anyOf", ()) if k.get("type") != "null"]
    item = {"anyOf": kinds} if kinds else {k: v for k, v in setting.items() if k != "default"}
    return {"type": "array", "minItems": 1, "uniqueItems": True, "items": item}


Sweep = Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], _Schema()]


@dataclass(frozen=True, slots=True)
class Variant:
    """One combination of swept settings; without a sweep the one recipe, of no name.

    `places` tells where in the study file a swept setting has its value.
    """

    name: str
    recipe: Recipe
    spec: RecipeSpec
    places: Mapping[str, tuple[str | int, ...]]

    def where(self, setting: str) -> tuple[str | int, ...]:
        """The place of a setting in the study file."""
        return self.places.get(setting, ("recipe", setting))


def variants(recipe: Recipe, sweep: Mapping[str, Sequence[Any]]) -> list[Variant]:
    """The product of all swept settings, the last one fastest, each over the recipe.

    Raises Mistake for what cannot be swept, and for combinations that contradict themselves.
    """
    axes = {name: _axis(recipe, name, values) for name, values in sweep.items()}
    if math.prod(map(len, axes.values())) > _LARGEST:
        raise Mistake(("sweep",), UserError(f"a sweep of more than {_LARGEST:,} combinations"))
    found: list[Variant] = []
    for chosen in product(*(enumerate(values) for values in axes.values())):
        values = {name: value for name, (_, value) in zip(axes, chosen, strict=True)}
        places: dict[str, tuple[str | int, ...]] = {
            name.partition(".")[0]: ("sweep", name, i)
            for name, (i, _) in zip(axes, chosen, strict=True)
        }
        variant = _variant(recipe, values, places)
        _refuse_same(variant, found)
        found.append(variant)
    for setting in _APPLIES:
        if getattr(recipe, setting) is not None and all(
            getattr(v.recipe, setting) is None for v in found
        ):
            error = UserError(f"no combination of the sweep uses {setting}", fix="leave it out")
            raise Mistake(("recipe", setting), error)
    return found


def _axis(recipe: Recipe, name: str, values: Sequence[Any]) -> list[Any]:
    """The parsed values of one setting."""
    if name in _LISTS:
        error = UserError("only settings of one value can be swept", value=name)
        raise Mistake(("sweep", name), error, at_key=True)
    if name not in SETTINGS:
        raise Mistake(("sweep", name), UnknownName("recipe setting", name, SETTINGS), at_key=True)
    outer, _, inner = name.partition(".")
    model: type[Recipe | Lora] = Lora if inner else Recipe
    given = recipe.lora if inner else recipe
    if given is not None and (inner or outer) in given.model_fields_set:
        error = UserError("a setting stands in the recipe and in the sweep", value=name)
        raise Mistake(("sweep", name), error, at_key=True)
    if inner and recipe.lora is None and recipe.preset != "lora":
        error = UserError("no adapters to sweep over", value=name, fix="preset: lora")
        raise Mistake(("sweep", name), error, at_key=True)
    found: list[Any] = []
    for i, value in enumerate(values):
        try:
            parsed = getattr(model.model_validate({inner or outer: value}), inner or outer)
        except ValidationError as error:
            raise Mistake(("sweep", name, i), told(error)) from None
        if parsed is None:
            raise Mistake(("sweep", name, i), UserError("no value to sweep over", value=name))
        if parsed in found:
            raise Mistake(
                ("sweep", name, i), UserError(f"named twice in sweep.{name}", value=value)
            )
        found.append(parsed)
    return found


# Settings that only some values of another one have a use for. Where the other is swept, they hold
# for the variants that use them.
_APPLIES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "decay": ("schedule", lambda value: value == "wsd"),
    "replay_from": ("replay", bool),
}


def _variant(
    recipe: Recipe, values: Mapping[str, Any], places: Mapping[str, tuple[str | int, ...]]
) -> Variant:
    settings = {k: v for k, v in values.items() if k not in _LORA}
    inner = {k.partition(".")[2]: v for k, v in values.items() if k in _LORA}
    if inner:
        settings["lora"] = (recipe.lora or Lora()).model_copy(update=inner)
    for setting, (other, uses) in _APPLIES.items():
        if other in values and not uses(values[other]) and setting not in values:
            settings[setting] = None
    own = recipe.model_copy(update=settings)
    name = ",".join(f"{k}={_written(v)}" for k, v in values.items())
    try:
        return Variant(name, own, own.resolved(), places)
    except Mistake as mistake:
        setting = str(mistake.where[0])
        where = places.get(setting, ("recipe", setting))
        error = mistake.error
        if str(error) != _own_mistake(recipe):
            error = UserError(f"{name}: {error.what}", value=error.value, fix=error.fix)
        raise Mistake(where, error) from None


def _own_mistake(recipe: Recipe) -> str:
    """What is wrong with a recipe whatever is swept."""
    try:
        recipe.resolved()
    except Mistake as mistake:
        return str(mistake.error)
    return ""


def _refuse_same(variant: Variant, others: Sequence[Variant]) -> None:
    def settings(one: Variant) -> RecipeSpec:
        return one.spec.model_copy(update={"preset": ""})

    for other in others:
        if settings(other) == settings(variant):
            error = UserError(
                "two combinations of the sweep are the same recipe", value=variant.name
            )
            raise Mistake(("sweep",), error)


def _written(value: Any) -> str:
    """A swept value in a name: numbers as short as they are exact, spaces as dashes."""
    if isinstance(value, int | float):
        return plain_number(value)
    return "-".join(str(value).split())
