from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from epigone import api
from epigone.cli import app
from epigone.errors import UserError
from epigone.study.recipes import Lora, Recipe

ASKED = ["train", "some-base", "corpus", "-o", "out", "--amount", "8k"]
OPTIONS: dict[str, Any] = {
    "preset": "adamw",
    "optimizer": "adamw",
    "lr": 3e-5,
    "warmup": "200k tokens",
    "schedule": "wsd",
    "decay": 0.2,
    "batch": 4,
    "block": 64,
    "weight_decay": 0.1,
    "clip": 2.0,
    "loss": "row-mean",
    "precision": "fp32",
    "chunks": "contiguous",
    "replay": 0.25,
    "replay_from": ["a.txt", "b.txt"],
    "kl": 0.1,
    "decay_to_base": 0.01,
    "template": "chatml",
}


class Asked(Exception):
    """Stands for the training that is not done here."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `api.train` was called with."""
    found: dict[str, Any] = {}

    def train(*_: Any, **settings: Any) -> Any:
        found.update(settings)
        raise Asked

    monkeypatch.setattr(api, "train", train)
    return found


def words(options: dict[str, Any]) -> list[str]:
    said = []
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            said += [f"--{name.replace('_', '-')}", str(one)]
    return said


def run(*arguments: str) -> BaseException | None:
    return CliRunner().invoke(app, [*ASKED, *arguments]).exception


def test_every_setting_of_a_recipe_is_an_option(asked: dict[str, Any]) -> None:
    assert set(OPTIONS) == set(Recipe.model_fields) - {"lora"}
    assert isinstance(run(*words(OPTIONS)), Asked)
    assert asked["recipe"] == OPTIONS
    assert asked["amounts"] == [8000]
    # What the options give is what a study file would.
    assert Recipe.model_validate(asked["recipe"]).resolved().warmup == 200_000


def test_what_is_not_said_is_left_to_the_preset(asked: dict[str, Any]) -> None:
    assert isinstance(run(), Asked)
    assert asked["recipe"] == {"preset": "false-promise"}


@pytest.mark.parametrize(
    ("arguments", "lora"),
    [
        ({"rank": 8}, Lora(rank=8)),
        ({"rank": 8, "alpha": 4.0, "dropout": 0.1}, Lora(rank=8, alpha=4, dropout=0.1)),
        ({"targets": "all-linear"}, Lora()),
        ({"targets": "q_proj, v_proj"}, Lora(targets=["q_proj", "v_proj"])),
        ({"targets": "q_proj"}, Lora(targets=["q_proj"])),
        ({"targets": ".*proj"}, Lora(targets=".*proj")),
        ({"targets": "layers.[0-9]{1,2}.*"}, Lora(targets="layers.[0-9]{1,2}.*")),
    ],
)
def test_adapters_are_told_by_options_of_their_own(
    asked: dict[str, Any], arguments: dict[str, Any], lora: Lora
) -> None:
    options = {"preset": "lora"} | {f"lora_{name}": value for name, value in arguments.items()}
    assert isinstance(run(*words(options)), Asked)
    assert Recipe.model_validate(asked["recipe"]).resolved().lora == lora.resolved()


def test_shares_are_written_as_in_a_study(asked: dict[str, Any]) -> None:
    for text in ("20%", "0.2"):
        run("--schedule", "wsd", "--decay", text)
        assert Recipe.model_validate(asked["recipe"]).resolved().decay == 0.2


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--replay", "most"], "replay: a share is a number or a percentage"),
        (["--preset", "adamv"], "did you mean 'adamw'?"),
        (["--optimizer", "sgd"], "optimizer: input should be 'parameter-scaled' or 'adamw': sgd"),
        (["--batch", "0"], "batch: input should be greater than or equal to 1: 0"),
        (["--warmup", "1 apple"], "warmup: a warm-up is a share of the run"),
        (["--decay", "0.1"], "a constant schedule has no decay"),
        (["--replay", "0.1"], "replay without plain text"),
        (["--lora-rank", "4"], "preset: lora, or optimizer: adamw"),
        (["--schedule", "cosine", "--amount", "16k"], "each amount is a run of its own"),
    ],
)
def test_settings_that_cannot_be_are_one_line(
    arguments: list[str], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("corpus").mkdir()
    Path("corpus/train.parquet").touch()
    error = run(*arguments)
    assert isinstance(error, UserError)
    assert what in str(error)
    assert not Path("out").exists()
