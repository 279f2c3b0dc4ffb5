"""From a file of prompts to a folder of answers, through the ledger."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import threading
from collections.abc import Coroutine, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from epigone.errors import EndpointError, UserError
from epigone.files import write_json
from epigone.models.endpoint import KEY, Endpoint
from epigone.models.references import parse as resolve
from epigone.schema import Progress, silent
from epigone.teachers.answers import (
    Dialogue,
    Settings,
    answer_all,
    schema_check,
    write_answers,
)
from epigone.teachers.ask import Tally, asking
from epigone.teachers.ledger import Ledger, ledger_file
from epigone.teachers.money import FREE, Price, known_price
from epigone.teachers.prompts import read_prompts

Result = TypeVar("Result")


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


def endpoint_of(ref: str, key_env: str = KEY, seconds: float = 600.0) -> Endpoint:
    """The endpoint that a text such as "https://host/v1#model" names. Raises UserError.

    `seconds` is how long an answer may take; an endpoint that has more requests at once than it can
    answer lets the others wait.
    """
    named = resolve(f"endpoint:{ref.removeprefix('endpoint:')}")
    url, _, model = named.value.partition("#")
    return Endpoint(url, model, key_env, seconds)


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
    if settings.schema is not None:
        schema_check(settings.schema)
    purpose = hashlib.sha256(os.fsencode(out.absolute())).hexdigest()[:12]
    ledger = Ledger(ledger_file(Path(ledgers), asks), purpose)
    spent = ledger.spent
    try:
        dialogues, tally = _until_done(
            _answered(asks, ledger, price, means, (asked, settings, progress))
        )
    finally:
        ledger.close()
    if not any(d.messages[-1:] and d.messages[-1].role == "assistant" for d in dialogues):
        raise EndpointError(
            f"none of {len(dialogues):,} answers is of use", value=dialogues[0].rejected
        )
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


def _until_done(work: Coroutine[Any, Any, Result]) -> Result:
    """Run it; SIGTERM ends it as ^C does: what is in flight is waited for and kept."""
    if threading.current_thread() is not threading.main_thread():
        return asyncio.run(work)
    before = signal.getsignal(signal.SIGTERM)
    ended = False

    async def watched() -> Result:
        nonlocal ended
        loop, own = asyncio.get_running_loop(), asyncio.ensure_future(work)

        def end() -> None:
            nonlocal ended
            ended = True
            own.cancel()

        loop.add_signal_handler(signal.SIGTERM, end)
        return await own

    try:
        return asyncio.run(watched())
    except asyncio.CancelledError:
        if not ended:
            raise
    finally:
        signal.signal(signal.SIGTERM, before)
    signal.raise_signal(signal.SIGTERM)
    raise KeyboardInterrupt


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
