from __future__ import annotations

import csv
import gzip
import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epigone.corpus import compressed, tables
from epigone.corpus.readers import FORMATS, File, files_in
from epigone.corpus.rows import Invalid, Row
from epigone.corpus.values import Lost
from epigone.errors import CorpusError, UnknownName
from epigone.study import specs

Turn = tuple[str, str]


def read(path: Path, format: str = "") -> list[Row | Invalid | Lost]:
    with File(path, format) as file:
        return list(file)


def texts(path: Path, format: str = "") -> list[list[Turn]]:
    return [
        [(m.role, m.content) for m in item.turns]
        for item in read(path, format)
        if isinstance(item, Row)
    ]


def reasons(path: Path) -> list[str]:
    return [item.reason for item in read(path) if isinstance(item, Invalid)]


def put(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value, ensure_ascii=False))
    return path


def test_the_names_of_the_formats_are_those_of_a_study_file() -> None:
    assert {f.name for f in FORMATS} == set(specs.FORMATS)


def test_hc3_gives_every_answer_of_the_teacher(tmp_path: Path) -> None:
    rows = [
        {
            "question": "Why?",
            "human_answers": ["dunno"],
            "chatgpt_answers": ["Because.", "So."],
            "source": "open_qa",
        },
        {"question": "What?", "human_answers": ["this"], "chatgpt_answers": []},
        {"question": "Who?", "human_answers": [], "chatgpt_answers": ["They."]},
    ]
    path = tmp_path / "hc3.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert texts(path) == [
        [("user", "Why?"), ("assistant", "Because.")],
        [("user", "Why?"), ("assistant", "So.")],
        [("user", "Who?"), ("assistant", "They.")],
    ]
    assert reasons(path) == ["question without a ChatGPT answer"]
    found = read(path)
    assert sum(item.taken for item in found if not isinstance(item, Lost)) == len(rows)
    assert {item.teacher for item in found if isinstance(item, Row)} == {"chatgpt"}


def test_alpaca_with_and_without_what_is_optional(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Add.", "input": "1 and 2", "output": "3"},
        {"instruction": "Sing.", "input": "", "output": "La"},
        {
            "instruction": "And?",
            "output": "Yes",
            "system": "Be short.",
            "history": [["First?", "One"], ["Then?", "Two"]],
        },
        {"instruction": "Broken", "output": 3},
        {"instruction": "Broken", "output": "x", "history": [["only one"]]},
        {"instruction": "Broken", "output": "x", "history": True},
    ]
    path = put(tmp_path / "a.json", rows)
    assert texts(path) == [
        [("user", "Add.\n1 and 2"), ("assistant", "3")],
        [("user", "Sing."), ("assistant", "La")],
        [
            ("system", "Be short."),
            ("user", "First?"),
            ("assistant", "One"),
            ("user", "Then?"),
            ("assistant", "Two"),
            ("user", "And?"),
            ("assistant", "Yes"),
        ],
    ]
    assert reasons(path) == [
        "no instruction or no output",
        "history is not a list of pairs",
        "history is not a list of pairs",
    ]


def test_openai_chat_with_parts_and_calls(tmp_path: Path) -> None:
    row = {
        "messages": [
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
            {"role": "tool", "content": "42"},
            {"role": "assistant", "content": "It is 42."},
        ],
        "created": 1_700_000_000,
    }
    image = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}
    path = put(tmp_path / "o.json", [row, image])
    assert texts(path) == [
        [
            ("system", "Be kind."),
            ("user", "a\nb"),
            ("assistant", '[{"id": "1"}]'),
            ("tool", "42"),
            ("assistant", "It is 42."),
        ]
    ]
    first = read(path)[0]
    assert isinstance(first, Row)
    assert first.date == "2023-11-14"
    assert reasons(path) == ["turn without a role or a text"]


