"""Files of ratings: one schema for every workforce, as JSON lines or CSV, written and read back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from epigone.errors import UnknownName, UserError
from epigone.files import write_aside
from epigone.schema import Purpose, Rating, Workforce
from epigone.study.values import told

VERSION = 1
# Columns of one's own, which are not read.
OWN = "x_"
# What makes a spreadsheet take a cell's text for a formula, in full width too; an apostrophe in
# front makes it text again, and so is itself written twice.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_QUOTE = "'"

Text = Annotated[str, Field(min_length=1)]


def _whole(value: object) -> object:
    # A column with gaps is one of floats in many a program.
    return int(value) if isinstance(value, float) and value.is_integer() else value


Level = Annotated[int, Field(ge=-2, le=2), BeforeValidator(_whole)]


class Row(BaseModel):
    """One rating in a file: which of two models' outputs for one item a rater prefers."""

    model_config = ConfigDict(extra="forbid", strict=True, title="Rating")

    version: Annotated[Literal[1], BeforeValidator(_whole)] = Field(
        default=1, description="of this schema"
    )
    item: Text = Field(description="the prompt that both models answered")
    rater: Text = Field(description="an opaque name of who rated: never a provider's worker id")
    a: Text = Field(description="a model; written with a before b in the order of their names")
    b: Text = Field(description="the other model")
    preference: Level | None = Field(
        description="2: a is better, 1: slightly better, 0: equal, -1: b is slightly better, "
        "-2: better; null: a judge whose verdict could not be read"
    )
    left: Literal["a", "b"] = Field(description="which was shown on the left, or first")
    workforce: Workforce = Field(default="private", description="where the rater comes from")
    purpose: Purpose = Field(default="item", description="only an item is an answer")
    expected: Level | None = Field(default=None, description="right preference, where it is known")
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=False)] | None = Field(
        default=None,
        description="in which both outputs were visible, or since they were handed out",
    )
    reasons: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="what the rater ticked: correct, complete, clear, style, safe; "
        "of a judge, same text where nobody was asked",
    )
    comment: str = Field(default="", description="what the rater wrote")
    excluded: str = Field(default="", description="why it does not count; empty where it does")
    at: str = Field(default="", description="when it was given: ISO 8601 in UTC, or empty")

    @field_validator("at")
    @classmethod
    def _utc(cls, at: str) -> str:
        if at:
            try:
                offset = datetime.fromisoformat(at).utcoffset()
            except ValueError:
                offset = None
            if offset != timedelta(0):
                raise ValueError("a time in UTC is needed, as 2026-01-31T12:00:00Z")
        return at

    @model_validator(mode="after")
    def _possible(self) -> Row:
        if self.a == self.b:
            raise ValueError("a and b must be two models")
        if self.preference is None and self.workforce != "judge":
            raise ValueError("only a judge's preference may be missing")
        if self.purpose in ("gold", "attention") and self.expected is None:
            raise ValueError(f"expected is needed where the purpose is {self.purpose}")
        return self

    def rating(self) -> Rating:
        """The rating, with its models in the order of their names."""
        fields = self.model_dump(exclude={"version"})
        if self.a > self.b:
            fields |= {"a": self.b, "b": self.a, "left": "b" if self.left == "a" else "a"}
            for name in ("preference", "expected"):
                fields[name] = None if fields[name] is None else -fields[name]
        return Rating(**fields)


COLUMNS = tuple(Row.model_fields)
_REQUIRED = tuple(name for name, field in Row.model_fields.items() if field.is_required())
# Cells that hold a program's word or a number, and not somebody's text.
_NUMBERS = ("version", "preference", "expected", "seconds")


@dataclass(frozen=True, slots=True)
class Read:
    """Ratings of some files; `repeated` rows stood in them more than once and count once."""

    ratings: tuple[Rating, ...]
    repeated: int


