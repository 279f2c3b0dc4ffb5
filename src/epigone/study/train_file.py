"""The file of a corpus's train conversations: Parquet that `datasets` and TRL read as it is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from epigone.schema import Conversation, Message, Provenance

NAME = "train.parquet"
_ROWS = 500
_PROVENANCE = ("source", "teacher", "date", "licence", "terms")


def write(path: Path, rows: Iterable[tuple[Conversation, Sequence[int], str]]) -> None:
    """Write conversations with the tokens of each assistant turn and the language, whole or not.

    The columns are id, messages (role and content), the provenance's five, language, tokens and
    turn_tokens.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("messages", pa.list_(message)),
            *((name, pa.string()) for name in _PROVENANCE),
            ("language", pa.string()),
            ("tokens", pa.int64()),
            ("turn_tokens", pa.list_(pa.int32())),
        ]
    )
    aside = path.with_name(path.name + ".tmp")
    left = iter(rows)
    with pq.ParquetWriter(aside, schema, compression="zstd") as file:
        while batch := list(islice(left, _ROWS)):
            file.write_table(pa.table(_columns(batch, message), schema))
    with open(aside, "rb") as written:
        os.fsync(written.fileno())
    aside.replace(path)


def read(path: Path) -> Iterator[tuple[Conversation, list[int]]]:
    """The conversations of a train file in their order, with the tokens of each assistant turn."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS):
            for row in batch.to_pylist():
                yield _conversation(row), row["turn_tokens"]


def _columns(
    batch: Sequence[tuple[Conversation, Sequence[int], str]], message: Any
) -> dict[str, Any]:
    import pyarrow as pa

    turns = [c.messages for c, _, _ in batch]
    flat = [m for own in turns for m in own]
    # Arrays of roles and texts take half the time that a dictionary for each message does.
    messages = pa.StructArray.from_arrays(
        [pa.array([m.role for m in flat]), pa.array([m.content for m in flat])],
        fields=list(message),
    )
    ends = [0, *accumulate(map(len, turns))]
    return {
        "id": [c.id for c, _, _ in batch],
        "messages": pa.ListArray.from_arrays(ends, messages),
        **{name: [getattr(c.provenance, name) for c, _, _ in batch] for name in _PROVENANCE},
        "language": [language for _, _, language in batch],
        "tokens": [sum(own) for _, own, _ in batch],
        "turn_tokens": [list(own) for _, own, _ in batch],
    }


def _conversation(row: dict[str, Any]) -> Conversation:
    return Conversation(
        id=row["id"],
        messages=tuple(Message(m["role"], m["content"]) for m in row["messages"]),
        provenance=Provenance(**{name: row[name] for name in _PROVENANCE}),
        tokens=row["tokens"],
    )