def test_sharegpt_with_tools_and_preferences(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    rows = [
        {"conversations": turns, "tools": '[{"name": "f"}]'},
        {"conversations": [{"from": "system", "value": "s"}, *turns], "tools": [{"name": "f"}]},
        {"conversations": turns[:1], "chosen": turns[1], "rejected": turns[1]},
    ]
    assert texts(put(tmp_path / "s.json", rows)) == [
        [("system", '[{"name": "f"}]'), ("user", "q"), ("assistant", "a")],
        [("system", 's\n\n[{"name": "f"}]'), ("user", "q"), ("assistant", "a")],
        [("user", "q"), ("assistant", "a")],
    ]


BOT = {"id": "9", "name": "Helper", "isBot": True}
ANN, BEN = ({"id": i, "name": n, "isBot": False} for i, n in (("1", "Ann"), ("2", "Ben")))


def message(number: int, author: dict[str, Any], text: str, **more: Any) -> dict[str, Any]:
    at = f"2023-05-{number % 28 + 1:02}T10:00:00.000+00:00"
    return {
        "id": str(number), "type": "Default", "timestamp": at, "content": text, "author": author,
        "reference": None, "embeds": [], **more,
    }  # fmt: skip


def export(path: Path, messages: list[Any]) -> Path:
    root = {
        "guild": {"id": "5", "name": "Guild"},
        "channel": {"id": "6", "name": "ask", "topic": 'messages: ["x"]'},
        "dateRange": {"after": None, "before": None},
        "exportedAt": "2023-06-01T00:00:00+00:00",
        "messages": messages,
        "messageCount": len(messages),
    }
    path.write_text(json.dumps(root, indent=2))
    return path


def reply_to(number: int) -> dict[str, Any]:
    return {"type": "Reply", "reference": {"messageId": str(number), "channelId": "6"}}


def test_discord_pairs_replies_by_reference_and_by_order(tmp_path: Path) -> None:
    mention = {"mentions": [{"id": "9", "name": "Helper", "nickname": "Help Bot", "isBot": True}]}
    embed = {"embeds": [{"description": "From an embed.", "fields": [{"name": "n", "value": "v"}]}]}
    path = export(
        tmp_path / "d.json",
        [
            message(1, ANN, "@Help Bot, what is rain?", **mention),
            message(2, BEN, "and snow?"),
            message(3, BOT, "Water.", **reply_to(1)),
            message(4, BOT, "A lot of it."),
            message(5, BOT, "", **reply_to(2), **embed),
            message(6, ANN, "hello"),
            message(7, BOT, "Hello Ann."),
            message(8, ANN, "never answered"),
        ],
    )
    assert texts(path) == [
        [("user", "what is rain?"), ("assistant", "Water.\nA lot of it.")],
        [("user", "and snow?"), ("assistant", "From an embed.\nn\nv")],
        [("user", "hello"), ("assistant", "Hello Ann.")],
    ]
    assert reasons(path) == ["message that no bot answered"]
    found = read(path)
    assert not any(isinstance(item, Lost) for item in found)
    assert sum(item.taken for item in found if not isinstance(item, Lost)) == 8
    first = found[0]
    assert isinstance(first, Row)
    assert (first.teacher, first.date) == ("Helper", "2023-05-02")


def test_discord_counts_what_it_cannot_pair(tmp_path: Path) -> None:
    path = export(
        tmp_path / "d.json",
        [
            message(1, BOT, "Welcome!"),
            message(2, BOT, "gone", **reply_to(77)),
            message(3, ANN, "hi"),
            message(4, {**BOT, "id": "8"}, "I answer first.", **reply_to(3)),
            message(5, BOT, "Me too.", **reply_to(3)),
            message(6, BOT, "x", type="20", interaction={"name": "ask"}),
            message(7, BOT, "  ", **reply_to(3)),
            "junk",
        ],
    )
    assert texts(path) == [[("user", "hi"), ("assistant", "I answer first.")]]
    assert sorted(reasons(path)) == sorted(
        [
            "bot message that answers nobody",
            "answers a message that is not there",
            "second bot that answers the same message",
            "answers a command, whose text an export does not hold",
            "bot message without a text",
            "not a message",
        ]
    )


def test_whom_a_bot_means_without_a_reference(tmp_path: Path) -> None:
    cid = {"id": "3", "name": "cid", "isBot": False}
    to_bot, to_ann = {"mentions": [BOT]}, {"mentions": [ANN]}
    path = export(
        tmp_path / "d.json",
        [
            message(1, ANN, "Joined the server.", type="GuildMemberJoin"),
            message(2, BOT, "Welcome!"),
            message(3, ANN, "who was the first king", **to_bot),
            message(4, cid, "haha what a thing"),
            message(5, BOT, "Thinking..."),
            message(6, BOT, "Alfred"),
            message(7, ANN, "and the last"),
            message(8, cid, "lunch?"),
            message(9, BOT, "@ann", **to_ann, embeds=[{"title": "Kings", "description": "None"}]),
        ],
    )
    assert texts(path) == [
        [("user", "who was the first king"), ("assistant", "Alfred")],
        [("user", "and the last"), ("assistant", "Kings\nNone")],
    ]
    assert sorted(reasons(path)) == sorted(
        [
            "message of the service",
            "bot message that answers nobody",
            "bot message that only asks to wait",
            "message that no bot answered",
            "message that no bot answered",
        ]
    )


def test_a_message_whose_id_comes_again_takes_no_answer_along(tmp_path: Path) -> None:
    messages = [
        message(1, ANN, "first", mentions=[BOT]),
        message(1, BEN, "second"),
        message(2, BOT, "an answer"),
    ]
    path = export(tmp_path / "d.json", messages)
    found = read(path)
    assert sum(item.taken for item in found if not isinstance(item, Lost)) == 3
    assert texts(path) == [[("user", "second"), ("assistant", "an answer")]]


@pytest.mark.parametrize("first", ["channel", "exportedAt", "messages"])
def test_an_export_may_begin_with_any_of_its_keys(tmp_path: Path, first: str) -> None:
    messages = [message(1, ANN, "hi"), message(2, BOT, "hello")]
    whole = {"guild": {}, "channel": {}, "exportedAt": "2023", "messages": messages}
    ordered = {first: whole.pop(first), **whole}
    path = tmp_path / "d.json"
    path.write_text(json.dumps(ordered))
    assert texts(path) == [[("user", "hi"), ("assistant", "hello")]]


def test_a_discord_export_cut_off_keeps_what_is_whole(tmp_path: Path) -> None:
    messages = [message(i, (ANN, BOT)[i % 2], f"text {i}") for i in range(20)]
    path = export(tmp_path / "d.json", messages)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"text 15")])
    assert texts(path) == [
        [("user", f"text {i}"), ("assistant", f"text {i + 1}")] for i in range(0, 14, 2)
    ]
    (lost,) = [item for item in read(path) if isinstance(item, Lost)]
    assert lost.reason == "cut off in mid-string"