def json_schema() -> dict[str, Any]:
    """The JSON Schema of one line of a JSONL file of ratings."""
    schema = Row.model_json_schema()
    schema["patternProperties"] = {f"^{OWN}": {}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def write_ratings(path: Path, ratings: Iterable[Rating]) -> int:
    """Write ratings as the file's ending says, .jsonl or .csv; how many is returned."""
    line, head = _FORMATS[_ending(path)]
    n = 0
    with write_aside(path) as f:
        f.write(head())
        for rating in ratings:
            f.write(line({"version": VERSION, **rating.to_json()}))
            n += 1
    return n


def read_ratings(paths: Sequence[Path]) -> Read:
    """Ratings of anyone's files in the schema.

    Raises UserError for the first row that is none, with its line; and for two rows that say
    different things of what one rater chose at one showing.
    """
    found: dict[tuple[str, ...], tuple[Rating, str]] = {}
    repeated = 0
    for path in paths:
        for line, row in _READERS[_ending(path)](path):
            where = f"{path.name}, line {line}"
            rating = _rating(row, where)
            key = (rating.item, rating.rater, rating.a, rating.b, rating.left, rating.purpose)
            if key not in found:
                found[key] = rating, where
                continue
            before, place = found[key]
            if before != rating:
                raise UserError(
                    f"{where}: another rating of the same by the same rater than in {place}",
                    value=rating.rater, fix="give only the newest export",
                )  # fmt: skip
            repeated += 1
    return Read(tuple(rating for rating, _ in found.values()), repeated)


def _rating(row: dict[str, Any], where: str) -> Rating:
    version = row.get("version", VERSION)
    if isinstance(version, int | float) and version > VERSION:
        raise UserError(f"{where}: written by a newer Epigone, version", value=version,
                        fix="pip install --upgrade epigone")  # fmt: skip
    row = {k: v for k, v in row.items() if not k.startswith(OWN)}
    _known(row, where)
    try:
        return Row.model_validate(row).rating()
    except ValidationError as error:
        raise _at(where, told(error)) from None


def _known(names: Iterable[str], where: str) -> None:
    names = list(names)
    for name in names:
        if name not in COLUMNS:
            wrong = UnknownName("column", name, COLUMNS)
            fix = f"{wrong.fix} a column of your own begins with {OWN}"
            raise _at(where, UserError(wrong.what, value=name, fix=fix))
    for name in _REQUIRED:
        if name not in names:
            raise UserError(f"{where}: a column is missing", value=name,
                            fix=f"needed: {', '.join(_REQUIRED)}")  # fmt: skip


def _at(where: str, error: UserError) -> UserError:
    return UserError(f"{where}: {error.what}", value=error.value, fix=error.fix)


def _ending(path: Path) -> str:
    ending = path.suffix.lower()
    if ending not in _FORMATS:
        raise UserError("ratings are kept as .jsonl or .csv", value=str(path),
                        fix="epigone rate export makes one of a database")  # fmt: skip
    return ending


def _json_line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UserError(f"{path.name}, line {number}: no JSON object", value=line.strip())
        yield number, row


def _lines(path: Path) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as f:
            yield from f
    except UnicodeDecodeError:
        raise UserError("not a text in UTF-8", value=str(path),
                        fix="save it again as UTF-8") from None  # fmt: skip


def _csv_line(row: dict[str, Any]) -> bytes:
    return _csv([_cell(name, row[name]) for name in COLUMNS])


def _csv_head() -> bytes:
    return _csv(COLUMNS)


def _csv(cells: Iterable[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return out.getvalue().encode()


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name in _NUMBERS:
        return str(value)
    if name == "reasons":
        return json.dumps(value, ensure_ascii=False) if value else ""
    text = str(value)
    return _QUOTE + text if text.startswith((*_FORMULA, _QUOTE)) else text


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(_lines(path), strict=True)
    try:
        head = next(reader, None)
        if head is None:
            raise UserError("a file without a line of column names", value=str(path))
        if len(set(head)) < len(head):
            double = next(name for name in head if head.count(name) > 1)
            raise UserError(f"{path.name}, line 1: a column stands twice", value=double)
        _known([name for name in head if not name.startswith(OWN)], f"{path.name}, line 1")
        for cells in reader:
            where = f"{path.name}, line {reader.line_num}"
            if not cells:
                continue
            if len(cells) != len(head):
                raise UserError(f"{where}: {len(head)} cells are needed", value=len(cells),
                                fix="quote cells that hold commas or line ends")  # fmt: skip
            named = zip(head, cells, strict=True)
            yield reader.line_num, {n: _value(n, c, where) for n, c in named if c or n not in _BARE}
    except csv.Error as error:
        raise UserError(f"{path.name}, line {reader.line_num}: no CSV: {error}") from None


# An empty cell of these says nothing.
_BARE = ("version", "workforce", "purpose", "expected", "seconds", "reasons")


def _value(name: str, cell: str, where: str) -> Any:
    if name in _NUMBERS:
        try:
            return float(cell) if cell else None
        except ValueError:
            raise UserError(f"{where}: {name} is a number", value=cell) from None
    if name == "reasons":
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            raise UserError(f"{where}: reasons are a JSON list of texts", value=cell,
                            fix='as ["clear", "safe"]') from None  # fmt: skip
    escaped = cell[:1] == _QUOTE and cell[1:].startswith((*_FORMULA, _QUOTE))
    return cell[1:] if escaped else cell


_FORMATS = {".jsonl": (_json_line, bytes), ".csv": (_csv_line, _csv_head)}
_READERS = {".jsonl": _json_rows, ".csv": _csv_rows}
