"""What a run learns from, in order: batches of blocks, and their micro-batches."""

from __future__ import annotations

import gzip
import io
import json
import math
import random
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from epigone.errors import EpigoneError, StepFailed, UserError
from epigone.models.chat import Tokens, exchanges
from epigone.schema import Conversation, Progress, silent
from epigone.study.specs import RecipeSpec, TrainSpec
from epigone.training.blocks import (
    Block,
    BlockStats,
    Piece,
    blocks_of,
    chunks,
    pieces_of,
    text_blocks,
)
from epigone.training.loss import Micro, piece_lengths
from epigone.training.model import Prepared
from epigone.training.parallel import World
from epigone.training.schedule import Batch

# What broken files of text make their readers raise.
_UNREADABLE = (
    OSError, EOFError, ValueError, KeyError, IndexError, RecursionError, zlib.error,
)  # fmt: skip


def batches(
    spec: TrainSpec,
    parts: Sequence[Sequence[Conversation]],
    prepared: Prepared,
    progress: Progress = silent,
) -> tuple[BlockStats, list[Batch]]:
    """The batches of one run over the segments of its amounts, the same in every process.

    Every amount's segment is packed by itself and ends its own batch, so that the student of a
    small amount has seen exactly its conversations and nothing of the next ones. Raises StepFailed
    for a segment in which no token is supervised.
    """
    stats = BlockStats()
    found: list[Batch] = []
    for amount, conversations in zip(spec.amounts, parts, strict=True):

        def told(done: int, amount: int = amount, of: int = len(conversations)) -> None:
            progress(0, 1, f"amount {amount}: {done} of {of} conversations in tokens")

        blocks = _blocks(spec.recipe, conversations, prepared, stats, told)
        # The seed decides in which order a segment is seen; which conversations it holds stays.
        random.Random(f"{spec.seed}:{amount}").shuffle(blocks)
        size = spec.recipe.batch
        groups = [tuple(blocks[i : i + size]) for i in range(0, len(blocks), size)]
        if not groups:
            raise StepFailed(
                f"no token of the conversations up to amount {amount} is supervised: "
                f"{stats.without_targets} of {stats.conversations} have no answer"
            )
        found += [Batch(g, amount if g is groups[-1] else None) for g in groups]
    return stats, found


def _blocks(
    recipe: RecipeSpec,
    part: Sequence[Conversation],
    prepared: Prepared,
    stats: BlockStats,
    told: Callable[[int], None],
) -> list[Block]:
    block, tokenizer, start = recipe.block, prepared.tokenizer, prepared.start
    contiguous = recipe.chunks == "contiguous"

    def make(conversation: Conversation, own: BlockStats) -> list[Piece]:
        if start is None:
            return pieces_of(conversation, tokenizer, block, own, contiguous=contiguous)
        pairs = list(_pairs(conversation, tokenizer, block, start, own))
        own.conversations += 1
        own.without_targets += not pairs
        return pairs

    pieces = chain.from_iterable(_spread(part, make, prepared.world, stats, told))
    if start is None:
        return blocks_of(pieces, block, stats, contiguous=contiguous, packed=prepared.packs)
    found = [Block((piece,)) for piece in pieces]
    stats.blocks += len(found)
    stats.tokens += sum(b.width + len(b.pieces[0].source) for b in found)
    stats.supervised += sum(b.targets for b in found)
    return found


def _spread(
    part: Sequence[Conversation],
    make: Callable[[Conversation, BlockStats], list[Piece]],
    world: World,
    stats: BlockStats,
    told: Callable[[int], None],
) -> list[list[Piece]]:
    """What `make` gives for each conversation, in their order; every process does its share."""
    place, size = world.place
    own = BlockStats()
    made: list[list[Piece]] = []
    failed = False
    try:
        for number, conversation in enumerate(part[place::size]):
            if number % 500 == 0:
                told(number * size)
            made.append(make(conversation, own))
    except EpigoneError:
        if world.alone:
            raise
        failed = True
    found: list[list[Piece]] = [[]] * len(part)
    for other, (pieces, counts) in enumerate(world.gather((None if failed else made, own))):
        if pieces is None:
            # It fails in every process alike, and the first one tells the user.
            pieces = [make(c, counts) for c in part[other::size]]
        found[other::size] = pieces
        stats.add(counts)
    return found


def _pairs(
    conversation: Conversation, tokenizer: Any, block: int, start: int, stats: BlockStats
) -> Iterator[Piece]:
    # An encoder-decoder reads the conversation so far, of which the end says most, and writes the
    # answer; a longer answer goes on in a piece of its own.
    for exchange in exchanges(tokenizer, conversation.messages):
        source = array("i", exchange.source[-block:])
        stats.source_lost += len(exchange.source) - len(source)
        target = Tokens([start, *exchange.target], [False] + [True] * len(exchange.target))
        found = chunks(target, block, stats)
        stats.chunks += len(found) if len(found) > 1 else 0
        for piece in found:
            yield Piece(piece.ids, piece.supervised, source)