def test_discord_remembers_a_bounded_number_of_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from epigone.corpus import discord

    monkeypatch.setattr(discord, "WINDOW", 3)
    messages = [message(i, ANN, f"q{i}") for i in range(6)]
    messages += [message(6, BOT, "late", **reply_to(0)), message(7, BOT, "soon", **reply_to(4))]
    path = export(tmp_path / "d.json", messages)
    assert texts(path) == [[("user", "q4"), ("assistant", "soon")]]
    assert reasons(path).count("answers a message that is not there") == 1


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [
        (["prompt", "response"], ","),
        (["id", "Question", "Answer", "topic"], "\t"),
        (["instruction", "completion"], ";"),
    ],
)
def test_tables_of_prompts_and_replies(tmp_path: Path, header: list[str], delimiter: str) -> None:
    path = tmp_path / "t.csv"
    pairs = [("a, b", 'said "x"\nand more'), ("ü\t;", "ok"), ("", "")]
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        out = csv.writer(file, delimiter=delimiter)
        out.writerow(header)
        for prompt, reply in pairs:
            row = ["x"] * len(header)
            row[-2 if len(header) == 2 else 1], row[1 if len(header) == 2 else 2] = prompt, reply
            out.writerow(row)
    assert texts(path) == [[("user", p), ("assistant", r)] for p, r in pairs]


def test_a_broken_table_loses_only_what_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(
        b"prompt,response\n"
        b"one,1\n"
        b"two,2,too many\n"
        b"bad \xff byte,3\n"
        b"nul \x00 byte,4\n"
        b'"never closed,5\n'
        b"six,6\n"
        b"seven,7\n"
    )
    assert [turns[0][1] for turns in texts(path)] == ["one", "six", "seven"]
    assert reasons(path) == ["3 fields under a header of 2", "invalid UTF-8", "NUL character"]
    (lost,) = [item for item in read(path) if isinstance(item, Lost)]
    data = path.read_bytes()
    assert data[lost.offset : lost.offset + lost.bytes] == b'"never closed,5\n'


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\x00")),
            st.text(st.characters(codec="utf-8", exclude_characters="\x00")),
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(",\t;"),
)
@settings(deadline=None)
def test_a_table_that_the_standard_library_writes_is_read_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]], delimiter: str
) -> None:
    path = tmp_path_factory.mktemp("csv") / "t"
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        out.writerow(["prompt", "response"])
        out.writerows(pairs)
    assert texts(path) == [[("user", p), ("assistant", r)] for p, r in pairs]


