from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from epigone.models.chat import Tokens, conversation_tokens
from epigone.schema import Conversation, Message, Provenance
from epigone.training.blocks import (
    BlockStats,
    Piece,
    blocks_of,
    chunks,
    cut,
    pack,
    pieces_of,
    text_blocks,
)

MASKS = st.lists(st.booleans(), min_size=1, max_size=60)


@given(MASKS, st.integers(2, 20))
def test_chunks_supervise_every_target_once_with_its_left_neighbour(
    mask: list[bool], block: int
) -> None:
    stats = BlockStats()
    pieces = chunks(Tokens(list(range(len(mask))), mask), block, stats)
    found = [i for p in pieces for i, s in zip(p.ids, p.supervised, strict=True) if s]
    assert found == [i for i, s in enumerate(mask) if s and i]
    assert stats.supervised_lost == mask[0]
    for piece in pieces:
        assert len(piece.ids) <= block
        assert piece.supervised[-1]
        assert not piece.supervised[0]
        assert list(piece.ids) == list(range(piece.ids[0], piece.ids[-1] + 1))


@given(MASKS, st.integers(2, 20))
def test_tokens_are_kept_dropped_or_repeated_and_all_counted(mask: list[bool], block: int) -> None:
    stats = BlockStats()
    pieces = chunks(Tokens(list(range(len(mask))), mask), block, stats)
    kept = sum(len(p.ids) for p in pieces)
    assert kept - stats.repeated + stats.unsupervised_dropped == len(mask)


def test_a_chunk_goes_on_where_the_last_one_ended() -> None:
    stats = BlockStats()
    pieces = chunks(Tokens(list(range(8)), [False] * 2 + [True] * 6), 4, stats)
    assert [list(p.ids) for p in pieces] == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7]]
    assert [p.targets for p in pieces] == [2, 3, 1]
    assert (stats.supervised_lost, stats.repeated) == (0, 2)


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Any) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_base)


def talk(*words: int) -> tuple[Message, ...]:
    """A dialogue whose replies have so many words each."""
    found: list[Message] = []
    for i, n in enumerate(words):
        found += [Message("user", f"ask {i}"), Message("assistant", " ".join([f"w{i}"] * n))]
    return tuple(found)


def supervised(tokenizer: Any, pieces: list[Piece]) -> str:
    ids = [i for p in pieces for i, s in zip(p.ids, p.supervised, strict=True) if s]
    return str(tokenizer.decode(ids))


@pytest.mark.parametrize("block", [40, 64, 100, 1000])
def test_dialogues_are_cut_between_exchanges_and_no_answer_is_lost(
    tokenizer: Any, block: int
) -> None:
    messages = talk(4, 3, 5, 2, 60, 3, 4)
    stats = BlockStats()
    pieces = list(cut(messages, tokenizer, block, stats))
    whole = conversation_tokens(tokenizer, messages)
    answers = tokenizer.decode([i for i, s in zip(whole.ids, whole.supervised, strict=True) if s])
    assert supervised(tokenizer, pieces) == answers
    assert all(len(p.ids) <= block for p in pieces)
    texts = [tokenizer.decode(p.ids) for p in pieces]
    # Only the one long exchange is broken: all other pieces begin with a prompt.
    begun = [t for t in texts if not t.lstrip().startswith("User:")]
    assert all(set(t.split()) <= {"w4", "4", "w"} or "w4" in t for t in begun)
    assert bool(begun) == (stats.chunks > 0) == (block < 300)


def test_a_conversation_without_targets_gives_no_piece_and_is_counted(tokenizer: Any) -> None:
    stats = BlockStats()
    silent = Conversation("a", (Message("user", "hm"),), Provenance("s", "t"))
    assert pieces_of(silent, tokenizer, 64, stats) == []
    assert stats.without_targets == 1


