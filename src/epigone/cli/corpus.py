"""epigone corpus: teacher text to a clean corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from epigone import api
from epigone.cli.common import Json, Teller, say_json, table
from epigone.errors import UserError


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(
        help="Clean teacher text into a corpus, and look at one.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("build")(build)
    group.command("stats")(stats)
    app.add_typer(group, name="corpus")


def build(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE…", help="Files of teacher text, or catalogue names."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder to make.")],
    kind: Annotated[str, typer.Option(help="broad, or local (task-specific).")] = "broad",
    teacher: Annotated[str, typer.Option(help="Who wrote the answers.")] = "unknown",
    licence: Annotated[str, typer.Option(help="Licence of the data.")] = "",
    terms: Annotated[str, typer.Option(help="The teacher's terms of use.")] = "",
    held_out: Annotated[int, typer.Option(min=0, help="Prompts kept from training.")] = 128,
    seed: Annotated[
        int, typer.Option(min=0, max=(1 << 32) - 1, help="Of the order and the split.")
    ] = 0,
    json: Json = False,
) -> None:
    """Read, clean, deduplicate, keep English, split off held-out prompts; count every drop.

    Example: epigone corpus build sharegpt.json -o my-corpus --teacher chatgpt
    """
    if kind not in ("broad", "local"):
        raise UserError("unknown kind of corpus", value=kind, fix="broad or local")
    with Teller() as teller:
        record = api.build_corpus(
            files,
            out,
            kind="broad" if kind == "broad" else "local",
            teacher=teacher,
            licence=licence,
            terms=terms,
            held_out=held_out,
            seed=seed,
            progress=teller,
        )
    _say(dict(record.facts), json)


def stats(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A corpus folder.")],
    json: Json = False,
) -> None:
    """Tell what a corpus holds and what was dropped by which rule.

    Example: epigone corpus stats my-corpus
    """
    from epigone.corpus import stats as measure

    _say(measure(api.corpus_folder(folder)), json)


def _say(facts: dict[str, Any], json: bool) -> None:
    if json:
        say_json(facts)
        return
    rows: list[list[str]] = []
    for key, value in facts.items():
        if isinstance(value, dict):
            rows += [[f"{key}.{k}", str(v)] for k, v in value.items()]
        else:
            rows.append([key, str(value)])
    table("", ("", "value"), rows)
