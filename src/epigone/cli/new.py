"""epigone new: a study to start from."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from epigone.cli.common import Json, say_json
from epigone.errors import UserError
from epigone.files import write_text


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("new")(new)


def new(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder for study.yaml; made if not there.")
    ],
    json: Json = False,
) -> None:
    """Write a commented study that runs as it is.

    Example: epigone new my-study && epigone run my-study
    """
    name = folder.resolve().name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise UserError(
            "not a name for a study", value=name, fix="use letters, digits, '.', '_' and '-'"
        )
    file = folder / "study.yaml"
    if file.exists():
        raise UserError("a study is there already", value=str(file), fix="name another folder")
    template = resources.files("epigone.study").joinpath("template.yaml").read_text("utf-8")
    try:
        write_text(file, template.replace("STUDY_NAME", name))
    except OSError as error:
        raise UserError(f"cannot write: {error.strerror}", value=str(file)) from None
    if json:
        say_json({"study": str(file), "name": name})
    else:
        print(f"wrote {file}\nnext: epigone plan {folder}, then epigone run {folder}")
