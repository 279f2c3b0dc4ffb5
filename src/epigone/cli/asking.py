"""Options of the verbs that ask an endpoint."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epigone.cli.common import table
from epigone.errors import UserError

if TYPE_CHECKING:
    from epigone.teachers.means import Means

EndpointOption = Annotated[
    str, typer.Option("--endpoint", metavar="URL#MODEL", help="As http://127.0.0.1:8000/v1#m.")
]
Temperature = Annotated[float | None, typer.Option(min=0, help="The endpoint's, if not given.")]
TopP = Annotated[float | None, typer.Option(min=0, max=1)]
Concurrency = Annotated[int, typer.Option(min=1, help="Requests at once.")]
Rpm = Annotated[float, typer.Option(min=0, help="Requests a minute.")]
Tpm = Annotated[float, typer.Option(min=0, help="Tokens a minute.")]
PriceOption = Annotated[str, typer.Option(metavar="IN,OUT", help="Dollars for a million tokens.")]
Budget = Annotated[str, typer.Option(metavar="USD", help="Never spend more.")]
Batch = Annotated[
    bool,
    typer.Option("--batch", help="In batches: half the price, within a day. ^C leaves them open."),
]
KeyEnv = Annotated[str, typer.Option(help="The variable with the key.")]
Terms = Annotated[str, typer.Option(help="The teacher's terms of use, as openai.")]
Licence = Annotated[str, typer.Option(help="Licence of the answers.")]


def means_of(
    concurrency: int,
    rpm: float,
    tpm: float,
    price: str,
    budget: str,
    runs: Path,
    *,
    batch: bool = False,
) -> Means:
    """The options as they are asked with."""
    from epigone.teachers.means import Means
    from epigone.teachers.money import parse_price

    return Means(
        concurrency,
        rpm,
        tpm,
        parse_price(price) if price else None,
        dollars(budget),
        runs / "ledger",
        batch=batch,
    )


def dollars(text: str) -> Decimal | None:
    """A budget, None without one. Raises UserError for what is none."""
    if not text:
        return None
    try:
        found = Decimal(text.removeprefix("$"))
        if not found.is_finite() or found < 0:
            raise ValueError(text)
    except (ValueError, InvalidOperation):
        raise UserError("not a budget", value=text, fix="dollars, as 5 or 0.50") from None
    return found


def tell(facts: dict[str, Any], first: list[list[str]]) -> None:
    """A table of what was asked, `first` before what it cost."""
    rows = [
        *first,
        *([f"rejected: {reason}", f"{n:,}"] for reason, n in facts["rejected"].items()),
        *([f"skipped: {reason}", f"{n:,}"] for reason, n in facts.get("skipped", {}).items()),
        ["known already", f"{facts['known']:,}"],
        *([["odd rows of batches", f"{facts['odd_rows']:,}"]] if facts.get("odd_rows") else []),
        ["tokens in, out", f"{facts['prompt_tokens']:,}, {facts['tokens']:,}"],
        ["cost", f"${Decimal(facts['cost']):.4f} (price {facts['price']})"],
    ]
    if Decimal(facts["may_cost_more"]):
        rows.append(["may have cost more", f"${Decimal(facts['may_cost_more']):.4f}"])
    table("", ("what", "value"), rows)
