"""A report as one PDF file, set by typst from data alone."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from epigone.report.document import Block, Figure
from epigone.report.figures import needed


def pdf(blocks: Sequence[Block], drawn: Mapping[str, bytes]) -> bytes:
    """The document with its figures, `drawn` as SVG by name; equal inputs give equal bytes.

    What a study or a model wrote comes to typst as strings of JSON, never as markup, and no file is
    within its reach.
    """
    _, typst = needed()
    template = (files("epigone.report") / "templates" / "report.typ").read_bytes()
    told = json.dumps([_told(b, drawn) for b in blocks])
    with tempfile.TemporaryDirectory() as empty:
        found: bytes = typst.compile(
            template, format="pdf", root=empty, sys_inputs={"blocks": told}, timestamp=0
        )
    return found


def _told(block: Block, drawn: Mapping[str, bytes]) -> dict[str, Any]:
    kind = type(block).__name__.lower()
    if isinstance(block, Figure):
        return {
            "kind": kind,
            "title": block.title,
            "caption": block.caption,
            "words": block.words,
            "svg": drawn[block.name].decode(),
        }
    return {"kind": kind, **asdict(block)}
