"""epigone style: how close answers are to the teacher's in style."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from epigone import api
from epigone.cli.common import Json, say_json, table
from epigone.errors import UserError
from epigone.files import write_jsonl
from epigone.schema import Interval, Score
from epigone.study.style import ALL_STYLE_METRICS


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
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="Only this; give it again for more.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare models' answers with the teacher's: lists, summaries, words, lengths, and more.

    Each line of a file has an item (or id) and an output; items are paired by name. The second
    sample shows how near the teacher comes to itself, which no imitation can be expected to pass.

    Example: epigone style teacher.jsonl base.jsonl student.jsonl --ceiling teacher-again.jsonl
    """
    files = [*models, ceiling] if ceiling else models
    if out is not None:
        _check_writable(out, [teacher, *files, *([scores_file] if scores_file else [])])
    wanted = list(dict.fromkeys(metric or ALL_STYLE_METRICS))
    scores = api.style(teacher, files, metrics=wanted, judged=scores_file)
    found = [(s, api.interval(s)) for s in scores]
    names = list(dict.fromkeys(s.model for s in scores))
    again = names[-1] if ceiling else None
    rows = [
        s.to_json()
        | {"low": i.low, "high": i.high, "note": i.note, "second_sample": s.model == again}
        for s, i in found
    ]
    if out is not None:
        write_jsonl(out, rows)
    if json:
        say_json(rows)
        return
    heads = [f"{n} (ceiling)" if n == again else n for n in names]
    table("", ("metric", "identical", "n", *heads), _rows(found, names))
    for note, cells in _without_bounds(found).items():
        print(f"no interval ({note}): {', '.join(cells)}", file=sys.stderr)


def _check_writable(out: Path, read: Sequence[Path]) -> None:
    """Raise UserError for a file that could not be written once all is measured."""
    folder = next(p for p in out.absolute().parents if p.exists())
    why = ""
    if out.is_dir():
        why = "it is a folder"
    elif out.resolve() in {path.resolve() for path in read}:
        why = "it is one of the files that are read"
    elif not folder.is_dir():
        why = f"{folder} is no folder"
    elif not os.access(folder, os.W_OK | os.X_OK):
        why = f"nothing may be written in {folder}"
    if why:
        raise UserError("the scores cannot be written", value=str(out), fix=why)


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


def _without_bounds(found: Sequence[tuple[Score, Interval]]) -> dict[str, list[str]]:
    """The values without an interval, by the reason."""
    told: dict[str, list[str]] = {}
    for score, interval in found:
        if score.value is not None and interval.low is None:
            told.setdefault(interval.note, []).append(f"{score.metric} of {score.model}")
    return told


def _cell(score: Score, interval: Interval) -> str:
    if score.value is None:
        return score.method or "-"
    digits = 1 if score.metric == "unigram" else 2
    value = f"{score.value:.{digits}f}"
    if interval.low is None or interval.high is None:
        return value
    return f"{value} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
