"""A report as one PDF file, set by typst from data alone."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from epigone.report.blocks import Block, Figure
from epigone.report.figures import needed


def pdf(blocks: Sequence[Block], drawn: Mapping[str, bytes]) -> bytes:
    """The document with its figures, `drawn` as SVG by name; equal inputs give equal bytes."""
    _, typst = needed()
    template, told = source(blocks, drawn)
    # No file is within its reach. PDF/UA would refuse a name of letters that no font here has.
    with tempfile.TemporaryDirectory() as empty:
        found: bytes = typst.compile(
            template, format="pdf", root=empty, sys_inputs=told, timestamp=0
        )
    return found


def source(blocks: Sequence[Block], drawn: Mapping[str, bytes]) -> tuple[bytes, dict[str, str]]:
    """The template, and the document as its input.

    What a study or a model wrote comes as strings of JSON, which typst shows and never reads.
    """
    template = (files("epigone.report") / "templates" / "report.typ").read_bytes()
    return template, {"blocks": json.dumps([_told(b, drawn) for b in blocks])}


def _told(block: Block, drawn: Mapping[str, bytes]) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": type(block).__name__.lower()}
    if isinstance(block, Figure):
        told = {"title": block.title, "caption": block.caption, "words": block.words}
        return found | told | {"svg": drawn[block.name].decode()}
    return found | asdict(block)
