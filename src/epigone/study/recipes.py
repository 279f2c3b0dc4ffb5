"""Recipes: the presets, what a study can say of one, and which settings contradict each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from epigone.errors import UnknownName, UserError
from epigone.study.specs import LoraSpec, RecipeSpec
from epigone.study.values import (
    Declared,
    Mistake,
    Reference,
    Share,
    Source,
    amount_label,
    by_reference,
    parse_amount,
)

PRESETS: dict[str, dict[str, Any]] = {
    # Gudibande et al., "The False Promise of Imitating Proprietary LLMs", and the code that they
    # trained with (EasyLM, May 2023). The loss is a token mean; "row-mean" is their variant.
    "false-promise": {
        "optimizer": "parameter-scaled",
        "lr": 2e-3,
        "warmup": 1000.0,
        "warmup_unit": "steps",
        "batch": 32,
        "block": 2048,
        "weight_decay": 1e-4,
        "clip": 1.0,
        "loss": "token-mean",
        "precision": "auto",
    },
    "adamw": {
        "optimizer": "adamw",
        "lr": 2e-5,
        "warmup": 0.03,
        "warmup_unit": "fraction",
        "batch": 32,
        "block": 2048,
        "weight_decay": 0.0,
        "clip": 1.0,
        "loss": "token-mean",
        "precision": "auto",
    },
}
PRESETS["lora"] = PRESETS["adamw"] | {"lr": 2e-4, "lora": LoraSpec(rank=16, alpha=32.0)}
# The last share of each amount's steps over which wsd falls, unless a study says otherwise.
DECAY = 0.1

_MOST = 10**15
_WARMUP = "a warm-up is a share of the run (0.1 or 10%), '1000 steps' or '200k tokens'"


@dataclass(frozen=True, slots=True)
class Warmup:
    """How long the learning rate rises: a fraction (0 to 1) of the run, steps, or tokens."""

    value: float
    unit: Literal["steps", "tokens", "fraction"]

    def __str__(self) -> str:
        """The shortest way to write it; reads back as the same."""
        if self.unit == "tokens":
            return f"{amount_label(int(self.value))} tokens"
        # As a number, 1 is a step.
        return "100%" if (self.value, self.unit) == (1, "fraction") else plain_number(self.value)


def parse_warmup(value: object) -> Warmup:
    """A warm-up: a fraction below 1 or with %, steps from 1 on or by name, or "200k tokens".

    Raises ValueError for anything else.
    """
    if isinstance(value, Warmup):
        return value
    text = str(value).strip().lower()
    if isinstance(value, bool | list | dict) or len(text) > 40:
        raise ValueError(_WARMUP)
    if found := re.fullmatch(r"(.+?)\s+(steps?|tokens)", text):
        count = 0 if found[1] == "0" else _counted(found[1])
        unit: Literal["steps", "tokens"] = "tokens" if found[2] == "tokens" else "steps"
        return Warmup(float(count), unit if count else "fraction")
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?(?:e-?[0-9]{1,3})?)\s*(%?)", text)
    if found is None:
        raise ValueError(_WARMUP)
    number = Decimal(found[1]) / (100 if found[2] else 1)
    if found[2] and number > 1:
        raise ValueError("a warm-up is at most 100% of the run")
    if number < 1 or found[2]:
        return Warmup(float(number), "fraction")
    if number > _MOST or number != int(number):
        raise ValueError(f"{_WARMUP}; steps are whole")
    return Warmup(float(number), "steps")


def _counted(text: str) -> int:
    try:
        return parse_amount(text)
    except ValueError:
        raise ValueError(_WARMUP) from None


def plain_number(value: float) -> str:
    """A number without a needless .0; reads back as the same number."""
    return repr(value).removesuffix(".0")


def _preset(value: str) -> str:
    if value not in PRESETS:
        raise Mistake((), UnknownName("recipe preset", value, PRESETS))
    return value


def _targets(value: str | list[str]) -> str | list[str]:
    # peft takes a text for a regular expression of whole paths, which one name never matches.
    if isinstance(value, str) and re.fullmatch(r"[\w.]+(\s*,\s*[\w.]+)*", value.strip()):
        return [name.strip() for name in value.split(",")]
    if isinstance(value, str):
        try:
            re.compile(value)
        except (re.error, RecursionError, OverflowError):
            raise ValueError("targets are names of modules, or a regular expression") from None
    return value


class Lora(Declared):
    """Low-rank adapters in place of the whole weights."""

    rank: int = Field(default=16, ge=1, description="rank of the adapters")
    alpha: float | None = Field(
        default=None, gt=0, description="scale times rank; twice the rank unless given"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="of the adapters' input")
    targets: Annotated[
        Reference | Annotated[list[Reference], Field(min_length=1)], AfterValidator(_targets)
    ] = Field(
        default="all-linear", description="modules by name, as peft takes them, or all-linear"
    )

    def resolved(self) -> LoraSpec:
        """All of it filled in."""
        names = self.targets
        return LoraSpec(
            rank=self.rank,
            alpha=2.0 * self.rank if self.alpha is None else float(self.alpha),
            dropout=float(self.dropout),
            targets=names if isinstance(names, str) else tuple(sorted(set(names))),
        )


class Recipe(Declared):
    """Training settings that the cells share: a preset, and what differs from it."""

    preset: Annotated[str, AfterValidator(_preset)] = Field(
        default="false-promise", description=" or ".join(PRESETS)
    )
    optimizer: Literal["parameter-scaled", "adamw"] | None = Field(
        default=None, description="parameter-scaled is the paper's: steps relative to the weights"
    )
    lr: float | None = Field(default=None, gt=0, description="peak learning rate")
    warmup: (
        Annotated[Warmup, BeforeValidator(parse_warmup, json_schema_input_type=float | str)] | None
    ) = Field(
        default=None,
        description="share of the largest amount's steps (0.1, 10%), '1000 steps', '200k tokens'",
    )
    schedule: Literal["constant", "cosine", "wsd"] | None = Field(
        default=None, description="of the learning rate, after the warm-up"
    )
    decay: Annotated[Share, Field(gt=0, le=1)] | None = Field(
        default=None, description="last share of an amount's steps, with wsd"
    )
    batch: int | None = Field(default=None, ge=1, description="blocks an optimiser step")
    block: int | None = Field(default=None, ge=16, description="tokens a block")
    weight_decay: float | None = Field(default=None, ge=0, description="toward 0, decoupled")
    clip: float | None = Field(default=None, gt=0, description="largest global gradient norm")
    loss: Literal["token-mean", "row-mean"] | None = Field(
        default=None, description="mean over tokens, or over each block's own mean"
    )
    precision: Literal["auto", "bf16", "fp32"] | None = Field(
        default=None, description="of matrix products; the master weights are always fp32"
    )
    chunks: Literal["documents", "contiguous"] | None = Field(
        default=None, description="pack conversations apart, or cut one stream of text"
    )
    replay: Annotated[Share, Field(ge=0, lt=1)] | None = Field(
        default=None, description="share of the loss taken on plain text"
    )
    replay_from: (
        Annotated[
            list[
                Annotated[
                    Source, BeforeValidator(by_reference, json_schema_input_type=str | Source)
                ]
            ],
            Field(min_length=1),
        ]
        | None
    ) = Field(default=None, description="where the plain text comes from")
    kl: float | None = Field(default=None, ge=0, description="weight of KL(base || student)")
    decay_to_base: float | None = Field(
        default=None, ge=0, description="weight decay toward the base instead of 0"
    )
    lora: Lora | None = Field(default=None, description="adapters in place of the whole weights")
    template: str | None = Field(
        default=None, description="chat template: chatml, or a .jinja file; the base's own if empty"
    )

    def resolved(self) -> RecipeSpec:
        """The preset with this recipe's own settings on top; `template` is still its name.

        Raises Mistake, its place the setting, for settings that contradict each other.
        """
        own = {k: v for k, v in self if v is not None and k != "replay_from"}
        settings: dict[str, Any] = PRESETS[self.preset] | own
        if self.warmup is not None:
            settings |= {"warmup": self.warmup.value, "warmup_unit": self.warmup.unit}
        if self.lora is not None:
            settings["lora"] = self.lora.resolved()
        if settings.get("schedule") == "wsd":
            settings.setdefault("decay", DECAY)
        # A whole number is a number: 1 and 1.0 have one identity.
        floats = [n for n, f in RecipeSpec.model_fields.items() if f.annotation is float]
        settings |= {n: float(settings[n]) for n in floats if n in settings}
        spec = RecipeSpec(**settings)
        for where, mistake in _contradictions(spec, self):
            raise Mistake((where,), mistake)
        return spec


def _contradictions(spec: RecipeSpec, recipe: Recipe) -> Iterator[tuple[str, UserError]]:
    """Settings that cannot stand together: where, and why."""
    fraction = spec.warmup if spec.warmup_unit == "fraction" else 0.0
    if recipe.decay is not None and spec.schedule != "wsd":
        what = f"a {spec.schedule} schedule has no decay"
        yield "decay", UserError(what, value=spec.decay, fix="schedule: wsd")
    # Sums of decimal fractions are not exact.
    if spec.schedule == "wsd" and fraction + spec.decay > 1 + 1e-9:
        what = f"a warm-up of {fraction:.0%} and a decay of {spec.decay:.0%} of the run overlap"
        yield "warmup" if recipe.decay is None else "decay", UserError(what, fix="shorten one")
    if spec.replay and not recipe.replay_from:
        what, fix = "replay without plain text", "name it with replay_from"
        yield "replay", UserError(what, value=spec.replay, fix=fix)
    if recipe.replay_from and not spec.replay:
        what, fix = "plain text that no replay uses", "say how much with replay, as 0.25"
        yield "replay_from", UserError(what, fix=fix)
    if spec.lora is not None and spec.optimizer == "parameter-scaled":
        # Where a matrix is 0, the scale is its floor.
        what = "parameter-scaled steps are too small for adapters, half of which start at 0"
        where = "optimizer" if recipe.optimizer else "lora"
        yield where, UserError(what, fix="preset: lora, or optimizer: adamw")
    if spec.lora is not None and spec.decay_to_base:
        what = "adapters leave the base's weights where they are, so nothing decays to them"
        fix = "with adapters, weight_decay pulls toward the base"
        yield "decay_to_base", UserError(what, value=spec.decay_to_base, fix=fix)
