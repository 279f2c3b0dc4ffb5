"""epigone style: how close answers are to the teacher's in style."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from epigone import api
from epigone.cli.common import Json, say_json, score_json, table
from epigone.files import write_jsonl
from epigone.schema import Interval, Score


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("style")(style)


def style(
    teacher: Annotated[Path, typer.Argument(help="The teacher's samples, JSONL.")],
    models: Annotated[list[Path], typer.Argument(metavar="MODEL…", help="Models' samples, JSONL.")],
    ceiling: Annotated[
        Path | None, typer.Option("--ceiling", help="A second sample of the teacher's, JSONL.")
    ] = None,
    scores_file: Annotated[
        Path | None,
        typer.Option("--scores", help="scores.jsonl of 'epigone judge', which adds the tone."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", help="Write scores with every item's value, JSONL.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare models' answers with the teacher's: lists, summaries, words, lengths, and more.

    Each line of a file has an item (or id) and an output; items are paired by name. The second
    sample shows how near the teacher comes to itself, which no imitation can be expected to pass.

    Example: epigone style teacher.jsonl base.jsonl student.jsonl --ceiling teacher-again.jsonl
    """
    scores = api.style(teacher, [*models, ceiling] if ceiling else models, judged=scores_file)
    if out is not None:
        write_jsonl(out, (s.to_json() for s in scores))
    found = [(s, api.interval(s)) for s in scores]
    if json:
        bounds = [{"low": i.low, "high": i.high} for _, i in found]
        say_json([row | b for row, b in zip(score_json(scores), bounds, strict=True)])
        return
    names = list(dict.fromkeys(s.model for s in scores))
    heads = [*names[:-1], f"{names[-1]} (ceiling)"] if ceiling else names
    table("", ("metric", "identical", "n", *heads), _rows(found, names))


def _rows(found: Sequence[tuple[Score, Interval]], names: Sequence[str]) -> list[list[str]]:
    rows = []
    for metric in dict.fromkeys(s.metric for s, _ in found):
        own = {s.model: (s, i) for s, i in found if s.metric == metric}
        counts = [str(own[n][0].n) for n in names if n in own]
        told = counts[0] if len(set(counts)) == 1 else "/".join(counts)
        same = next(iter(own.values()))[0].ceiling
        cells = [_cell(*own[n]) if n in own else "-" for n in names]
        rows.append([metric, "" if same is None else f"{same:g}", told, *cells])
    return rows


def _cell(score: Score, interval: Interval) -> str:
    if score.value is None:
        return score.method or "-"
    digits = 1 if score.metric == "unigram" else 2
    value = f"{score.value:.{digits}f}"
    if interval.low is None or interval.high is None:
        return value
    # The bootstrap does not know that no classifier is right more than always.
    high = min(1.0, interval.high) if score.better == "lower" else interval.high
    return f"{value} [{interval.low:.{digits}f}, {high:.{digits}f}]"
