from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epigone.corpus import values
from epigone.corpus.readers import File
from epigone.corpus.rows import Invalid, Row
from epigone.corpus.values import Lost
from epigone.errors import CorpusError


def turn(speaker: str, text: Any) -> dict[str, Any]:
    return {"from": speaker, "value": text}


def read(path: Path, format: str = "") -> list[Row | Invalid | Lost]:
    with File(path, format) as file:
        return list(file)


def rows(path: Path) -> list[Row]:
    return [item for item in read(path) if isinstance(item, Row)]


def texts(path: Path) -> list[list[tuple[str, str]]]:
    return [[(m.role, m.content) for m in row.turns] for row in rows(path)]


DIALOGUE = [("user", "Grüße 🌍?"), ("assistant", 'a "quoted" \\ answer\n')]
SHAREGPT = {
    "id": "x_0",
    "conversations": [turn("human", DIALOGUE[0][1]), turn("gpt", DIALOGUE[1][1])],
}
OPENAI = {"messages": [{"role": role, "content": text} for role, text in DIALOGUE]}
ITEMS = {"items": SHAREGPT["conversations"]}


@pytest.mark.parametrize("value", [SHAREGPT, OPENAI, ITEMS])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("indent", [None, 2])
def test_every_shape_gives_the_same_dialogue(
    tmp_path: Path, value: Any, bom: bytes, indent: int | None
) -> None:
    path = tmp_path / "f"
    path.write_bytes(bom + json.dumps([value, value], indent=indent).encode())
    assert texts(path) == [DIALOGUE, DIALOGUE]
    lines = "\r\n".join([json.dumps(value, ensure_ascii=False, indent=indent)] * 3)
    path.write_bytes(bom + lines.encode())
    assert texts(path) == [DIALOGUE] * 3


@pytest.mark.parametrize(
    ("speaker", "role"),
    [
        ("human", "user"),
        ("user", "user"),
        ("gpt", "assistant"),
        ("chatgpt", "assistant"),
        ("bing", "assistant"),
        ("bard", "assistant"),
        ("assistant", "assistant"),
        ("function_call", "assistant"),
        ("observation", "tool"),
        ("tool", "tool"),
        ("system", "system"),
    ],
)
def test_role_names(tmp_path: Path, speaker: str, role: str) -> None:
    path = tmp_path / "f"
    path.write_text(json.dumps([{"conversations": [turn(speaker, "t")]}]))
    assert texts(path) == [[(role, "t")]]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"3", "not an object"),
        (b'"text"', "not an object"),
        (b"null", "not an object"),
        (b"[1, 2]", "not an object"),
        (b'{"a": 1}', "no list of turns"),
        (b'{"conversations": {"from": "human"}}', "no list of turns"),
        (b'{"conversations": ["hi"]}', "turn is not an object"),
        (b'{"conversations": [{"from": "human"}]}', "turn without a role or a text"),
        (b'{"conversations": [{"from": 3, "value": "x"}]}', "turn without a role or a text"),
        (b'{"conversations": [{"from": "gpt", "value": [3]}]}', "turn without a role or a text"),
        (b'{"conversations": [], "conversations": []}', "duplicate key"),
        (b'{"conversations": [{"from": "gpt", "value": "a", "value": "b"}]}', "duplicate key"),
        (b'{"conversations": [{"from": "ghost", "value": "x"}]}', "unknown role"),
        (b'{"conversations": [{"from": "gpt", "value": "a\\u0000b"}]}', "NUL character"),
        (b'{"conversations": [{"from": "gpt", "value": "a\x00b"}]}', "NUL character"),
        (b'{"conversations": [{"from": "gpt", "value": "a\\ud800b"}]}', "lone surrogate"),
        (b'{"conversations": [{"from": "gpt", "value": "a\xff\xfeb"}]}', "invalid UTF-8"),
        (b'{"conversations": [{"from": "gpt", "value": "a\xed\xa0\x80b"}]}', "invalid UTF-8"),
    ],
)
def test_an_invalid_row_is_told_with_its_reason_and_costs_no_neighbour(
    tmp_path: Path, value: bytes, reason: str
) -> None:
    good = json.dumps(SHAREGPT).encode()
    path = tmp_path / "f"
    for data in (b"[%s,%s,%s]" % (good, value, good), b"%s\n%s\n%s\n" % (good, value, good)):
        path.write_bytes(data)
        found = list(read(path))
        assert [type(item) for item in found] == [Row, Invalid, Row]
        assert isinstance(found[1], Invalid)
        assert found[1].reason == reason
        assert found[1].text.isascii()


