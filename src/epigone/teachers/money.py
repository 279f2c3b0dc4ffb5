"""What answers cost: prices by model, and a budget that nothing passes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from epigone.errors import EndpointError, UserError
from epigone.models.received import Answer

# How a run tells its steps' processes where the ledgers are, whose money is spent, and how much.
LEDGERS, PURPOSE, BUDGET = "EPIGONE_LEDGERS", "EPIGONE_PURPOSE", "EPIGONE_BUDGET"
_MILLION = Decimal(1_000_000)
# What a chat template adds to a request and to each of its messages, in tokens: some put a system
# text of their own before it.
_AROUND, _EACH = 256, 16
# Of any language, a token holds about so many bytes or more.
_LIKELY = 3


class BudgetReached(EndpointError):
    """The next request could cost more than is left."""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens of prompts and of answers."""

    prompt: Decimal
    answer: Decimal

    def cost(self, prompt_tokens: int, tokens: int) -> Decimal:
        """US dollars for tokens that an endpoint counted."""
        return (self.prompt * prompt_tokens + self.answer * tokens) / _MILLION

    def most(self, body: Mapping[str, Any]) -> Decimal:
        """The most that a request can cost; it has a `max_tokens`.

        A token holds a byte at least, so there are at most as many as bytes.
        """
        return self.cost(most_tokens(body) - answer_tokens(body), answer_tokens(body))

    def of(self, answer: Answer, most: Decimal) -> Decimal:
        """What an answer costs; who does not count is believed to charge the most."""
        counted = answer.prompt_tokens > 0 and (answer.tokens > 0 or not answer.text)
        return self.cost(answer.prompt_tokens, answer.tokens) if counted else most

    @property
    def in_batches(self) -> Price:
        """What the same tokens cost in batches."""
        share = Decimal(str(_known()["batch"]))
        return Price(self.prompt * share, self.answer * share)


FREE = Price(Decimal(0), Decimal(0))


def answer_tokens(body: Mapping[str, Any]) -> int:
    """The longest answer that a request allows."""
    return int(body.get("max_completion_tokens", body.get("max_tokens", 0)))


def most_tokens(body: Mapping[str, Any]) -> int:
    """The most tokens that a request can take, its answer included."""
    if "messages" in body:
        texts = [message["content"] for message in body["messages"]]
    else:
        texts = [body["prompt"]]
    form = json.dumps(body["response_format"]) if "response_format" in body else ""
    around = _AROUND + _EACH * len(texts) + len(form)
    return around + sum(len(text.encode()) for text in texts) + answer_tokens(body)


def likely_tokens(body: Mapping[str, Any]) -> int:
    """The tokens that a request takes with the longest answer, by what tokens hold at least."""
    longest = answer_tokens(body)
    return longest + (most_tokens(body) - longest) // _LIKELY


def parse_price(text: str) -> Price:
    """A price such as "0.15,0.60": US dollars for a million tokens of prompts and of answers.

    Raises UserError for anything else.
    """
    try:
        prompt, answer = (Decimal(part.strip().removeprefix("$")) for part in text.split(","))
        if not (prompt.is_finite() and answer.is_finite() and prompt >= 0 and answer >= 0):
            raise ValueError(text)
    except (ValueError, InvalidOperation):
        raise UserError(
            "not a price", value=text, fix="dollars for a million tokens in and out, as 0.15,0.60"
        ) from None
    return Price(prompt, answer)


@cache
def _known() -> dict[str, Any]:
    text = (files("epigone.teachers") / "prices.yaml").read_text(encoding="utf-8")
    table: dict[str, Any] = yaml.safe_load(text)
    return table


def single_price(model: str, given: Price | None) -> tuple[Price, str] | None:
    """What a model's answers cost, asked one by one, and where that is known from."""
    if given is not None:
        return given, "as given"
    known = known_price(model)
    return None if known is None else (known[0], f"looked up in {known[1]}")


def known_price(model: str) -> tuple[Price, str] | None:
    """A model's price from the table that comes with Epigone, and the day it was looked up."""
    table = _known()
    # A snapshot costs what its model does: gpt-4o-2024-08-06.
    for name in sorted(table["models"], key=len, reverse=True):
        if model == name or model.startswith(f"{name}-20"):
            prompt, answer = table["models"][name]
            return Price(Decimal(str(prompt)), Decimal(str(answer))), str(table["looked_up"])
    return None


class Budget:
    """US dollars that answers may cost, with what is in flight counted at its worst."""

    def __init__(self, limit: Decimal | None, spent: Decimal) -> None:
        """`spent` is what counts against it already; without a limit nothing is refused."""
        self.limit = limit
        self.spent = spent
        self.in_flight = Decimal(0)

    def fits(self, most: Decimal) -> bool:
        """Whether a request that costs so much at the most may go."""
        return self.limit is None or self.spent + self.in_flight + most <= self.limit

    def reached(self, most: Decimal, spent: Decimal, doubtful: Decimal) -> BudgetReached:
        """Why a request may not go: what answers cost, and requests without one may have."""
        return BudgetReached(
            f"of the budget of ${self.limit}, answers cost ${spent} and requests without one up to "
            f"${doubtful}; the next one may cost ${most}",
            fix="all that came is kept; go on with a larger --budget",
        )

    def take(self, most: Decimal) -> None:
        """A request goes."""
        self.in_flight += most

    def settle(self, most: Decimal, cost: Decimal) -> None:
        """It ended, and cost so much."""
        self.in_flight -= most
        self.spent += cost
