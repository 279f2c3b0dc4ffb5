"""Cleaned conversations on the disk, so that memory holds only hashes of them."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import IO

from epigone.corpus.selection import Entry, opening
from epigone.schema import Conversation, Message, Provenance


@dataclass(frozen=True, slots=True)
class Stored:
    """A conversation with its language and the reference tokenizer's count of every turn."""

    conversation: Conversation
    language: str
    sizes: tuple[int, ...]

    @property
    def query(self) -> str:
        """The first prompt."""
        return next(m.content for m in self.conversation.messages if m.role == "user")

    @property
    def opening(self) -> str:
        """What the conversation opens with."""
        return opening(self.conversation.messages)


class Store:
    """Conversations found again by their place."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def add(self, packed: bytes) -> int:
        """Write a packed conversation; its place is returned."""
        place = self._file.tell()
        self._file.write(packed)
        return place

    def get(self, entry: Entry) -> Stored:
        """Read a conversation; nothing may be added any more."""
        self._file.seek(entry.place)
        # The file has no name and nobody else writes it, so that unpickling runs no foreign code.
        return unpacked(self._file)

    def query(self, entry: Entry) -> str:
        """The first prompt of a conversation."""
        return self.get(entry).query


def pack(stored: Stored) -> bytes:
    """The bytes that `Store.add` takes."""
    c = stored.conversation
    # Plain tuples are pickled several times as fast as the classes.
    origin = (
        c.provenance.source,
        c.provenance.teacher,
        c.provenance.date,
        c.provenance.licence,
        c.provenance.terms,
    )
    turns = [(m.role, m.content) for m in c.messages]
    return pickle.dumps((c.id, origin, turns, stored.language, stored.sizes), protocol=5)


def unpacked(file: IO[bytes]) -> Stored:
    """The conversation that `pack` made, at a file's place; whoever made it must be trusted."""
    row_id, origin, turns, language, sizes = pickle.load(file)
    messages = tuple(Message(role, content) for role, content in turns)
    return Stored(Conversation(row_id, messages, Provenance(*origin)), language, sizes)