def with_text(
    found: Sequence[Batch], files: Sequence[Path], recipe: RecipeSpec, prepared: Prepared
) -> tuple[list[Batch], int]:
    """The same batches with blocks of plain text beside the teacher's, and passes over the text.

    A share s of text means ceil(n s / (1 - s)) blocks beside n blocks. Raises UserError for files
    with too little text for one block.
    """
    need = [math.ceil(len(b.blocks) * recipe.replay / (1 - recipe.replay)) for b in found]
    passes = 0

    def endless() -> Iterator[Block]:
        nonlocal passes
        while True:
            passes += 1
            one = text_blocks(chain.from_iterable(map(texts, files)), prepared.tokenizer,
                              recipe.block)  # fmt: skip
            first = next(one, None)
            if first is None:
                raise UserError(
                    f"less plain text than one block of {recipe.block} tokens",
                    value=", ".join(f.name for f in files),
                    fix="name more text in replay_from",
                )
            for block in chain([first], one):
                yield block if prepared.start is None else _halved(block, prepared.start)

    stream = endless()
    made = [
        Batch(b.blocks, b.amount, tuple(islice(stream, n)))
        for b, n in zip(found, need, strict=True)
    ]
    return made, passes


def _halved(block: Block, start: int) -> Block:
    # An encoder-decoder reads the first half of a text and writes the second, as T5's adaptation
    # to language modelling did (Lester et al. 2021, prefix LM).
    ids = block.pieces[0].ids
    half = len(ids) // 2
    target = array("i", [start, *ids[half:]])
    return Block((Piece(target, bytes([0] + [1] * (len(ids) - half)), ids[:half]),))


def texts(file: Path) -> Iterator[str]:
    """Documents of plain text: rows' "text" of JSONL, JSON or Parquet, or a whole text file.

    Any but Parquet may be compressed with gzip. Raises UserError for what cannot be read.
    """
    try:
        yield from _texts(file)
    except UserError:
        raise
    except _UNREADABLE as error:
        raise UserError(
            f"{file.name} cannot be read as plain text",
            value=str(error).splitlines()[0] if str(error) else type(error).__name__,
            fix='text files, or rows with a "text" as JSONL or Parquet',
        ) from None


def _texts(file: Path) -> Iterator[str]:
    names = [s.lower() for s in file.suffixes]
    packed = names[-1:] == [".gz"]
    kind = (names[:-1] if packed else names)[-1:]
    if file.is_dir():
        inner = sorted(p for p in file.rglob("*") if p.is_file())
        for path in inner:
            if not any(part.startswith(".") for part in path.relative_to(file).parts):
                yield from texts(path)
    elif kind == [".parquet"]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(500, columns=["text"]):
                yield from (str(t) for t in batch.column("text").to_pylist() if t)
    elif kind in ([".json"], [".jsonl"]):
        with _opened(file, packed, "strict") as stream:
            yield from _rows(file, stream)
    else:
        with _opened(file, packed, "replace") as stream:
            # A document of a whole library would be tokenised in one go.
            while page := stream.read(1 << 20):
                yield page


def _opened(file: Path, packed: bool, errors: str) -> TextIO:
    if packed:
        return io.TextIOWrapper(gzip.open(file), encoding="utf-8", errors=errors)
    return open(file, encoding="utf-8", errors=errors)


def _rows(file: Path, stream: Iterable[str]) -> Iterator[str]:
    lines = (line for line in stream if line.strip())
    first = next(lines, "")
    whole = first.lstrip().startswith("[")
    rows = (
        json.loads(first + "".join(lines))
        if whole
        else (json.loads(line) for line in chain([first] if first else [], lines))
    )
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise UserError('a row of plain text has no "text"', value=file.name)
        yield row["text"]


