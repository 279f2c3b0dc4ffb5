"""epigone benchmark: one model's scores on benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from epigone import api
from epigone.cli.common import (
    SCORE_COLUMNS,
    Json,
    Teller,
    say_json,
    score_json,
    score_rows,
    table,
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("benchmark")(benchmark)


def benchmark(
    model: Annotated[
        str, typer.Argument(help="Catalogue name, hf:org/name[@rev], a folder, or gguf:FILE.")
    ],
    tasks: Annotated[str, typer.Option("--tasks", help="Benchmarks, with commas between.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="For scores and samples.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Items, a seeded subset.")] = None,
    json: Json = False,
) -> None:
    """Measure one model on benchmarks, in the raw few-shot format.

    Example: epigone benchmark gemma-3-270m --tasks facts,choices -o scores
    """
    names = [t.strip() for t in tasks.split(",") if t.strip()]
    with Teller() as teller:
        scores = api.benchmark(model, names, out, limit=limit, progress=teller)
    if json:
        say_json(score_json(scores))
    else:
        table("", SCORE_COLUMNS, score_rows(scores))
