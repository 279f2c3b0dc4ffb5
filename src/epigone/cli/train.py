"""epigone train: a base and a corpus to students."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from epigone import api
from epigone.cli.common import Json, Teller, say_json
from epigone.cli.launch import Compile, Parallel, Processes, Track, choose, dismiss, follow
from epigone.errors import UserError
from epigone.study.recipes import PRESETS
from epigone.study.specs import amount_folder
from epigone.study.values import parse_amount


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
    optimizer: Annotated[str | None, typer.Option(help="parameter-scaled or adamw.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    warmup: Annotated[
        str | None, typer.Option(help="0.1 or 10% of the run, '1000 steps', '200k tokens'.")
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="constant, cosine or wsd.")] = None,
    decay: Annotated[
        str | None, typer.Option(help="Last share of each amount's steps (0.1, 10%), with wsd.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Blocks an optimiser step.")] = None,
    block: Annotated[int | None, typer.Option(help="Tokens a block.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Toward 0, decoupled.")] = None,
    clip: Annotated[float | None, typer.Option(help="Largest global gradient norm.")] = None,
    loss: Annotated[str | None, typer.Option(help="token-mean or row-mean.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of matrix products: auto, bf16 or fp32.")
    ] = None,
    chunks: Annotated[str | None, typer.Option(help="documents or contiguous.")] = None,
    replay: Annotated[
        str | None, typer.Option(help="Share of the loss taken on plain text (0.25, 25%).")
    ] = None,
    replay_from: Annotated[
        list[str] | None, typer.Option(help="Plain text by reference; repeatable.")
    ] = None,
    kl: Annotated[float | None, typer.Option(help="Weight of KL(base || student).")] = None,
    decay_to_base: Annotated[
        float | None, typer.Option(help="Weight decay toward the base.")
    ] = None,
    lora_rank: Annotated[int | None, typer.Option(help="Adapters of this rank.")] = None,
    lora_alpha: Annotated[
        float | None, typer.Option(help="Of adapters; twice the rank unless given.")
    ] = None,
    lora_dropout: Annotated[float | None, typer.Option(help="Of adapters.")] = None,
    lora_targets: Annotated[
        str | None, typer.Option(help="all-linear, or names of modules with commas.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Chat template: chatml, or a .jinja file.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=(1 << 32) - 1, help="Of everything random.")] = 0,
    processes: Processes = None,
    parallel: Parallel = None,
    track: Track = None,
    compiled: Compile = False,
    json: Json = False,
) -> None:
    """Train a base on nested amounts of a corpus: one run, a student at each amount.

    Example: epigone train smollm2-135m-instruct my-corpus --amount 8k -o students --block 512
    """
    if follow(processes, parallel, track, compiled):
        return
    choose(processes, parallel, track, compiled)
    try:
        amounts = [parse_amount(a) for a in amount]
    except ValueError as error:
        raise UserError(str(error), value=" ".join(amount)) from None
    lora = {
        "rank": lora_rank,
        "alpha": lora_alpha,
        "dropout": lora_dropout,
        "targets": lora_targets,
    }
    recipe = _given(
        preset=preset,
        optimizer=optimizer,
        lr=lr,
        warmup=warmup,
        schedule=schedule,
        decay=_share(decay),
        batch=batch,
        block=block,
        weight_decay=weight_decay,
        clip=clip,
        loss=loss,
        precision=precision,
        chunks=chunks,
        replay=_share(replay),
        replay_from=replay_from or None,
        kl=kl,
        decay_to_base=decay_to_base,
        lora=_given(**lora) or None,
        template=template,
    )
    with Teller() as teller:
        record = api.train(
            base,
            corpus,
            out,
            amounts=amounts,
            recipe=recipe,
            seed=seed,
            progress=teller,
        )
    dismiss()
    if json:
        say_json(record.to_json())
        return
    from epigone.report.training import statistics

    # Folders alone go to stdout, for the next command to take.
    for name, words in statistics(record.facts, record.seconds, record.peak_bytes).items():
        print(f"{name:<11} {words}", file=sys.stderr)
    for tokens in sorted(set(amounts)):
        print(out / amount_folder(tokens))


def _share(text: str | None) -> float | str | None:
    """A number as one, as a study file has it; what is none is left to be told."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
