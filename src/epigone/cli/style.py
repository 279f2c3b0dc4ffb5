"""epigone style: how close answers are to the teacher's in style."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from epigone import api
from epigone.cli.common import SCORE_COLUMNS, Json, say_json, score_json, score_rows, table


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("style")(style)


def style(
    teacher: Annotated[Path, typer.Argument(help="The teacher's samples, JSONL.")],
    models: Annotated[list[Path], typer.Argument(metavar="MODEL…", help="Models' samples, JSONL.")],
    json: Json = False,
) -> None:
    """Compare models' answers with the teacher's: lists, summaries, words, lengths.

    Each line of a file has an item (or id) and an output; items are paired by name.

    Example: epigone style teacher.jsonl base.jsonl student.jsonl
    """
    scores = api.style(teacher, models)
    if json:
        say_json(score_json(scores))
    else:
        table("", SCORE_COLUMNS, score_rows(scores))
