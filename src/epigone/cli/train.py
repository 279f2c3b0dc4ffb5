"""epigone train: a base and a corpus to students."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from epigone import api
from epigone.cli.common import Json, Teller, say_json
from epigone.errors import UnknownName, UserError
from epigone.study.declare import parse_amount
from epigone.study.recipes import PRESETS
from epigone.study.specs import amount_folder


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("train")(train)


def train(
    base: Annotated[
        str, typer.Argument(help="Catalogue name, hf:org/name[@rev], a folder, or gguf:FILE.")
    ],
    corpus: Annotated[Path, typer.Argument(help="A corpus folder.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder to make.")],
    amount: Annotated[
        list[str], typer.Option("--amount", help="Tokens of teacher output, as 8k; repeatable.")
    ],
    preset: Annotated[str, typer.Option(help=" or ".join(PRESETS))] = "false-promise",
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    warmup: Annotated[float | None, typer.Option(help="Fraction of the run, or steps.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Blocks an optimiser step.")] = None,
    block: Annotated[int | None, typer.Option(min=16, help="Tokens a block.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=(1 << 32) - 1, help="Of everything random.")] = 0,
    json: Json = False,
) -> None:
    """Train a base on nested amounts of a corpus: one run, a student at each amount.

    Example: epigone train smollm2-135m-instruct my-corpus --amount 8k -o students --block 512
    """
    if preset not in PRESETS:
        raise UnknownName("recipe preset", preset, PRESETS)
    try:
        amounts = [parse_amount(a) for a in amount]
    except ValueError as error:
        raise UserError(str(error), value=" ".join(amount)) from None
    given = {"lr": lr, "warmup": warmup, "batch": batch, "block": block}
    recipe: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    with Teller() as teller:
        record = api.train(
            base,
            corpus,
            out,
            amounts=amounts,
            recipe={"preset": preset, **recipe},
            seed=seed,
            progress=teller,
        )
    if json:
        say_json(record.to_json())
        return
    for tokens in sorted(set(amounts)):
        print(out / amount_folder(tokens))
