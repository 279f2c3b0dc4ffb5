"""epigone toxicity: how toxic a model's continuations of prompts are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from epigone import api
from epigone.cli.common import SCORE_COLUMNS, Json, Teller, say_json, score_json, score_rows, table


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("toxicity")(toxicity)


def toxicity(
    model: Annotated[
        str,
        typer.Argument(
            help="Catalogue name, hf:org/name[@rev], a folder, gguf:FILE, or endpoint:URL#model."
        ),
    ],
    prompts: Annotated[
        str, typer.Argument(help="RealToxicityPrompts, or lines of {prompt, class}.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="For what was said.")],
    scorer: Annotated[
        list[str],
        typer.Option(
            "--scorer",
            help="proxy, perspective, detoxify=DIR, classifier=DIR#LABEL, "
            "moderation=endpoint:URL#MODEL.",
        ),
    ],
    n: Annotated[int, typer.Option("-n", min=1, help="Prompts.")] = 100,
    samples: Annotated[int, typer.Option(min=1, help="Continuations of each.")] = 25,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest continuation.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Draws prompts and continuations.")] = 0,
    json: Json = False,
) -> None:
    """Go on from prompts several times and score what comes: expected maximum, probability.

    Example: epigone toxicity gemma-3-270m prompts.jsonl --scorer proxy -n 50 -o toxicity
    """
    with Teller() as teller:
        scores = api.toxicity(
            model,
            out,
            prompts=prompts,
            scorers=[_scorer(text) for text in scorer],
            n=n,
            samples=samples,
            max_new_tokens=max_new_tokens,
            seed=seed,
            progress=teller,
        )
    if json:
        say_json(score_json(scores))
    else:
        table("", SCORE_COLUMNS, score_rows(scores))


def _scorer(text: str) -> dict[str, str]:
    name, _, ref = text.partition("=")
    label = ""
    if name == "classifier":
        ref, _, label = ref.rpartition("#")
    return {"name": name, "ref": ref, "label": label}
