"""Conversations to blocks: cut, pack, and nothing supervised lost without a count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from epigone.models.chat import Tokens, conversation_tokens
from epigone.schema import Conversation


@dataclass(frozen=True, slots=True)
class Piece:
    """A conversation, or a part of one, that fits into a block.

    `supervised[i]` says whether the loss is taken on predicting `ids[i]` from what stands before
    it; position 0 has nothing before it and is never supervised.
    """

    ids: tuple[int, ...]
    supervised: tuple[bool, ...]

    @property
    def targets(self) -> int:
        """Number of supervised tokens."""
        return sum(self.supervised)


@dataclass(frozen=True, slots=True)
class Block:
    """Pieces that lie side by side in one row of at most the block's length."""

    pieces: tuple[Piece, ...]


@dataclass(slots=True)
class BlockStats:
    """What packing did, for the record."""

    conversations: int = 0
    blocks: int = 0
    tokens: int = 0
    supervised: int = 0
    padding: int = 0
    supervised_lost: int = 0
    unsupervised_dropped: int = 0
    without_targets: int = 0

    def to_json(self) -> dict[str, Any]:
        """Counts, the supervised share of the tokens and the packing efficiency."""
        held = self.tokens + self.padding
        return {
            "conversations": self.conversations,
            "blocks": self.blocks,
            "tokens": self.tokens,
            "supervised": self.supervised,
            "supervised_share": round(self.supervised / self.tokens, 4) if self.tokens else 0.0,
            "efficiency": round(self.tokens / held, 4) if held else 0.0,
            "supervised_lost": self.supervised_lost,
            "unsupervised_dropped": self.unsupervised_dropped,
            "conversations_without_targets": self.without_targets,
        }


def cut(tokens: Tokens, block: int, stats: BlockStats) -> list[Piece]:
    """Cut one conversation into consecutive pieces of at most `block` tokens.

    Tokens after the last supervised one of a piece can change no loss and are dropped.
    """
    pieces: list[Piece] = []
    start = 0
    while start < len(tokens.ids):
        ids = tokens.ids[start : start + block]
        mask = list(tokens.supervised[start : start + block])
        # The first token of a piece has no left context here, so it cannot be a target.
        stats.supervised_lost += int(mask[0])
        mask[0] = False
        start += len(ids)
        last = max((i for i, s in enumerate(mask) if s), default=-1)
        stats.unsupervised_dropped += len(ids) - last - 1
        if last >= 0:
            pieces.append(Piece(tuple(ids[: last + 1]), tuple(mask[: last + 1])))
    if not pieces:
        stats.without_targets += 1
    return pieces


def pack(pieces: Sequence[Piece], block: int) -> list[Block]:
    """First-fit decreasing into blocks, then in the order of each block's first piece.

    The same pieces give the same blocks.
    """
    order = sorted(range(len(pieces)), key=lambda i: (-len(pieces[i].ids), i))
    rooms: list[tuple[int, list[int]]] = []
    for i in order:
        size = len(pieces[i].ids)
        for b, (free, members) in enumerate(rooms):
            if size <= free:
                members.append(i)
                rooms[b] = (free - size, members)
                break
        else:
            rooms.append((block - size, [i]))
    blocks = sorted((sorted(members) for _, members in rooms), key=lambda m: m[0])
    return [Block(tuple(pieces[i] for i in members)) for members in blocks]


def blocks_of(
    conversations: Iterable[Conversation], tokenizer: Any, block: int, stats: BlockStats
) -> list[Block]:
    """The blocks of one segment of a corpus."""
    pieces: list[Piece] = []
    for conversation in conversations:
        stats.conversations += 1
        pieces += cut(conversation_tokens(tokenizer, conversation.messages), block, stats)
    packed = pack(pieces, block)
    stats.blocks += len(packed)
    for piece in pieces:
        stats.tokens += len(piece.ids)
        stats.supervised += piece.targets
    stats.padding += len(packed) * block - sum(len(p.ids) for p in pieces)
    return packed