@given(st.binary(max_size=200), st.integers(0, 60))
@settings(max_examples=100, deadline=None)
def test_no_bytes_crash_the_table_reader(
    tmp_path_factory: pytest.TempPathFactory, dirt: bytes, where: int
) -> None:
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    data = b'prompt,response\n"one","1"\ntwo,2\n"three, 3",3\n'
    path.write_bytes(data[:where] + dirt + data[where:])
    try:
        found = read(path)
    except CorpusError:
        return
    for item in found:
        assert (item.offset if isinstance(item, Lost) else item.end) <= path.stat().st_size


def test_parquet_and_saved_datasets(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    rows = [
        {"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": "a"}],
         "embedding": [0.5] * 4}
        for i in range(150)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "r.parquet", row_group_size=40)
    data = Dataset.from_list(rows)
    data.save_to_disk(tmp_path / "saved")
    DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(tmp_path / "dict")
    expected = [[("user", f"q{i}"), ("assistant", "a")] for i in range(150)]
    assert texts(tmp_path / "r.parquet") == expected
    for folder in ("saved", "dict"):
        ((file,), _) = files_in(tmp_path / folder)
        assert texts(file) == expected
        assert read(file)[-1].end == 150  # type: ignore[union-attr]
    plain = pa.Table.from_pylist([{"Prompt": "p", "Response": "r"}, {"Prompt": None}])
    pq.write_table(plain, tmp_path / "p.parquet")
    assert texts(tmp_path / "p.parquet") == [[("user", "p"), ("assistant", "r")]]
    assert reasons(tmp_path / "p.parquet") == ["prompt or reply is not a text"]


def test_a_broken_row_group_costs_its_rows_and_a_cut_file_is_refused(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {i} " * 20, "response": f"answer {i}"} for i in range(300)]
    path = tmp_path / "r.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=100, compression="gzip")
    data = bytearray(path.read_bytes())
    with pq.ParquetFile(path) as file:
        column = file.metadata.row_group(1).column(0)
        begin = column.dictionary_page_offset or column.data_page_offset
        size = column.total_compressed_size
    data[begin + 30 : begin + size - 1] = b"\xff" * (size - 31)
    path.write_bytes(bytes(data))
    kept = [turns[1][1] for turns in texts(path)]
    assert kept == [f"answer {i}" for i in (*range(100), *range(200, 300))]
    (lost,) = [item for item in read(path) if isinstance(item, Lost)]
    assert (lost.offset, lost.rows) == (100, 100)
    path.write_bytes(bytes(data[:-100]))
    with pytest.raises(CorpusError, match="has lost its index"):
        read(path)


def test_no_damage_to_an_arrow_file_ends_the_process(tmp_path: Path) -> None:
    table = pa.table(
        {"prompt": [f"q{i}" for i in range(40)], "response": ["a" * i for i in range(40)]}
    )
    rng = random.Random(0)
    for opened in (pa.ipc.new_stream, pa.ipc.new_file):
        path = tmp_path / "f.arrow"
        with opened(path, table.schema) as out:
            for batch in table.to_batches(10):
                out.write_batch(batch)
        whole = path.read_bytes()
        assert len(texts(path)) == 40
        for size in range(len(whole) - 1, 0, -97):
            path.write_bytes(whole[:size])
            with suppress(CorpusError):
                found = read(path)
                assert sum(isinstance(item, Row) for item in found) % 10 == 0
                assert (
                    any(isinstance(item, Lost) and item.bytes for item in found)
                    or size > len(whole) - 400
                )
        for _ in range(300):
            data = bytearray(whole)
            at = rng.randrange(8, len(data) - 8)
            data[at : at + 4] = rng.randbytes(4)
            path.write_bytes(bytes(data))
            with suppress(CorpusError):
                read(path)


def test_dates_that_are_none_cost_their_row(tmp_path: Path) -> None:
    times = pa.array([0, 9 * 10**16, 5], pa.timestamp("ms"))
    rows = {"prompt": list("abc"), "response": list("xyz"), "date": times}
    pq.write_table(pa.table(rows), tmp_path / "f.parquet")
    assert [t[0][1] for t in texts(tmp_path / "f.parquet")] == ["a", "c"]
    (reason,) = reasons(tmp_path / "f.parquet")
    assert "unreadable row" in reason


def test_a_folder_is_all_its_data_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("z.jsonl", "a.json.gz", "b/c.csv", "notes.txt", ".hidden.json", "x.py"):
        (tmp_path / name).touch()
    found, out = files_in(tmp_path)
    assert [p.relative_to(tmp_path).as_posix() for p in found] == [
        "a.json.gz",
        "b/c.csv",
        "z.jsonl",
    ]
    assert {p.name for p, _ in out} == {"notes.txt", "x.py"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="no data files"):
        files_in(tmp_path / "empty")


def test_of_a_folder_with_splits_only_train_is_read(tmp_path: Path) -> None:
    for name in ("train-0.parquet", "test-0.parquet", "validation.jsonl", "testament.json"):
        (tmp_path / name).touch()
    found, out = files_in(tmp_path)
    assert [p.name for p in found] == ["testament.json", "train-0.parquet"]
    assert {p.name for p, _ in out} == {"test-0.parquet", "validation.jsonl"}
    assert {why for _, why in out} == {"another split than train"}


def test_a_named_format_goes_before_the_content(tmp_path: Path) -> None:
    value = [{"question": "q", "answer": "a", "chatgpt_answers": ["b"]}]
    path = put(tmp_path / "f.json", value)
    assert texts(path) == [[("user", "q"), ("assistant", "b")]]
    assert texts(path, "pairs") == [[("user", "q"), ("assistant", "a")]]
    with pytest.raises(UnknownName, match="did you mean 'sharegpt'"):
        read(path, "sharegbt")


def test_a_file_that_unpacks_to_far_too_much_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressed, "FREE", 1 << 20)
    path = tmp_path / "bomb.json.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(b'[{"messages": [{"role": "user", "content": "')
        for _ in range(60):
            file.write(b"a" * (1 << 20))
    with pytest.raises(CorpusError, match="unpacks to more than 200 times its size") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_one_field_without_end_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_LONGEST", 1 << 12)
    path = tmp_path / "t.csv"
    rows = "".join(f"q{i},{'x' * 60}\n" for i in range(200))
    path.write_text(f'prompt,response\n"open,1\n{rows}')
    found = read(path)
    assert [type(item) for item in found] == [Lost, *[Row] * 200]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
