"""epigone generate: one model's answers to a file of prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from epigone import api
from epigone.cli.common import Json, Teller, say_json


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("generate")(generate)


def generate(
    model: Annotated[
        str, typer.Argument(help="Catalogue name, hf:org/name[@rev], a folder, or gguf:FILE.")
    ],
    prompts: Annotated[
        Path, typer.Argument(help="Text, one prompt a line, or JSONL with prompt or messages.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="Samples, as JSONL.")],
    n: Annotated[int | None, typer.Option("-n", min=1, help="Only the first n prompts.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 256,
    json: Json = False,
) -> None:
    """Answer prompts with one model, greedily, in its chat format.

    Example: epigone generate smollm2-135m-instruct my-corpus/held_out.jsonl -n 8 -o answers.jsonl
    """
    with Teller() as teller:
        samples = api.generate(
            model, prompts, out, n=n, max_new_tokens=max_new_tokens, progress=teller
        )
    if json:
        say_json({"samples": len(samples), "file": str(out)})
    else:
        print(f"{len(samples)} samples: {out}")
