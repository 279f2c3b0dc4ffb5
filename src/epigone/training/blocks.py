"""Conversations and plain text to blocks: cut, pack, and nothing lost without a count."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Any

from epigone.models.chat import Tokens, conversation_tokens, plain
from epigone.schema import Conversation, Message


@dataclass(frozen=True, slots=True)
class Piece:
    """A conversation, or a part of one, that fits into a block.

    `supervised[i]` says whether the loss is taken on predicting `ids[i]` from what stands before
    it; position 0 has nothing before it and is never supervised. An encoder-decoder reads
    `source` and predicts `ids`, whose position 0 is where its decoder starts.
    """

    # Arrays of machine integers: a corpus of 150 million tokens would be gigabytes of tuples.
    ids: Sequence[int]
    supervised: Sequence[int]
    source: Sequence[int] = ()

    @property
    def targets(self) -> int:
        """Number of supervised tokens."""
        return sum(self.supervised)


@dataclass(frozen=True, slots=True)
class Block:
    """Pieces that lie side by side in one row of at most the block's length."""

    pieces: tuple[Piece, ...]

    @property
    def targets(self) -> int:
        """Number of supervised tokens."""
        return sum(p.targets for p in self.pieces)

    @property
    def width(self) -> int:
        """Number of tokens, without padding."""
        return sum(len(p.ids) for p in self.pieces)