def micro_batches(
    batch: Batch,
    recipe: RecipeSpec,
    tokens: int,
    ranks: tuple[int, int] = (0, 1),
    *,
    flat: bool = False,
) -> Iterator[Micro]:
    """Tensors whose losses add up to the loss of the whole batch; those of one rank of several.

    Any split gives the same sum, because each token's weight is fixed by the whole batch: 1 / all
    supervised tokens (token mean), or 1 / (rows x the row's supervised tokens) (row mean), times
    its share beside the plain text. A micro-batch has about `tokens` tokens. Every rank gets the
    same number of them; what it has too few of is made up by ones that weigh nothing. `flat` puts
    all rows into one, which is how flash attention keeps packed pieces apart.
    """
    rank, size = ranks
    share = recipe.replay if batch.text else 0.0
    targets = batch.targets
    # (blocks, the weight of a supervised token in each of their rows, that of its divergence)
    plans: list[tuple[list[Block], list[float], float]] = []
    for group in _groups(batch.blocks, tokens, flat, size):
        each = [
            1 / targets if recipe.loss == "token-mean" else 1 / (len(batch.blocks) * b.targets)
            for b in group
        ]
        plans.append((group, [(1 - share) * w for w in each], recipe.kl / (1 - share)))
    of_text = sum(b.targets for b in batch.text)
    for group in _groups(batch.text, tokens, flat, size):
        plans.append((group, [share / of_text] * len(group), 0.0))
    for i in range(rank, math.ceil(len(plans) / size) * size, size):
        group, weights, kl = plans[i] if i < len(plans) else (plans[0][0], None, 0.0)
        micro = _tensors(group, weights or [0.0] * len(group), kl)
        yield _flattened(micro, [b.width for b in group]) if flat else micro


def _groups(blocks: Sequence[Block], tokens: int, flat: bool, ranks: int) -> list[list[Block]]:
    """Blocks in groups of at most `tokens`, as even as can be, their number one for all ranks.

    Only a block that is longer by itself makes a larger group.
    """
    # Within a batch the order changes nothing, and rows of like lengths need no padding.
    order = sorted(blocks, key=lambda b: (_width(b), b.width), reverse=True)
    widths = [_width(b) for b in order]
    ends = _filled(widths, tokens, flat)
    most = math.ceil(len(ends) / ranks) * ranks
    low, high = 0, tokens if most > 1 else 0
    while high - low > 1:
        middle = (low + high) // 2
        tried = _filled(widths, middle, flat)
        low, high, ends = (low, middle, tried) if len(tried) <= most else (middle, high, ends)
    return [order[start:end] for start, end in pairwise((0, *ends))]


def _width(block: Block) -> int:
    """Tokens of a block with what an encoder reads of it."""
    return block.width + len(block.pieces[0].source)


def _filled(widths: Sequence[int], tokens: int, flat: bool) -> list[int]:
    """Where groups of at most `tokens` end; `widths` fall, and rows are padded unless `flat`."""
    ends: list[int] = []
    start = held = 0
    for i, width in enumerate(widths):
        held += width
        padded = (i + 1 - start) * widths[start]
        if i > start and (held if flat else padded) > tokens:
            ends.append(i)
            start, held = i, width
    return [*ends, len(widths)] if widths else []


def _tensors(group: Sequence[Block], weights: Sequence[float], kl: float) -> Micro:
    width = max(b.width for b in group)
    ids = torch.zeros((len(group), width), dtype=torch.long)
    positions = torch.arange(width).repeat(len(group), 1)
    mask = torch.zeros((len(group), width), dtype=torch.bool)
    weight = torch.zeros((len(group), width))
    for r, block in enumerate(group):
        at = 0
        for piece in block.pieces:
            end = at + len(piece.ids)
            ids[r, at:end] = _tensor(piece.ids)
            positions[r, at:end] = torch.arange(len(piece.ids))
            mask[r, at:end] = _tensor(piece.supervised)
            at = end
        # The padding is a piece of its own, which no real token attends to.
        positions[r, at:] = torch.arange(width - at)
        weight[r] = weights[r]
    rows, columns = mask.nonzero(as_tuple=True)
    found = weight[rows, columns]
    sources = [b.pieces[0].source for b in group]
    source = source_mask = None
    if any(sources):
        source = torch.zeros((len(group), max(map(len, sources))), dtype=torch.long)
        source_mask = torch.zeros_like(source)
        for r, own in enumerate(sources):
            source[r, : len(own)] = _tensor(own)
            source_mask[r, : len(own)] = 1
    return Micro(
        ids, positions, rows, columns, found, found * kl if kl else None, source, source_mask
    )


def _flattened(micro: Micro, widths: Sequence[int]) -> Micro:
    real = torch.arange(micro.ids.shape[1]) < torch.tensor(widths)[:, None]
    starts = torch.tensor([0, *widths[:-1]]).cumsum(0)
    positions = micro.positions[real][None]
    return replace(
        micro,
        ids=micro.ids[real][None],
        positions=positions,
        lengths=piece_lengths(positions),
        rows=torch.zeros_like(micro.rows),
        columns=starts[micro.rows] + micro.columns,
    )


def _tensor(values: Sequence[int]) -> torch.Tensor:
    kind = np.uint8 if isinstance(values, bytes) else np.int32
    whole = np.frombuffer(values, kind) if isinstance(values, bytes) else np.asarray(values, kind)
    return torch.from_numpy(whole.copy())
