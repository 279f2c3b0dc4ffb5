"""epigone benchmark: one model's scores on benchmarks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

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
from epigone.errors import UserError
from epigone.evaluation.code import UNSAFE

Unsafe = Annotated[
    bool,
    typer.Option(
        "--unsafe-local",
        help="Run model-written code without a sandbox: it may read, write and send what you may.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("benchmark")(benchmark)


def benchmark(
    model: Annotated[
        str,
        typer.Argument(
            help="Catalogue name, hf:org/name[@rev], a folder, gguf:FILE, or endpoint:URL#model."
        ),
    ],
    tasks: Annotated[
        str, typer.Option("--tasks", help="Epigone's or lm-eval's, with commas between.")
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="A folder for each task.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="[TASK=]PATH", help="A task's original files, or hub."),
    ] = None,
    include: Annotated[
        Path | None, typer.Option("--include", metavar="DIR", help="A folder of lm-eval tasks.")
    ] = None,
    format: Annotated[
        Literal["raw", "chat"], typer.Option("--format", help="Plain text, or the chat template.")
    ] = "raw",
    shots: Annotated[int | None, typer.Option(min=0, help="Examples, if not the task's.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Items, a seeded subset.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the items of a limit.")] = 0,
    samples: Annotated[int, typer.Option(min=1, help="Programs a problem, for pass@k.")] = 1,
    temperature: Annotated[float, typer.Option(min=0, help="0 for greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Share of the probability to sample from.")] = 1.0,
    unsafe_local: Unsafe = False,
    json: Json = False,
) -> None:
    """Measure one model on benchmarks.

    Example: epigone benchmark gemma-3-270m --tasks mmlu,humaneval --data mmlu=mmlu/ -o scores
    """
    names = [t.strip() for t in tasks.split(",") if t.strip()]
    where = _data(data or [], names)
    told: dict[str, Any] = {"format": format, "shots": shots, "seed": seed}
    if include is not None:
        told["tasks"] = str(include)
    sampled = {"samples": samples, "temperature": temperature, "top_p": top_p}
    asked = [
        {"task": n, "data": where.get(n, ""), **told, **(sampled if n == "humaneval" else {})}
        for n in names
    ]
    allow_unsafe(unsafe_local)
    with Teller() as teller:
        scores = api.benchmark(model, asked, out, limit=limit, progress=teller)
    if json:
        say_json(score_json(scores))
    else:
        table("", SCORE_COLUMNS, score_rows(scores))


def allow_unsafe(unsafe: bool) -> None:
    """Let programs run without a sandbox in this process and those that it starts."""
    os.environ.pop(UNSAFE, None)
    if unsafe:
        os.environ[UNSAFE] = "1"


def _data(given: list[str], tasks: list[str]) -> dict[str, str]:
    found = {}
    for text in given:
        task, equals, path = text.partition("=")
        if not equals and len(tasks) == 1:
            task, path = tasks[0], text
        if task not in tasks or not path:
            raise UserError(
                "--data is of none of the tasks",
                value=text,
                fix=f"{tasks[0]}=PATH" if tasks else "",
            )
        found[task] = path
    return found
