"""From a file of prompts to a folder of answers, through the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from epigone.errors import UserError
from epigone.files import write_json
from epigone.models.endpoint import KEY, Endpoint
from epigone.models.references import parse as resolve
from epigone.schema import Progress, silent
from epigone.teachers.answers import Dialogue, Settings, answer_all, write_answers
from epigone.teachers.ask import Tally, asking
from epigone.teachers.ledger import Ledger, ledger_file
from epigone.teachers.money import FREE, Price, known_price
from epigone.teachers.prompts import read_prompts


@dataclass(frozen=True, slots=True)
class Means:
    """How fast and for how much an endpoint may be asked; none of it changes an answer.

    `price` is the endpoint's; without one, a known model's is taken. Limits are a minute's, 0 for
    those that the endpoint tells of itself, if any.
    """

    concurrency: int = 32
    requests_per_minute: float = 0
    tokens_per_minute: float = 0
    price: Price | None = None
    budget: Decimal | None = None


def price_of(endpoint: Endpoint, means: Means) -> tuple[Price, str]:
    """What the endpoint's answers cost, and where that is known from.

    Raises UserError for a budget without a price.
    """
    if means.price is not None:
        return means.price, "as given"
    if known := known_price(endpoint.model):
        return known[0], f"looked up in {known[1]}"
    if means.budget is not None:
        raise UserError(
            "a budget needs the price of the model", value=endpoint.model,
            fix="--price IN,OUT, in dollars for a million tokens; 0,0 for a free one",
        )  # fmt: skip
    return FREE, "not known"


def endpoint_of(ref: str, key_env: str = KEY) -> Endpoint:
    """The endpoint that a text such as "https://host/v1#model" names. Raises UserError."""
    named = resolve(f"endpoint:{ref.removeprefix('endpoint:')}")
    url, _, model = named.value.partition("#")
    return Endpoint(url, model, key_env)


def ask_teacher(
    prompts: str | Path,
    out: str | Path,
    endpoint: str,
    settings: Settings | None = None,
    *,
    means: Means | None = None,
    system: str = "",
    n: int | None = None,
    about: Mapping[str, str] | None = None,
    key_env: str = KEY,
    ledgers: str | Path = "runs/ledger",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Ask for answers to a file's prompts; what the ledger holds already is not asked again.

    Writes answers.jsonl, rejected.jsonl and asked.json into `out` once all are answered. `about` is
    what each row says of its teacher (teacher, licence, terms); the key is in the variable
    `key_env`. Raises UserError, among them EndpointError where the endpoint is down or refuses
    everything, and BudgetReached.
    """
    asks, means = endpoint_of(endpoint, key_env), means or Means()
    read, settings = read_prompts(Path(prompts), system), settings or Settings()
    asked, out = read.prompts[:n], Path(out)
    price, known = price_of(asks, means)
    ledger = Ledger(ledger_file(Path(ledgers), asks))
    spent = ledger.spent
    try:
        dialogues, tally = asyncio.run(
            _answered(asks, ledger, price, means, (asked, settings, progress))
        )
    finally:
        ledger.close()
    facts = {
        "endpoint": asks.url,
        "model": asks.model,
        "prompts": len(asked),
        "skipped": dict(sorted(read.skipped.items())),
        **write_answers(out, dialogues, settings, {"teacher": asks.model, **(about or {})}),
        "known": tally.known,
        "retries": tally.retries,
        "prompt_tokens": tally.prompt_tokens,
        "tokens": tally.tokens,
        "price": known,
        "cost": str(ledger.spent - spent),
        # Requests whose answers never came, in all runs: no one knows whether they were billed.
        "may_cost_more": str(ledger.open),
        "damaged_lines": ledger.damaged,
        "ledger": str(ledger.path),
    }
    write_json(out / "asked.json", {"settings": asdict(settings), "system": system, **facts})
    return facts


async def _answered(
    endpoint: Endpoint,
    ledger: Ledger,
    price: Price,
    means: Means,
    asked: tuple[Any, Settings, Progress],
) -> tuple[list[Dialogue], Tally]:
    prompts, settings, progress = asked
    async with asking(
        endpoint,
        ledger,
        price=price,
        budget=means.budget,
        requests_per_minute=means.requests_per_minute,
        tokens_per_minute=means.tokens_per_minute,
        concurrency=means.concurrency,
    ) as asker:
        dialogues = await answer_all(asker, prompts, settings, means.concurrency, progress)
    return dialogues, asker.tally
