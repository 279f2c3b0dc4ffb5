"""epigone teacher: ask a model behind an endpoint."""

from __future__ import annotations

import json as json_
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated

import typer

from epigone.cli.common import Json, Runs, Teller, say_json, table
from epigone.errors import UserError

teacher_app = typer.Typer(
    help="Ask a model behind an OpenAI-compatible endpoint.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(teacher_app, name="teacher")


@teacher_app.command()
def ask(
    prompts: Annotated[
        Path, typer.Argument(metavar="PROMPTS", help="Texts, prompts or dialogues: .txt or JSON.")
    ],
    endpoint: Annotated[
        str, typer.Option("--endpoint", metavar="URL#MODEL", help="As http://127.0.0.1:8000/v1#m.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="For the answers.")],
    n: Annotated[int | None, typer.Option("-n", min=1, help="Only the first prompts.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers to each prompt.")] = 1,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 1024,
    keep_cut: Annotated[
        bool, typer.Option("--keep-cut", help="Answers that end at --max-tokens count.")
    ] = False,
    system: Annotated[str, typer.Option(help="System prompt.")] = "",
    temperature: Annotated[
        float | None, typer.Option(min=0, help="The endpoint's, if not given.")
    ] = None,
    top_p: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Sent along; grows with samples.")] = None,
    schema: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON schema that answers follow.")
    ] = None,
    completions: Annotated[
        bool, typer.Option("--completions", help="A base model, which goes on from a text.")
    ] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 32,
    rpm: Annotated[float, typer.Option(min=0, help="Requests a minute.")] = 0,
    tpm: Annotated[float, typer.Option(min=0, help="Tokens a minute.")] = 0,
    price: Annotated[
        str, typer.Option(metavar="IN,OUT", help="Dollars for a million tokens.")
    ] = "",
    budget: Annotated[str, typer.Option(metavar="USD", help="Never spend more.")] = "",
    key_env: Annotated[str, typer.Option(help="The variable with the key.")] = "EPIGONE_API_KEY",
    terms: Annotated[str, typer.Option(help="The teacher's terms of use, as openai.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the answers.")] = "",
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Ask for answers to prompts; what was ever answered is not asked, or paid for, again.

    Example: epigone teacher ask prompts.txt --endpoint https://host/v1#model -o answers --budget 5
    """
    # The parser of the command line needs neither HTTP nor what reads prompts.
    from epigone.teachers.answers import Settings
    from epigone.teachers.collect import Means, ask_teacher
    from epigone.teachers.money import parse_price

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
            means=Means(
                concurrency, rpm, tpm, parse_price(price) if price else None, _dollars(budget)
            ),
            system=system,
            n=n,
            about={"licence": licence, "terms": terms},
            key_env=key_env,
            ledgers=runs / "ledger",
            progress=teller,
        )  # fmt: skip
    if json:
        say_json(facts)
        return
    rows = [
        ["answers", f"{facts['written']:,} of {facts['asked']:,}"],
        *([f"rejected: {reason}", f"{n:,}"] for reason, n in facts["rejected"].items()),
        *([f"skipped: {reason}", f"{n:,}"] for reason, n in facts["skipped"].items()),
        ["known already", f"{facts['known']:,}"],
        ["tokens in, out", f"{facts['prompt_tokens']:,}, {facts['tokens']:,}"],
        ["cost", f"${Decimal(facts['cost']):.4f} (price {facts['price']})"],
    ]
    if Decimal(facts["may_cost_more"]):
        rows.append(["may have cost more", f"${Decimal(facts['may_cost_more']):.4f}"])
    table("", ("what", "value"), rows)


def _dollars(text: str) -> Decimal | None:
    if not text:
        return None
    try:
        found = Decimal(text.removeprefix("$"))
        if not found.is_finite() or found < 0:
            raise ValueError(text)
    except (ValueError, InvalidOperation):
        raise UserError("not a budget", value=text, fix="dollars, as 5 or 0.50") from None
    return found


def _schema(path: Path) -> dict[str, object]:
    try:
        found = json_.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError("the schema cannot be read", value=str(path), fix=str(error)) from None
    if not isinstance(found, dict):
        raise UserError("a JSON schema is an object", value=str(path))
    return found
