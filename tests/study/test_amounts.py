from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epigone.errors import CorpusError
from epigone.schema import Conversation, Message, Provenance
from epigone.study import train_file
from epigone.study.amounts import WHOLE, segments


def corpus(folder: Path, sizes: list[list[int]], system: bool = False) -> tuple[Path]:
    """Write conversations whose exchanges have so many tokens."""
    rows = []
    for i, exchanges in enumerate(sizes):
        messages = [Message("system", f"s{i}")] if system else []
        for j in range(len(exchanges)):
            messages += [Message("user", f"q{i}.{j}"), Message("assistant", f"a{i}.{j}")]
        rows.append(Conversation(f"c{i}", tuple(messages), Provenance("s", "t"), sum(exchanges)))
    return (written(folder, zip(rows, sizes, strict=True)),)


def written(folder: Path, rows: Iterable[tuple[Conversation, list[int]]]) -> Path:
    path = folder / train_file.NAME
    train_file.write(path, ((row, counts, "en") for row, counts in rows))
    return path


ORIGIN = Provenance("s", "t")


def shape(found: list[list[Conversation]]) -> list[list[tuple[str, int, int]]]:
    return [[(c.id, len(c.messages), c.tokens) for c in segment] for segment in found]


def test_whole_conversations_while_they_fit_then_a_cut_between_exchanges(tmp_path: Path) -> None:
    files = corpus(tmp_path, [[10], [5, 5, 5], [7]])
    # 10 fits; of 5+5+5 one exchange fits into 17; the 2 tokens left over stay unused.
    assert shape(segments(*files, [17, 32])) == [
        [("c0", 2, 10), ("c1", 2, 5)],
        [("c1#1", 4, 10), ("c2", 2, 7)],
    ]


def test_no_later_conversation_fills_the_gap_behind_one_that_does_not_fit(tmp_path: Path) -> None:
    files = corpus(tmp_path, [[10], [50], [1]])
    assert shape(segments(*files, [20])) == [[("c0", 2, 10)]]


def test_an_exchange_larger_than_several_amounts_leaves_their_segments_empty(
    tmp_path: Path,
) -> None:
    files = corpus(tmp_path, [[4, 30], [1]])
    assert shape(segments(*files, [10, 20, 34])) == [
        [("c0", 2, 4)],
        [],
        [("c0#1", 2, 30)],
    ]


def test_the_system_turn_goes_with_the_first_exchange(tmp_path: Path) -> None:
    files = corpus(tmp_path, [[3, 3]], system=True)
    first, second = segments(*files, [3, 6])
    assert [m.role for m in first[0].messages] == ["system", "user", "assistant"]
    assert [m.content for m in second[0].messages] == ["q0.1", "a0.1"]


def test_several_replies_and_tools_stay_in_one_exchange(tmp_path: Path) -> None:
    messages = (
        Message("user", "q"),
        Message("assistant", "call"),
        Message("tool", "result"),
        Message("assistant", "a"),
        Message("user", "q2"),
        Message("assistant", "a2"),
    )
    row = Conversation("c", messages, Provenance("s", "t"), 9)
    file = written(tmp_path, [(row, [2, 3, 4])])
    assert shape(segments(file, [4, 5, 9])) == [[], [("c", 4, 5)], [("c#1", 2, 4)]]


def test_the_whole_corpus_is_an_amount_and_one_token_more_is_not(tmp_path: Path) -> None:
    files = corpus(tmp_path, [[10], [5, 5]])
    assert shape(segments(*files, [20])) == [[("c0", 2, 10), ("c1", 4, 10)]]
    assert segments(*files, [WHOLE]) == segments(*files, [20])
    with pytest.raises(CorpusError, match=r"holds 20 tokens of teacher output: 21 \(ask"):
        segments(*files, [5, 21])


@pytest.mark.parametrize("amounts", [[], [0, 5], [-1], [5, 5], [9, 3]])
def test_amounts_must_rise(tmp_path: Path, amounts: list[int]) -> None:
    with pytest.raises(ValueError, match="rise"):
        segments(*corpus(tmp_path, [[10]]), amounts)


def test_counts_that_do_not_fit_the_messages_are_refused(tmp_path: Path) -> None:
    row = Conversation("c", (Message("user", "q"), Message("assistant", "a")), ORIGIN, 10)
    with pytest.raises(ValueError, match="1 replies but 2 counts"):
        segments(written(tmp_path, [(row, [5, 5])]), [10])


sizes = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=6)


@given(sizes, st.data())
@settings(deadline=None)
def test_prefixes_are_nested_and_as_long_as_the_rule_says(
    sizes: list[list[int]], data: st.DataObject
) -> None:
    flat = [(i, j, n) for i, exchanges in enumerate(sizes) for j, n in enumerate(exchanges)]
    total = sum(n for _, _, n in flat)
    if not total:
        return
    amounts = sorted(data.draw(st.sets(st.integers(1, total), min_size=1, max_size=4)))
    with TemporaryDirectory() as folder:
        found = segments(*corpus(Path(folder), sizes), amounts)
    seen: list[str] = []
    for amount, segment in zip(amounts, found, strict=True):
        seen += [m.content for c in segment for m in c.messages if m.role == "user"]
        # Brute force: the longest run of exchanges from the start that holds no more tokens.
        longest = max(k for k in range(len(flat) + 1) if sum(n for *_, n in flat[:k]) <= amount)
        assert seen == [f"q{i}.{j}" for i, j, _ in flat[:longest]]
        assert all(
            c.tokens
            == sum(
                sizes[int(c.id[1:].split("#")[0])][int(m.content.split(".")[1])]
                for m in c.messages
                if m.role == "user"
            )
            for c in segment
        )