def test_contiguous_blocks_cross_documents_and_lose_nothing(tokenizer: Any) -> None:
    many = [Conversation(str(i), talk(3, 4), Provenance("s", "t")) for i in range(9)]
    stats = BlockStats()
    each = [pieces_of(c, tokenizer, 64, stats, contiguous=True) for c in many]
    blocks = blocks_of(chain.from_iterable(each), 64, stats, contiguous=True)
    stream = [i for c in many for i in conversation_tokens(tokenizer, c.messages).ids]
    assert all(len(b.pieces) == 1 for b in blocks)
    # A block ends at its last target, and the next one starts where the stream was cut.
    pieces = [b.pieces[0] for b in blocks]
    for n, piece in enumerate(pieces):
        assert list(piece.ids) == stream[n * 63 : n * 63 + len(piece.ids)]
        assert piece.supervised[-1]
    assert len(pieces) == -(-(len(stream) - 1) // 63)
    targets = sum(sum(conversation_tokens(tokenizer, c.messages).supervised) for c in many)
    assert stats.supervised == targets


def test_plain_text_is_one_stream_of_full_blocks_with_ends_between_documents(
    tokenizer: Any,
) -> None:
    documents = ["one two three four five six " * 5, "seven eight " * 20]
    blocks = list(text_blocks(documents, tokenizer, 32))
    stream: list[int] = []
    for text in documents:
        stream += [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    found = [*blocks[0].pieces[0].ids, *(i for b in blocks[1:] for i in b.pieces[0].ids[1:])]
    assert found == stream[: len(found)]
    assert len(stream) - len(found) < 32
    assert all(b.targets == 31 and b.width == 32 for b in blocks)


def test_documents_and_blocks_begin_as_the_tokenizer_begins_texts(tokenizer: Any) -> None:
    own = copy.deepcopy(tokenizer)
    own.add_special_tokens({"bos_token": "<bos>"})
    own.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", own.bos_token_id)]
    )
    documents = ["one two three four five six " * 5, "seven </bos> <bos> <eos> eight " * 20]
    blocks = list(text_blocks(documents, own, 32))
    assert all(b.width == 32 and b.pieces[0].ids[0] == own.bos_token_id for b in blocks)
    stream: list[int] = []
    for b in blocks:
        for i, (token, target) in enumerate(
            zip(b.pieces[0].ids, b.pieces[0].supervised, strict=True)
        ):
            # Only what the tokenizer begins with is no target.
            assert bool(target) == (token != own.bos_token_id)
            stream += [token] if i and target else []
    text = own.decode(stream)
    # The documents' own words for special tokens are words, and one end stands between them.
    assert text.count("<eos>") == 1 + (len(stream) > 32 * len(blocks))
    assert text.startswith("one two three")


def test_one_long_text_gives_all_its_blocks(tokenizer: Any) -> None:
    text = "word " * 40_000
    tokens = len(tokenizer(text, add_special_tokens=False)["input_ids"]) + 1
    blocks = list(text_blocks([text], tokenizer, 32))
    assert len(blocks) == (tokens - 1) // 31 > 1_000


PIECES = st.lists(
    st.integers(1, 16).map(lambda n: Piece(tuple(range(n)), (False,) * (n - 1) + (True,))),
    max_size=30,
)


@given(PIECES)
def test_packing_is_first_fit_decreasing_by_brute_force(pieces: list[Piece]) -> None:
    rooms: list[list[int]] = []
    for i in sorted(range(len(pieces)), key=lambda i: -len(pieces[i].ids)):
        for room in rooms:
            if sum(len(pieces[j].ids) for j in room) + len(pieces[i].ids) <= 16:
                room.append(i)
                break
        else:
            rooms.append([i])
    expected = sorted((sorted(r) for r in rooms), key=lambda r: r[0])
    assert [[id(p) for p in b.pieces] for b in pack(pieces, 16)] == [
        [id(pieces[i]) for i in r] for r in expected
    ]
