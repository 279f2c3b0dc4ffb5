"""epigone teacher: ask a model behind an endpoint."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated

import typer

from epigone.cli import serve, synthesize, teacher_feedback
from epigone.cli.asking import (
    Batch,
    Budget,
    Concurrency,
    EndpointOption,
    KeyEnv,
    Licence,
    PriceOption,
    Rpm,
    Temperature,
    Terms,
    TopP,
    Tpm,
    means_of,
    tell,
)
from epigone.cli.common import Json, Runs, Teller, say_json, table
from epigone.errors import UserError

teacher_app = typer.Typer(
    help="Ask a model behind an OpenAI-compatible endpoint.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    for verb in (serve, synthesize, teacher_feedback):
        verb.register(teacher_app)
    app.add_typer(teacher_app, name="teacher")


@teacher_app.command()
def ask(
    prompts: Annotated[
        Path, typer.Argument(metavar="PROMPTS", help="Texts, prompts or dialogues: .txt or JSON.")
    ],
    endpoint: EndpointOption,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="For the answers.")],
    n: Annotated[int | None, typer.Option("-n", min=1, help="Only the first prompts.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers to each prompt.")] = 1,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 1024,
    keep_cut: Annotated[
        bool, typer.Option("--keep-cut", help="Answers that end at --max-tokens count.")
    ] = False,
    system: Annotated[str, typer.Option(help="System prompt.")] = "",
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Sent along; grows with samples.")] = None,
    schema: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON schema that answers follow.")
    ] = None,
    completions: Annotated[
        bool, typer.Option("--completions", help="A base model, which goes on from a text.")
    ] = False,
    concurrency: Concurrency = 32,
    rpm: Rpm = 0,
    tpm: Tpm = 0,
    price: PriceOption = "",
    budget: Budget = "",
    batch: Batch = False,
    key_env: KeyEnv = "EPIGONE_API_KEY",
    terms: Terms = "",
    licence: Licence = "",
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Ask for answers to prompts; what was ever answered is not asked, or paid for, again.

    Example: epigone teacher ask prompts.txt --endpoint https://host/v1#model -o answers --budget 5
    """
    # The parser of the command line needs neither HTTP nor what reads prompts.
    from epigone.teachers.answers import Settings
    from epigone.teachers.collect import ask_teacher

    with Teller() as teller:
        facts = ask_teacher(
            prompts,
            out,
            endpoint,
            Settings(
                max_tokens=max_tokens, samples=samples, temperature=temperature, top_p=top_p,
                seed=seed, cut=keep_cut, schema=None if schema is None else _schema(schema),
                completions=completions,
            ),
            means=means_of(concurrency, rpm, tpm, price, budget, runs, batch=batch),
            system=system,
            n=n,
            about={"licence": licence, "terms": terms},
            key_env=key_env,
            progress=teller,
        )  # fmt: skip
    if json:
        say_json(facts)
        return
    tell(facts, [["answers", f"{facts['written']:,} of {facts['asked']:,}"]])


@teacher_app.command()
def cancel(
    endpoint: EndpointOption,
    key_env: KeyEnv = "EPIGONE_API_KEY",
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """End the open batches of an endpoint, and keep the answers that they have.

    Example: epigone teacher cancel --endpoint https://host/v1#model
    """
    from epigone.teachers.cancel import cancel_batches

    with Teller() as teller:
        facts = cancel_batches(endpoint, runs / "ledger", key_env=key_env, progress=teller)
    if json:
        say_json(facts)
        return
    shown = [
        ["batches", ", ".join(facts["batches"]) or "none was open"],
        ["answers kept", f"{facts['answers']:,} of {facts['requests']:,}"],
    ]
    table("", ("what", "value"), shown)


def _schema(path: Path) -> dict[str, object]:
    try:
        found = json_.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError("the schema cannot be read", value=str(path), fix=str(error)) from None
    if not isinstance(found, dict):
        raise UserError("a JSON schema is an object", value=str(path))
    return found
