"""epigone teacher synthesize: examples of one task, made by a teacher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epigone.cli.asking import (
    Batch,
    Budget,
    Concurrency,
    EndpointOption,
    KeyEnv,
    Licence,
    PriceOption,
    Rpm,
    Temperature,
    Terms,
    TopP,
    Tpm,
    means_of,
    tell,
)
from epigone.cli.common import Json, Runs, Teller, say_json
from epigone.errors import UnknownName, UserError

if TYPE_CHECKING:
    from epigone.teachers.task import Task


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("synthesize")(synthesize)


def synthesize(
    task: Annotated[
        str, typer.Argument(metavar="TASK", help="nq, tldr, or a folder with a task.yaml.")
    ],
    endpoint: EndpointOption,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="For the examples.")],
    size: Annotated[int, typer.Option(min=1, help="How many examples.")] = 100,
    passages: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What tldr summarizes: .txt or JSON.")
    ] = None,
    seeds: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSONL of pairs to begin with.")
    ] = None,
    avoid: Annotated[
        list[str] | None,
        typer.Option(
            "--for", metavar="TASK[=DATA]", help="A benchmark of whose items none may be."
        ),
    ] = None,
    shown: Annotated[int, typer.Option(min=1, help="Examples in each request.")] = 5,
    each: Annotated[int, typer.Option(min=1, help="New ones it asks for.")] = 5,
    draw: Annotated[int, typer.Option(min=0, help="Seed of what is shown.")] = 0,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Sent along.")] = None,
    concurrency: Concurrency = 32,
    rpm: Rpm = 0,
    tpm: Tpm = 0,
    batch: Batch = False,
    price: PriceOption = "",
    budget: Budget = "",
    key_env: KeyEnv = "EPIGONE_API_KEY",
    terms: Terms = "",
    licence: Licence = "",
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Make examples of one task: pairs like given ones (nq, your own), or summaries (tldr).

    Example: epigone teacher synthesize nq --size 6000 --endpoint https://host/v1#model -o nq
    """
    from epigone.api import benchmark_items
    from epigone.corpus.stage import items_in
    from epigone.teachers import synthesize as pairs
    from epigone.teachers import tldr
    from epigone.teachers.synthesis import Growth

    means = means_of(concurrency, rpm, tpm, price, budget, runs, batch=batch)
    about = {"licence": licence, "terms": terms}
    settings = tldr.SETTINGS if task == "tldr" else pairs.SETTINGS
    told: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
    }
    settings = replace(settings, **{k: v for k, v in told.items() if v is not None})
    if (passages is not None) is not (task == "tldr"):
        raise UserError("tldr summarizes --passages FILE, no other task does", value=task)
    made = None if task == "tldr" else _task(task, seeds)
    with Teller() as teller:
        items = [i for name in avoid or () for i in items_in(benchmark_items(name, teller))]
        if made is None:
            facts = tldr.summarize(
                passages or "", out, endpoint, size, settings, avoid=items, means=means,
                about=about, key_env=key_env, progress=teller,
            )  # fmt: skip
        else:
            facts = pairs.synthesize_task(
                made, out, endpoint, Growth(size, shown, each, draw), settings, avoid=items,
                means=means, about=about, key_env=key_env, progress=teller,
            )  # fmt: skip
    if json:
        say_json(facts)
        return
    tell(facts, [["examples", f"{facts['written']:,}"], ["requests", f"{facts['asked']:,}"]])


def _task(named: str, seeds: Path | None) -> Task:
    from epigone.study.task_file import NAME
    from epigone.teachers.task import read
    from epigone.teachers.wordings import built_in

    known = built_in()
    folder = known.get(named, Path(named))
    if not (folder / NAME).is_file():
        if folder.is_dir() or "/" in named:
            raise UserError(f"no {NAME} in this folder", value=named)
        raise UnknownName("task", named, [*known, "tldr"])
    return read(folder, seeds)
