"""epigone corpus: teacher text to a clean corpus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from epigone import api
from epigone.cli.common import Json, Teller, Use, say_json, table
from epigone.errors import UserError
from epigone.study.specs import FORMATS, MIXES

# Rows of a table of names.
_SHOWN = 15


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
    rules_on: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="RULE", help="Switch a rule on; repeatable."),
    ] = None,
    rules_off: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="RULE", help="Switch a rule off; repeatable."),
    ] = None,
    mix: Annotated[str, typer.Option(help=f"A known mix: {', '.join(MIXES)}.")] = "",
    cap: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Most conversations of a file, for each in its order."),
    ] = None,
    weight: Annotated[
        list[float] | None,
        typer.Option(min=0, help="Share of a file's tokens, for each in its order."),
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
    on: Annotated[
        str,
        typer.Option("--on", help="local, or ray: with Ray Data; the result is the same."),
    ] = "",
    address: Annotated[
        str,
        typer.Option(help="Ray cluster, auto or host:port; without one, Ray on this machine."),
    ] = "",
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
            languages=[] if languages == "any" else [code for code in languages.split(",") if code],
            rules={**dict.fromkeys(rules_on or (), True), **dict.fromkeys(rules_off or (), False)},
            mix=mix,
            decontaminate=[task for task in decontaminate.split(",") if task],
            min_chars=min_chars,
            max_chars=max_chars,
            max_tokens=max_tokens,
            held_out=held_out,
            seed=seed,
            on=on,
            address=address,
            progress=teller,
        )
    if json:
        say_json(dict(record.facts))
    else:
        _tell_built(dict(record.facts))


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
    if exact and not diversity:
        raise UserError("--exact compares prompts, none are asked for", fix="--diversity N --exact")
    with Teller() as teller:
        found, page = api.corpus_stats(
            folder, tokenizer=tokenizer, diversity=diversity, exact=exact, progress=teller
        )
    if json:
        say_json({**found, "page": str(page)})
    else:
        _tell(found)
        print(f"\n{page}")


def _tell(found: dict[str, Any]) -> None:
    for i, (title, columns, rows) in enumerate(_tables(found)):
        if i:
            print()
        table(title, columns, [[_shown(cell) for cell in row] for row in rows])
    print()
    _tell_rules(found)


def _tables(found: dict[str, Any]) -> Iterator[tuple[str, tuple[str, ...], list[list[Any]]]]:
    """What a corpus holds, as titled tables."""
    sums = [[part, *found[part].values()] for part in ("train", "held_out")]
    yield "", ("", "conversations", "turns", "teacher tokens"), sums
    roles = [[role, *row.values()] for role, row in found["roles"].items()]
    counted = ("tokens",) if any(len(row) == 4 for row in roles) else ()
    yield "train", ("role", "turns", "characters", *counted), roles
    spreads = [
        [name.replace("_", " "), *found[name].values()]
        for name in ("tokens_per_conversation", "exchanges_per_conversation")
    ]
    yield "", ("", *found["tokens_per_conversation"]), spreads
    if "diversity" in found:
        yield (
            "",
            ("diversity", ""),
            [[k.replace("_", " "), v] for k, v in found["diversity"].items()],
        )
    for what in ("languages", "by_source", "by_teacher", "by_terms", "openings"):
        title = what.removeprefix("by_").replace("openings", "first words")
        rows = [[name or "(none)", n] for name, n in found[what].items()]
        yield "", (title, "conversations"), rows[:_SHOWN]
    sources = [
        [s["source"], f"{s['format']}, {s['container']}"]
        + [s[key] for key in ("read", "invalid", "lost_bytes", "lost_rows")]
        for s in found["sources"]
    ]
    yield "", ("file", "format", "read", "invalid", "bytes lost", "rows lost"), sources


def _shown(cell: Any) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _tell_built(facts: dict[str, Any]) -> None:
    print("\n".join(f"{name}: {format}" for name, format in facts["formats"].items()))
    print()
    counts = ("read", "invalid", "kept", "held_out", "train", "train_tokens", "contaminated")
    table("", ("", ""), [[name.replace("_", " "), _shown(facts[name])] for name in counts])
    print()
    _tell_rules(facts)
    for rule, n in facts["seen_but_kept"].items():
        print(f"{rule} is off: {n:,} conversations have some")
    for what in ("lost", "skipped"):
        print("".join(f"\n{what}: {line}" for line in facts.get(what, ())), end="")
    if facts["lost"]:
        print(f"\n{facts['lost_bytes']:,} bytes are lost in all", end="")
    print()


def _tell_rules(found: dict[str, Any]) -> None:
    dropped, changed = found["dropped"], found["changed"]
    rows = [
        [rule, _shown(dropped.get(rule, 0)), _shown(changed.get(rule, 0))]
        for rule in dict.fromkeys((*dropped, *changed))
    ]
    table("", ("rule", "conversations dropped", "changed"), rows)
