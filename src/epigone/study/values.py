"""What the parts of a study file share: strict models, amounts, names, and placed mistakes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from epigone.errors import UserError

_SUFFIX = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}


class Mistake(ValueError):
    """A mistake at a known place of the study file."""

    def __init__(
        self, where: tuple[str | int, ...], error: UserError, *, at_key: bool = False
    ) -> None:
        super().__init__(str(error))
        self.where = where
        self.error = error
        self.at_key = at_key


class Declared(BaseModel):
    """Base of everything in a study file: frozen, and unknown keys are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, populate_by_name=True, allow_inf_nan=False
    )


def parse_amount(value: object) -> int:
    """Tokens of teacher output: 8000, "8k", "1.5m".

    Raises ValueError for anything else, and for less than one token.
    """
    text = str(value).strip().lower()
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmb]?)", text)
    # Decimal is exact up to the 28 digits of its context.
    if match is None or isinstance(value, bool) or len(text) > 28:
        raise ValueError("an amount is a number of tokens such as 8000, 8k or 1.5m")
    tokens = Decimal(match[1]) * _SUFFIX[match[2]]
    if tokens < 1 or tokens != int(tokens):
        raise ValueError("an amount is a whole number of tokens, at least 1")
    return int(tokens)


def parse_share(value: object) -> object:
    """A share as a number: "10%" is 0.1; what has no % is left to its field.

    Raises ValueError for a text that is no percentage.
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d{1,3}(?:\.\d{1,20})?)\s*%", value.strip())
    if match is None:
        raise ValueError("a share is a number or a percentage, as 0.1 or 10%")
    return float(Decimal(match[1]) / 100)


def amount_label(tokens: int) -> str:
    """The shortest way to write an amount exactly: 8000 is 8k."""
    for suffix in ("b", "m", "k"):
        if tokens >= _SUFFIX[suffix] and tokens % _SUFFIX[suffix] == 0:
            return f"{tokens // _SUFFIX[suffix]}{suffix}"
    return str(tokens)


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
        raise ValueError("a name has 1 to 64 letters, digits, '.', '_' and '-'")
    return value


def _reference(value: str) -> str:
    if not value.strip() or any(not c.isprintable() for c in value):
        raise ValueError("a reference is a printable, non-empty text")
    return value


def by_reference(value: object) -> object:
    """A source of which only the reference is said."""
    return {"ref": value} if isinstance(value, str) else value


Amount = Annotated[int, BeforeValidator(parse_amount, json_schema_input_type=int | str)]
Share = Annotated[float, BeforeValidator(parse_share, json_schema_input_type=float | str)]
Name = Annotated[str, AfterValidator(_name)]
Reference = Annotated[str, AfterValidator(_reference)]


class Source(Declared):
    """Data by reference, where more is to be said than that."""

    ref: Reference = Field(description="catalogue name, file, folder, or hf:org/dataset@revision")
    licence: str = Field(default="", description="licence of the data")
    terms: str = Field(default="", description="what the data may be used for")


def told(error: ValidationError) -> UserError:
    """The first mistake of a validation in one line: where, what is wrong, the value."""
    first = first_error(error)
    cause = (first.get("ctx") or {}).get("error")
    if isinstance(cause, Mistake):
        return cause.error
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    where = dotted(first["loc"])
    return UserError(f"{where}: {message}" if where else message, value=first["input"])


def first_error(error: ValidationError) -> Any:
    """The mistake to tell of a validation: a misspelt key goes first."""
    # A misspelt key also leaves its right spelling missing: the typo is the mistake to tell.
    found = error.errors(include_url=False)
    return min(found, key=lambda e: e["type"] != "extra_forbidden")


def dotted(where: Sequence[str | int]) -> str:
    """A place as one printable text."""
    # Keys are the file's: they may hold line ends, escapes, or a book.
    text = ".".join(str(p) for p in where if p != "[key]")
    return "".join(c if c.isprintable() else "?" for c in text[:200])