SEEDS: dict[str, dict[str, Any]] = {
    "sharegpt": {"conversations": [{"from": "human", "value": "q"}], "tools": "t", "id": "a_1"},
    "openai": {"messages": [{"role": "user", "content": ["x"], "tool_calls": []}], "created": 1},
    "alpaca": {"instruction": "i", "input": "x", "output": "o", "history": [["a", "b"]]},
    "hc3": {"question": "q", "chatgpt_answers": ["a"], "human_answers": [], "source": "s"},
    "discord": message(1, BOT, "", reference={"messageId": "0"}, embeds=[{"fields": []}]),
    "pairs": {"prompt": "p", "response": "r", "system": "s"},
}


@pytest.mark.parametrize("name", SEEDS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_values_of_any_type_in_any_place_are_rows_or_counted(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    def spoilt(value: Any) -> Any:
        if data.draw(st.integers(0, 5)) == 0:
            return data.draw(json_values)
        if isinstance(value, dict):
            return {k: spoilt(v) for k, v in value.items() if data.draw(st.integers(0, 9))}
        return [spoilt(v) for v in value] if isinstance(value, list) else value

    rows = [spoilt(SEEDS[name]) for _ in range(3)]
    path = put(tmp_path_factory.mktemp("spoilt") / "f.json", rows)
    found = read(path, name)
    assert not any(isinstance(item, Lost) for item in found)
    assert sum(item.taken for item in found if not isinstance(item, Lost)) == 3


@given(st.integers(0, 2_000), st.binary(min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_no_damage_to_a_parquet_file_crashes_the_reader(
    tmp_path_factory: pytest.TempPathFactory, where: int, dirt: bytes
) -> None:
    path = tmp_path_factory.mktemp("parquet") / "f.parquet"
    rows = [{"prompt": f"q{i}", "response": "a" * i} for i in range(60)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=20)
    data = bytearray(path.read_bytes())
    at = where % len(data)
    data[at : at + len(dirt)] = dirt
    path.write_bytes(bytes(data))
    try:
        found = read(path)
    except CorpusError:
        return
    assert len([item for item in found if not isinstance(item, Lost)]) <= 60


def test_a_turn_of_fifty_megabytes_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    with open(path, "w") as file:
        file.write('[{"messages": [{"role": "user", "content": "')
        for _ in range(50):
            file.write("word " * (1 << 18))
        file.write('"}]}, {"messages": [{"role": "user", "content": "q"}]}]')
    first, second = read(path)
    assert isinstance(first, Row)
    assert isinstance(second, Row)
    assert len(first.turns[0].content) == 5 * 50 * (1 << 18)
