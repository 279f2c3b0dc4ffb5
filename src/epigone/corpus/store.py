"""Cleaned conversations on the disk, so that memory holds only hashes of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

from epigone.corpus.selection import Entry
from epigone.errors import CorpusError
from epigone.schema import Conversation

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Conversations that are counted at once; enough to keep the tokenizer's threads busy.
_BATCH = 256


class Store:
    """Conversations found again by their place, and the reference tokenizer's counts."""

    def __init__(self, file: IO[bytes], tokenizer_json: Path) -> None:
        self._file = file
        self._path = tokenizer_json
        self._tokenizer: Tokenizer | None = None

    def add(self, conversation: Conversation, language: str) -> int:
        """Write a conversation; its place is returned."""
        place = self._file.tell()
        row = [language, conversation.to_json()]
        self._file.write(json.dumps(row).encode() + b"\n")
        return place

    def get(self, entry: Entry) -> Conversation:
        """Read a conversation; nothing may be added any more."""
        return self.row(entry)[0]

    def row(self, entry: Entry) -> tuple[Conversation, str]:
        """Read a conversation and its language."""
        self._file.seek(entry.place)
        language, row = json.loads(self._file.readline())
        return Conversation.from_json(row), language

    def query(self, entry: Entry) -> str:
        """The first prompt of a conversation."""
        return next(m.content for m in self.get(entry).messages if m.role == "user")

    def tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without special ones."""
        if self._tokenizer is None:
            # Its threads begin with the first use, after all that forks.
            self._tokenizer = load_tokenizer(self._path)
        found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding) for encoding in found]

    def counted(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, list[int]]]:
        """The entries with the tokens of each of their replies."""
        left = iter(entries)
        while batch := list(islice(left, _BATCH)):
            whole = [self.get(entry).messages for entry in batch]
            texts = [[m.content for m in turns if m.role == "assistant"] for turns in whole]
            counts = iter(self.tokens([text for own in texts for text in own]))
            for entry, own in zip(batch, texts, strict=True):
                yield entry, list(islice(counts, len(own)))


def load_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer that counts every token; raises CorpusError for a file that holds none."""
    from tokenizers import Tokenizer

    try:
        tokenizer: Tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise CorpusError(
            "no tokenizer can be read", value=str(path), fix=str(error)[:200]
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
