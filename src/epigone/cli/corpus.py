"""epigone corpus: teacher text to a clean corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from epigone import api
from epigone.cli.common import Json, Teller, Use, say_json, table
from epigone.errors import UserError
from epigone.study.specs import FORMATS, MIXES


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
        typer.Argument(
            metavar="FILE…",
            help="Files or folders of teacher text, catalogue names, or hf:org/dataset@revision; "
            f"FORMAT=FILE names a format: {', '.join(FORMATS)}.",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder to make.")],
    kind: Annotated[str, typer.Option(help="broad, or local (task-specific).")] = "broad",
    format: Annotated[str, typer.Option(help="Format of all files; found out unless named.")] = "",
    teacher: Annotated[str, typer.Option(help="Who wrote the answers.")] = "unknown",
    licence: Annotated[str, typer.Option(help="Licence of the data.")] = "",
    terms: Annotated[str, typer.Option(help="The teacher's terms of use, as openai.")] = "",
    use: Use = "research",
    languages: Annotated[
        str, typer.Option(help="ISO 639 codes to keep, with commas; 'any' for all.")
    ] = "en",
    on: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="RULE", help="Switch a rule on; repeatable."),
    ] = None,
    off: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="RULE", help="Switch a rule off; repeatable."),
    ] = None,
    mix: Annotated[str, typer.Option(help=f"A known mix: {', '.join(MIXES)}.")] = "",
    cap: Annotated[
        list[int] | None, typer.Option(help="Most conversations of a file, for each in its order.")
    ] = None,
    weight: Annotated[
        list[float] | None, typer.Option(help="Share of a file's tokens, for each in its order.")
    ] = None,
    decontaminate: Annotated[
        str, typer.Option(metavar="TASKS", help="Benchmarks whose items must not be in it.")
    ] = "facts,choices",
    min_chars: Annotated[int, typer.Option(min=0, help="Shortest reply, in characters.")] = 1,
    max_chars: Annotated[int, typer.Option(min=1, help="Longest turn, in characters.")] = 100_000,
    max_tokens: Annotated[
        int, typer.Option(min=0, help="Split longer conversations at prompts; 0 for never.")
    ] = 0,
    held_out: Annotated[int, typer.Option(min=0, help="Prompts kept from training.")] = 128,
    seed: Annotated[
        int, typer.Option(min=0, max=(1 << 32) - 1, help="Of the order and the split.")
    ] = 0,
    json: Json = False,
) -> None:
    """Read, clean, deduplicate, filter and mix; split off held-out prompts; count every drop.

    Example: epigone corpus build sharegpt.json -o my-corpus --teacher chatgpt --terms openai
    """
    if kind not in ("broad", "local"):
        raise UserError("unknown kind of corpus", value=kind, fix="broad or local")
    with Teller() as teller:
        record = api.build_corpus(
            _sources(files, format, cap or [], weight or []),
            out,
            kind="broad" if kind == "broad" else "local",
            teacher=teacher,
            licence=licence,
            terms=terms,
            use=use,
            languages=[] if languages == "any" else languages.split(","),
            rules={**dict.fromkeys(on or (), True), **dict.fromkeys(off or (), False)},
            mix=mix,
            decontaminate=[task for task in decontaminate.split(",") if task],
            min_chars=min_chars,
            max_chars=max_chars,
            max_tokens=max_tokens,
            held_out=held_out,
            seed=seed,
            progress=teller,
        )
    _say(dict(record.facts), json)


def _sources(
    files: list[str], format: str, caps: list[int], weights: list[float]
) -> list[dict[str, Any]]:
    for name, values in (("--cap", caps), ("--weight", weights)):
        if values and len(values) != len(files):
            raise UserError(
                f"{name} is given {len(values)} times for {len(files)} files",
                fix="give it once for each file, in their order",
            )
    sources: list[dict[str, Any]] = []
    for i, file in enumerate(files):
        named, equals, rest = file.partition("=")
        found = {"ref": rest, "format": named} if equals and named in FORMATS else {"ref": file}
        if format:
            found["format"] = format
        sources.append(
            found
            | ({"cap": caps[i]} if caps else {})
            | ({"weight": float(weights[i])} if weights else {})
        )
    return sources


def stats(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A corpus folder.")],
    tokenizer: Annotated[
        str, typer.Option(metavar="MODEL", help="Count tokens by role with a model's tokenizer.")
    ] = "",
    diversity: Annotated[
        int,
        typer.Option(min=0, help="Compare so many first prompts with one another; 0 for none."),
    ] = 0,
    exact: Annotated[bool, typer.Option("--exact", help="Compare all pairs of prompts.")] = False,
    json: Json = False,
) -> None:
    """Tell what a corpus holds and what was dropped by which rule; write DIR/stats.html.

    Example: epigone corpus stats my-corpus --diversity 10000
    """
    with Teller() as teller:
        found, page = api.corpus_stats(
            folder, tokenizer=tokenizer, diversity=diversity, exact=exact, progress=teller
        )
    _say({**found, "page": str(page)}, json)


def _say(facts: dict[str, Any], json: bool) -> None:
    if json:
        say_json(facts)
        return
    rows: list[list[str]] = []

    def add(key: str, value: Any) -> None:
        if isinstance(value, dict):
            for k, v in value.items():
                add(f"{key}.{k}" if key else str(k), v)
        elif isinstance(value, list) and any(isinstance(v, dict) for v in value):
            for i, v in enumerate(value):
                add(f"{key}.{i}", v)
        else:
            rows.append([key, f"{value:,}" if isinstance(value, int) else str(value)])

    add("", facts)
    table("", ("", "value"), rows)