@dataclass(slots=True)
class BlockStats:
    """What cutting and packing did, for the record.

    `parts` are the pieces that a conversation longer than a block became, `chunks` those of single
    exchanges that were longer; `repeated` tokens stand in two pieces, as the left context of a
    target in the second.
    """

    conversations: int = 0
    blocks: int = 0
    tokens: int = 0
    supervised: int = 0
    padding: int = 0
    parts: int = 0
    chunks: int = 0
    repeated: int = 0
    supervised_lost: int = 0
    source_lost: int = 0
    unsupervised_dropped: int = 0
    without_targets: int = 0

    def add(self, other: BlockStats) -> None:
        """Count what another one counted as well."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def to_json(self) -> dict[str, Any]:
        """Counts, the supervised share of the tokens and the packing efficiency."""
        held = self.tokens + self.padding
        return {
            "conversations": self.conversations,
            "blocks": self.blocks,
            "tokens": self.tokens,
            "supervised": self.supervised,
            "supervised_share": round(self.supervised / self.tokens, 4) if self.tokens else 0.0,
            "padding": self.padding,
            "efficiency": round(self.tokens / held, 4) if held else 0.0,
            "parts_of_long_conversations": self.parts,
            "chunks_of_long_exchanges": self.chunks,
            "repeated_as_context": self.repeated,
            "supervised_lost": self.supervised_lost,
            "source_tokens_lost": self.source_lost,
            "unsupervised_dropped": self.unsupervised_dropped,
            "conversations_without_targets": self.without_targets,
        }


def chunks(tokens: Tokens, block: int, stats: BlockStats) -> list[Piece]:
    """Cut a stream of tokens into consecutive pieces of at most `block` tokens.

    Each piece but the first starts with the last token of the one before, which is there only to
    be the left context of the first target, so that no supervised token is lost but the stream's
    own first. Tokens after the last supervised one of a piece can change no loss and are dropped.
    """
    pieces: list[Piece] = []
    start = 0
    while start == 0 or start + 1 < len(tokens.ids):
        ids = tokens.ids[start : start + block]
        mask = list(tokens.supervised[start : start + block])
        if start:
            stats.repeated += 1
        elif mask:
            stats.supervised_lost += int(mask[0])
        if mask:
            mask[0] = False
        last = max((i for i, s in enumerate(mask) if s), default=-1)
        stats.unsupervised_dropped += len(ids) - last - 1
        if last >= 0:
            pieces.append(Piece(array("i", ids[: last + 1]), bytes(mask[: last + 1])))
        elif start:
            stats.repeated -= 1
            stats.unsupervised_dropped -= 1
        start += block - 1
    return pieces


def cut(
    messages: Sequence[Message], tokenizer: Any, block: int, stats: BlockStats
) -> Iterator[Piece]:
    """Cut one conversation into pieces: between exchanges where it is longer than a block.

    An exchange is a prompt and all that follows it up to the next prompt. Only one that is longer
    than a block by itself is broken, into chunks. A later part stands alone, as a conversation
    that begins with its own first prompt.
    """
    tokens = conversation_tokens(tokenizer, messages)
    if len(tokens.ids) <= block:
        yield from chunks(tokens, block, stats)
        return
    starts = [i for i, m in enumerate(messages) if m.role == "user"]
    starts = [0, *starts[1:], len(messages)]
    # Characters tell about where a part ends; a template's preamble makes it no exact rule.
    characters = [0, *accumulate(len(m.content) for m in messages)]
    each = len(tokens.ids) / max(1, characters[-1])
    at = 0
    while at < len(starts) - 1:
        fits = [
            e
            for e in range(at + 1, len(starts))
            if (characters[starts[e]] - characters[starts[at]]) * each <= block
        ]
        part, end = _most(messages, starts, at, max(fits, default=at + 1), tokenizer, block)
        found = chunks(part, block, stats)
        stats.parts += 1
        stats.chunks += len(found) if len(part.ids) > block else 0
        yield from found
        at = end


def _most(
    messages: Sequence[Message],
    starts: Sequence[int],
    at: int,
    end: int,
    tokenizer: Any,
    block: int,
) -> tuple[Tokens, int]:
    """The most exchanges from `at` on that fit into a block, at least one; `end` is a guess."""
    part = conversation_tokens(tokenizer, messages[starts[at] : starts[end]])
    while len(part.ids) > block and end > at + 1:
        end -= 1
        part = conversation_tokens(tokenizer, messages[starts[at] : starts[end]])
    while end < len(starts) - 1 and len(part.ids) <= block:
        longer = conversation_tokens(tokenizer, messages[starts[at] : starts[end + 1]])
        if len(longer.ids) > block:
            break
        part, end = longer, end + 1
    return part, end


def pack(pieces: Sequence[Piece], block: int) -> list[Block]:
    """First-fit decreasing into blocks, then in the order of each block's first piece.

    The same pieces give the same blocks.
    """
    order = sorted(range(len(pieces)), key=lambda i: (-len(pieces[i].ids), i))
    rooms = _Rooms(block)
    packed: list[list[int]] = []
    for i in order:
        room = rooms.take(len(pieces[i].ids))
        if room == len(packed):
            packed.append([])
        packed[room].append(i)
    blocks = sorted((sorted(members) for members in packed), key=lambda m: m[0])
    return [Block(tuple(pieces[i] for i in members)) for members in blocks]


class _Rooms:
    """Free space of blocks in a tree of maxima: the first that fits, in logarithmic time."""

    def __init__(self, block: int) -> None:
        self._block, self._leaves, self._used = block, 1, 0
        self._most = [0, block]

    def take(self, size: int) -> int:
        """Take `size` tokens out of the first room that has them; its number is returned."""
        if self._most[1] < size or (self._used == self._leaves and self._most[1] < size):
            self._double()
        at = 1
        while at < self._leaves:
            at = 2 * at if self._most[2 * at] >= size else 2 * at + 1
        room = at - self._leaves
        self._used = max(self._used, room + 1)
        self._most[at] -= size
        while at > 1:
            at //= 2
            self._most[at] = max(self._most[2 * at], self._most[2 * at + 1])
        return room

    def _double(self) -> None:
        leaves = self._most[self._leaves :] + [self._block] * self._leaves
        self._leaves *= 2
        self._most = [0] * self._leaves + leaves
        for i in range(self._leaves - 1, 0, -1):
            self._most[i] = max(self._most[2 * i], self._most[2 * i + 1])


def pieces_of(
    conversation: Conversation,
    tokenizer: Any,
    block: int,
    stats: BlockStats,
    *,
    contiguous: bool = False,
) -> list[Piece]:
    """The pieces of one conversation; where all are cut as one stream, the whole of it."""
    stats.conversations += 1
    if contiguous:
        tokens = conversation_tokens(tokenizer, conversation.messages)
        return [Piece(array("i", tokens.ids), bytes(tokens.supervised))]
    found = list(cut(conversation.messages, tokenizer, block, stats))
    stats.without_targets += not found
    return found


def blocks_of(
    pieces: Iterable[Piece],
    block: int,
    stats: BlockStats,
    *,
    contiguous: bool = False,
    packed: bool = True,
) -> list[Block]:
    """The blocks of one segment of a corpus, from what `pieces_of` gave for its conversations.

    `contiguous` cuts all conversations as one stream, so that a block's tokens attend to whatever
    conversation stood before, as the code of Gudibande et al. (2023) did. Without `packed`, every
    piece has a row of its own.
    """
    if contiguous:
        ids, supervised = array("i"), bytearray()
        for piece in pieces:
            ids.extend(piece.ids)
            supervised.extend(piece.supervised)
        pieces = chunks(Tokens(ids, supervised), block, stats)
    pieces = list(pieces)
    found = pack(pieces, block) if packed and not contiguous else [Block((p,)) for p in pieces]
    stats.blocks += len(found)
    stats.tokens += sum(b.width for b in found)
    stats.supervised += sum(b.targets for b in found)
    stats.padding += len(found) * block - sum(b.width for b in found)
    return found


def text_blocks(texts: Iterable[str], tokenizer: Any, block: int) -> Iterator[Block]:
    """Plain text as full blocks of one piece in which almost every token is a target.

    Documents end with the end token and follow one another in one stream; what is left over at
    the end makes no block. Where the tokenizer begins texts with a token of its own, documents and
    blocks begin with it, and it is no target; else a block begins with the last token of the one
    before.
    """
    begin = list(tokenizer("a")["input_ids"])[:1]
    begin = begin if begin == [tokenizer.bos_token_id] else []
    ids, mask, at = array("i"), bytearray(), 0
    for text in texts:
        own = tokenizer(plain(tokenizer, text), add_special_tokens=False)["input_ids"]
        end = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
        ids.extend([*begin, *own, *end])
        mask += bytes([0] * len(begin) + [1] * (len(own) + len(end)))
        while len(ids) - at >= block:
            # The first token of a block has nothing before it.
            lead = begin if list(ids[at : at + 1]) != begin else []
            take = block - len(lead)
            piece = array("i", [*lead, *ids[at : at + take]])
            yield Block((Piece(piece, b"\0" + bytes(mask[at + 1 - len(lead) : at + take])),))
            at += take - (0 if begin else 1)
        del ids[:at], mask[:at]
        at = 0