def test_ids_tell_rows_with_one_id_apart_and_do_not_depend_on_other_rows(tmp_path: Path) -> None:
    path = tmp_path / "f"
    other = {"id": "x_0", "conversations": [turn("human", "other")]}
    path.write_text(json.dumps([SHAREGPT, other, OPENAI, {**OPENAI, "id": "a\x1b[0m"}]))
    first, second, third, fourth = (row.id for row in rows(path))
    assert first.startswith("x_0-")
    assert second.startswith("x_0-")
    assert first != second
    assert third == fourth  # a harmful id is as good as none
    path.write_text(json.dumps([other, SHAREGPT]))
    assert [row.id for row in rows(path)] == [second, first]


def test_continuations_and_other_teachers_are_marked(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text(
        json.dumps(
            [
                {"id": "abcdef7_0", "conversations": [turn("human", "q")]},
                {"id": "abcdef7_17", "conversations": [turn("human", "q")], "model": "gpt-4"},
                {"id": "identity_17", "conversations": [turn("human", "q"), turn("bard", "a")]},
            ]
        )
    )
    assert [(row.part, row.teacher) for row in rows(path)] == [
        (False, ""),
        (True, "gpt-4"),
        (False, "bard"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"   \n",
        b"id,text\n1,hello\n",
        b"[]",
        b"[1, 2, 3]",
        json.dumps([{"inspection": "i", "outcome": "o"}] * 300).encode(),
        "[{}]".encode("utf-16"),
        bytes(range(256)),
    ],
)
def test_a_file_of_no_known_format_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "strange.json"
    path.write_bytes(data)
    with pytest.raises(CorpusError, match=r"strange\.json is of no known format") as caught:
        list(read(path))
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_the_beginning_of_a_refused_file_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("abc" + "d" * 196 + "e" + "f" * 1000)
    with pytest.raises(CorpusError) as caught:
        list(read(path))
    assert "abc" + "d" * 196 + "e" in str(caught.value)
    assert "f" * 30 not in str(caught.value)


def small_file() -> bytes:
    value = [
        {"id": f"r{i}", "conversations": [turn("human", f"q{i} ü"), turn("gpt", 'a{"},{" \\')]}
        for i in range(3)
    ]
    return json.dumps(value, ensure_ascii=False, indent=1).encode()


def test_a_file_cut_at_any_byte_keeps_every_whole_conversation(tmp_path: Path) -> None:
    data = small_file()
    path = tmp_path / "f"
    path.write_bytes(data)
    whole = rows(path)
    # Where a conversation ends is found without the reader: JSON in front of it parses.
    for row in whole:
        json.loads(data[: row.end].decode() + "]")
    for cut in range(whole[0].end, len(data)):
        path.write_bytes(data[:cut])
        found = list(read(path))
        kept = [row for row in whole if row.end <= cut]
        assert found[: len(kept)] == kept
        (lost,) = found[len(kept) :]
        assert isinstance(lost, Lost)
        assert lost.reason.startswith("cut off")
        # Everything from the last whole conversation on is lost, but for what parts the two.
        assert lost.offset + lost.bytes == cut
        assert data[kept[-1].end : lost.offset].strip() in (b"", b",")


def test_where_and_what_was_lost(tmp_path: Path) -> None:
    data = small_file()
    path = tmp_path / "f"
    start = data.index(b'"r2"')
    path.write_bytes(data[: start + 60])
    lost = list(read(path))[-1]
    assert isinstance(lost, Lost)
    assert data[lost.offset :].startswith(b'{\n  "id": "r2"')
    assert lost.text.startswith('{\n  "id": "r2"')
    assert lost.reason == "cut off in mid-string"


@pytest.mark.parametrize("lines", [False, True])
def test_a_broken_row_costs_only_itself(tmp_path: Path, lines: bool) -> None:
    good = [json.dumps({"id": f"g{i}", **OPENAI}) for i in range(4)]
    broken = '{"id": "b", "conversations": [{"from": "human", "value": "x" "y"}]}'
    parts = [good[0], broken, good[1], good[2][:50], good[3]]
    path = tmp_path / "f"
    path.write_text("\n".join(parts) if lines else "[" + ",\n ".join(parts) + "]")
    found = list(read(path))
    assert [item.id[:2] if isinstance(item, Row) else type(item) for item in found] == [
        "g0",
        Lost,
        "g1",
        Lost,
        "g3",
    ]
    data = path.read_bytes()
    assert isinstance(found[1], Lost)
    assert data[found[1].offset :].startswith(b'{"id": "b"')
    assert broken in data[found[1].offset : found[1].offset + found[1].bytes].decode()


@pytest.mark.parametrize("hostile", ["[" * 100_000, "9" * 10_000, '{"a":' * 100_000])
def test_hostile_json_is_lost_and_nothing_else(tmp_path: Path, hostile: str) -> None:
    path = tmp_path / "f"
    path.write_text("[" + ",\n".join([json.dumps(OPENAI), hostile, json.dumps(SHAREGPT)]) + "]")
    found = list(read(path))
    assert [type(item) for item in found] == [Row, Lost, Row]


def test_text_behind_the_array_is_told(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(json.dumps([SHAREGPT]).encode() + b"\n garbage \n")
    row, lost = read(path)
    assert isinstance(row, Row)
    assert isinstance(lost, Lost)
    assert (lost.text.strip(), lost.bytes) == ("garbage", 9)


dirt = st.binary(max_size=40)


@given(dirt, st.integers(0, 400), st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_bytes_crash_the_reader_and_all_are_accounted_for(
    dirt: bytes, where: int, lines: bool
) -> None:
    good = [json.dumps({"id": f"g{i}", **ITEMS}).encode() for i in range(3)]
    data = b"\n".join(good) if lines else b"[" + b",\n".join(good) + b"]"
    data = data[:where] + dirt + data[where:]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "f"
        path.write_bytes(data)
        try:
            found = list(read(path))
        except CorpusError:
            return
    spans = [(i.offset, i.offset + i.bytes) for i in found if isinstance(i, Lost)]
    assert all(0 <= a <= b <= len(data) for a, b in spans)
    assert spans == sorted(spans)
    assert all(i.end <= len(data) for i in found if isinstance(i, Row | Invalid))


def test_values_across_the_reader_s_buffer_come_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(small_file())
    expected = list(read(path))
    for size in (1, 2, 3, 7, 64):
        monkeypatch.setattr(values, "_CHUNK", size)
        assert list(read(path)) == expected


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "f"
    line = json.dumps({"conversations": [turn("human", "x" * 2000), turn("gpt", "y" * 2000)]})

    def peak(n: int) -> int:
        with open(path, "w") as f:
            f.write("[" + ",\n".join([line] * n) + "]")
        tracemalloc.start()
        with File(path) as file:
            assert sum(1 for _ in file) == n
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    small, large = peak(1000), peak(4000)  # 4 and 16 MB
    assert large < 1.2 * small
    assert large < 8_000_000
