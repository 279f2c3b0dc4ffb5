"""Files of teacher text to conversations, whatever their format."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from epigone.corpus import formats
from epigone.corpus.compressed import SUFFIXES
from epigone.corpus.discord import discord, is_discord
from epigone.corpus.rows import Invalid, Row, invalid
from epigone.corpus.tables import BAD, Delimited, arrow, parquet
from epigone.corpus.values import Lost, Values, Whole
from epigone.errors import CorpusError, UnknownName

# How many values may come before the first conversation until the format counts as unknown.
_PATIENCE = 100
_COLUMNS = frozenset((*formats.LISTS, *formats.PROMPTS, *formats.REPLIES, *formats.OTHER_COLUMNS))
_SPLIT = re.compile(r"(train|test|validation|valid|val|dev|eval)(?=[-_.])", re.IGNORECASE)
_FILES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow")
Items = Iterator[Whole | Lost]


@dataclass(frozen=True, slots=True)
class Format:
    """A format: what it is called, whether a value is in it, and how its values are read."""

    name: str
    title: str
    known: Callable[[Any], bool]
    rows: Callable[[Iterable[Whole | Lost]], Iterator[Row | Invalid | Lost]]


def _each(
    one: Callable[[Any, int], Iterator[Row | Invalid]],
) -> Callable[[Iterable[Whole | Lost]], Iterator[Row | Invalid | Lost]]:
    def rows(items: Iterable[Whole | Lost]) -> Iterator[Row | Invalid | Lost]:
        for item in items:
            if isinstance(item, Lost):
                yield item
            elif item.fault:
                yield invalid(item.fault, item.value, item.end)
            else:
                yield from one(item.value, item.end)

    return rows


# In the order in which they are tried.
FORMATS = (
    Format("discord", "DiscordChatExporter", is_discord, discord),
    Format("sharegpt", "ShareGPT", formats.is_sharegpt, _each(formats.dialogue)),
    Format("openai", "OpenAI chat", formats.is_openai, _each(formats.dialogue)),
    Format("hc3", "HC3", formats.is_hc3, _each(formats.hc3)),
    Format("alpaca", "Alpaca", formats.is_alpaca, _each(formats.alpaca)),
    Format("pairs", "prompts and replies", formats.is_pair, _each(formats.pair)),
)


class File:
    """The conversations of a file, in its order, with everything that is none.

    `format` and `container` say what the content was found to be. Raises CorpusError for a file
    that is of no known format, and UnknownName for the name of one that there is not.
    """

    def __init__(self, path: Path, format: str = "") -> None:
        """Open the file and find out its format, unless `format` names it."""
        self._path = path
        self._stack = ExitStack()
        self._head = ""
        self._fault = ""
        self.container, items = self._open()
        seen: list[Whole | Lost] = []
        self.format = _named(format) if format else self._detect(items, seen)
        self._items = chain(seen, items)

    def __enter__(self) -> File:
        """The file; it is closed at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._stack.close()

    def __iter__(self) -> Iterator[Row | Invalid | Lost]:
        """Conversations, values that are none, and lost stretches; once."""
        return self.format.rows(self._items)

    def _detect(self, items: Items, seen: list[Whole | Lost]) -> Format:
        for item in items:
            seen.append(item)
            if isinstance(item, Whole):
                for known in FORMATS:
                    if known.known(item.value):
                        return known
            if len(seen) > _PATIENCE:
                break
        self._stack.close()
        raise CorpusError(
            f"{self._path.name} is of no known format, it begins with",
            value=self._head or _shown(seen),
            fix=self._fault or f"known: {', '.join(f.title for f in FORMATS)}; see --format",
        )

    def _open(self) -> tuple[str, Items]:
        with open(self._path, "rb") as file:
            magic = file.read(6)
        if magic[:4] == b"PAR1":
            return "Parquet", self._binary(parquet)
        if magic in (b"ARROW1", b"\xff\xff\xff\xff" + magic[4:]) and len(magic) == 6:
            return "Arrow", self._binary(arrow)
        values = self._stack.enter_context(Values(self._path, _has_conversation))
        self._head = values.head
        if values.shape:
            container = "JSON array" if values.shape == "array" else "JSON lines"
            return container, _to_fault(values)
        table = self._stack.enter_context(Delimited(self._path))
        self._fault = table.fault
        return ("TSV" if table.delimiter == "\t" else "CSV"), _to_fault(table)

    def _binary(self, rows: Callable[[Path, frozenset[str]], Items]) -> Items:
        import pyarrow as pa

        items = rows(self._path, _COLUMNS)
        try:
            first = next(items, None)
        except (*BAD, pa.ArrowException) as error:
            raise CorpusError(
                "cannot be read as a table; a Parquet file that is cut off has lost its index",
                value=self._path.name,
                fix=f"download it again ({' '.join(str(error).split())[:100]})",
            ) from None
        return items if first is None else chain([first], items)


def _to_fault(items: Values | Delimited) -> Items:
    """The items and, where a packed file could be unpacked only so far, why."""
    yield from items
    if items.fault:
        yield Lost(items.at, 0, items.fault, "")


def _named(name: str) -> Format:
    found = next((f for f in FORMATS if f.name == name), None)
    if found is None:
        raise UnknownName("format", name, [f.name for f in FORMATS])
    return found


def _has_conversation(value: Any) -> bool:
    return any(known.known(value) for known in FORMATS)


def _shown(seen: list[Whole | Lost]) -> str:
    first = next((item.value for item in seen if isinstance(item, Whole)), "")
    return repr(first)[:200]


def files_in(path: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """The data files of a folder in the order of their names, or the file itself.

    With them come the files that are left out, and why. A folder that `Dataset.save_to_disk`
    wrote gives its Arrow files, of several splits `train`. Raises CorpusError for a folder without
    data files.
    """
    if not path.is_dir():
        return [path], []
    if (path / "dataset_dict.json").is_file():
        if not (path / "train").is_dir():
            splits = ", ".join(sorted(p.name for p in path.iterdir() if p.is_dir()))
            raise CorpusError(
                "a dataset without a split 'train'", value=path.name, fix=f"name one of: {splits}"
            )
        path = path / "train"
    saved = (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
    seen = [file for file in sorted(path.rglob("*")) if file.is_file() and not _hidden(file, path)]
    endings = (".arrow",) if saved else _FILES
    found = [file for file in seen if _ending(file) in endings]
    out = [(file, f"not one of {', '.join(endings)}") for file in seen if file not in set(found)]
    if any(_split(file) == "train" for file in found):
        # As data sets lie on the hub; what they test with is not to be trained on.
        out += [(file, "another split than train") for file in found if _split(file) == "other"]
        found = [file for file in found if _split(file) != "other"]
    if not found:
        raise CorpusError(
            "no data files in this folder", value=str(path), fix=f"known: {', '.join(_FILES)}"
        )
    return found, out


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _split(file: Path) -> str:
    named = _SPLIT.match(file.name)
    return "" if named is None else "train" if named[1].lower() == "train" else "other"


def _ending(file: Path) -> str:
    inner = file.with_suffix("") if file.suffix.lower() in SUFFIXES else file
    return inner.suffix.lower()
