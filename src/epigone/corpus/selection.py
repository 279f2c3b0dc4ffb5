"""Which conversations are held out, and in what order they come.

All of it follows from hashes of the content and the seed: neither the order of the rows nor
another row's content plays a part.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from epigone.schema import Message

# A prompt of fewer words does not tell what a dialogue is about.
_WORDS = 5
# Kana, Han and Thai.
_UNSPACED = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


@dataclass(frozen=True, slots=True)
class Entry:
    """What selection needs to know of a conversation that lies elsewhere.

    `query` is the hash of what it opens with (`opening`) and of its system turns, `system` that of
    these alone, `exchanges` holds those of its prompts with their replies, and `sizes` the
    characters of these; `part` is true if it begins in the middle of a
    dialogue; `rank` is smallest for the one to keep of several copies; `source` is the number of
    its source, `place` where the conversation lies; `content` is the hash of its messages;
    `tokens` counts the teacher's; `bands` are those of its opening (`duplicates.bands`); `length`
    counts the exchanges.
    """

    id: str
    query: bytes
    system: bytes
    exchanges: tuple[bytes, ...]
    sizes: tuple[int, ...]
    part: bool
    rank: tuple[int, str, str, str]
    source: int
    place: int
    turns: int
    content: str
    tokens: int = 0
    bands: bytes = b""
    length: int = 0

    def at(self, place: int) -> Entry:
        """The entry of a conversation that lies there."""
        return replace(self, place=place)


def normalised(query: str) -> str:
    """A query without differences that only the eye sees.

    NFKC, casefold, single spaces, no punctuation at the end.
    """
    # The same for ASCII, and much faster.
    folded = query.lower() if query.isascii() else unicodedata.normalize("NFKC", query).casefold()
    return " ".join(folded.split()).rstrip(" ?!.\u2026\u3002")


def spaced(text: str) -> str:
    """The text with blanks around the letters of scripts that put none between words."""
    return text if text.isascii() else _UNSPACED.sub(r" \g<0> ", text)


def opening(messages: Sequence[Message]) -> str:
    """The first prompt; if that is short, as hello, with the next ones until they are enough."""
    found: list[str] = []
    words = 0
    for m in messages:
        if m.role == "user":
            found.append(m.content)
            words += len(spaced(m.content[:1_000]).split())
            if words >= _WORDS:
                break
    return "\n".join(found)


def query_hash(query: str) -> bytes:
    """16 bytes that stand for a normalised query."""
    return hashlib.blake2b(normalised(query).encode(), digest_size=16).digest()


def content_hash(messages: Sequence[Message]) -> str:
    """Hex sha256 of the roles and texts."""
    # With the lengths, no two lists of messages give the same bytes.
    parts = [f"{m.role} {len(m.content)} {m.content}" for m in messages]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def entry(
    row_id: str,
    messages: Sequence[Message],
    *,
    part: bool,
    source: int,
    tie: str = "",
    place: int = -1,
    tokens: int = 0,
    bands: bytes = b"",
) -> Entry:
    """The entry of a conversation; its place may be told later.

    Of copies that are alike to the letter, the one with the first `tie` stays.
    """
    content = content_hash(messages)
    exchanges = _exchanges(messages)
    system = "\n".join(m.content for m in messages if m.role == "system")
    said = sum(len(m.content) for m in messages if m.role == "assistant")
    return Entry(
        id=row_id,
        query=query_hash(f"{opening(messages)}\n{system}" if system else opening(messages)),
        system=query_hash(system) if system else b"",
        exchanges=tuple(map(query_hash, exchanges)),
        sizes=tuple(map(len, exchanges)),
        part=part,
        rank=(-said, content, row_id, tie),
        source=source,
        place=place,
        turns=len(messages),
        content=content,
        tokens=tokens,
        bands=bands,
        length=len(exchanges),
    )


def _exchanges(messages: Sequence[Message]) -> list[str]:
    """Every prompt together with what follows it, up to the next prompt."""
    found: list[str] = []
    for m in messages:
        if m.role == "user":
            found.append(m.content)
        elif found:
            found[-1] += f"\n{m.content}"
    return found


def hold_out(
    entries: Iterable[Entry], n: int, seed: int, fits: Callable[[Entry], bool]
) -> list[Entry]:
    """The first `n` conversations that fit, in an order that the seed and the query make.

    Conversations that begin in the middle of a dialogue are never held out.
    """
    held: list[Entry] = []
    if n == 0:
        return held
    whole = (e for e in entries if not e.part)
    for candidate in sorted(whole, key=lambda e: (_place(seed, e.query), e.rank)):
        if fits(candidate):
            held.append(candidate)
            if len(held) == n:
                break
    return held


def in_order(entries: Iterable[Entry], seed: int) -> list[Entry]:
    """The conversations in an order that the seed and the content make."""
    return sorted(entries, key=lambda e: (_place(seed, e.content.encode()), e.rank))


def _place(seed: int, content: bytes) -> bytes:
    return hashlib.blake2b(b"%d\n%s" % (seed, content), digest_size=16).digest()
