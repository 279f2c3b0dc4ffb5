"""epigone study-schema: JSON Schema of the study file."""

from __future__ import annotations

import typer

from epigone.cli.common import Json, say_json
from epigone.study.declare import Declaration


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("study-schema")(study_schema)


def study_schema(json: Json = True) -> None:
    """Print the JSON Schema of study files, for editors that complete and check YAML.

    Example: epigone study-schema > study.schema.json
    """
    schema = Declaration.model_json_schema(by_alias=True)
    say_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
