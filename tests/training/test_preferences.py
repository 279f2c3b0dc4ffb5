from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from epigone.errors import CorpusError
from epigone.schema import Message
from epigone.training.preferences import Method, Pair, Revision, read

ASKED = Message("user", "What is a river?")
SYSTEM = Message("system", "Be brief.")
PAIR = Pair((ASKED,), "Water that flows.", "No idea.")


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def told(speaker: str, value: str) -> dict[str, str]:
    return {"from": speaker, "value": value}


USER, GOOD, BAD = (
    said("user", ASKED.content),
    said("assistant", PAIR.chosen),
    said("assistant", PAIR.rejected),
)
TEXT = {"chosen": PAIR.chosen, "rejected": PAIR.rejected}
TURNS = {"chosen": [GOOD], "rejected": [BAD]}
FORMS: dict[str, dict[str, Any]] = {
    "trl text": {"prompt": ASKED.content, **TEXT},
    "trl messages": {"prompt": [USER], **TURNS},
    "trl implicit messages": {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "ultrafeedback": {
        "prompt": ASKED.content,
        "messages": [USER, GOOD],
        "chosen": [USER, GOOD],
        "rejected": [USER, BAD],
        "score_chosen": 8.0,
    },
    "axolotl": {"messages": [USER], "chosen": GOOD, "rejected": BAD},
    "openai": {
        "input": {"messages": [USER], "tools": []},
        "preferred_output": [GOOD],
        "non_preferred_output": [BAD],
    },
    "openai parts": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": ASKED.content}]}],
        **TURNS,
    },
    "llama-factory": {
        "conversations": [told("human", ASKED.content)],
        "chosen": told("gpt", PAIR.chosen),
        "rejected": told("gpt", PAIR.rejected),
    },
    "llama-factory alpaca": {"instruction": "What is", "input": "a river?", **TEXT},
    "ranked": {"prompt": ASKED.content, "answers": [PAIR.rejected, PAIR.chosen], "ranking": [1, 0]},
    "scored": {"messages": [USER], "answers": [PAIR.rejected, PAIR.chosen], "scores": [-1, 2.5]},
    "hh": {
        "chosen": f"\n\nHuman: {ASKED.content}\n\nAssistant: {PAIR.chosen}",
        "rejected": f"\n\nHuman: {ASKED.content}\n\nAssistant: {PAIR.rejected}",
    },
}


def lines(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize("form", FORMS)
def test_a_pair_is_the_same_in_every_format(form: str, tmp_path: Path) -> None:
    found = read(lines(tmp_path, FORMS[form]), "dpo")
    (pair,) = found.examples
    assert isinstance(pair, Pair)
    assert " ".join(pair.prompt[0].content.split()) == ASKED.content
    assert (pair.prompt[0].role, *pair.answers) == ("user", *PAIR.answers)
    assert found.rows == 1 and not found.skipped


def test_the_system_text_and_earlier_turns_stay_in_the_prompt(tmp_path: Path) -> None:
    earlier = [told("human", "Hello"), told("gpt", "Hi!"), told("human", ASKED.content)]
    rows = (
        {
            "conversations": [told("system", SYSTEM.content), *earlier],
            "chosen": told("gpt", PAIR.chosen),
            "rejected": told("gpt", PAIR.rejected),
        },
        {"system": SYSTEM.content, "question": ASKED.content, **TEXT},
        {
            "system": SYSTEM.content,
            "prompt": ASKED.content,
            "chosen": [USER, GOOD],
            "rejected": [USER, BAD],
        },
    )
    first, second, third = read(lines(tmp_path, *rows), "dpo").examples
    hello = (Message("user", "Hello"), Message("assistant", "Hi!"))
    assert first == Pair((SYSTEM, *hello, ASKED), *PAIR.answers)
    assert second == third == Pair((SYSTEM, ASKED), *PAIR.answers)


@given(st.text("ab c", max_size=8), st.text("ab c", max_size=6), st.text("ab c", max_size=6))
@settings(max_examples=100, deadline=None)
def test_an_implicit_prompt_is_the_one_that_trl_finds(start: str, one: str, other: str) -> None:
    trl = pytest.importorskip("trl")
    from collections import Counter

    from epigone.training.feedback_files import Unusable
    from epigone.training.preferences import _plain_pair

    row = {"chosen": start + one, "rejected": start + other}
    # Of texts that begin each other, TRL counts a letter too many to the answers.
    assume(not any(a.startswith(b) for a, b in itertools.permutations(row.values())))
    theirs = {key: text.strip() for key, text in trl.extract_prompt(dict(row)).items()}
    try:
        (pair,) = _plain_pair(row, Counter())
    except Unusable:
        assert not all(theirs.values()) or theirs["chosen"] == theirs["rejected"]
        return
    assert isinstance(pair, Pair)
    assert (pair.prompt[0].content, *pair.answers) == (
        theirs["prompt"], theirs["chosen"], theirs["rejected"],
    )  # fmt: skip


@given(st.lists(st.integers(0, 3), min_size=2, max_size=6))
@settings(max_examples=60, deadline=None)
def test_a_scored_list_gives_every_pair_of_unequal_score_once(
    tmp_path_factory: pytest.TempPathFactory, scores: list[int]
) -> None:
    answers = [f"answer {i}" for i in range(len(scores))]
    row = {"prompt": "p", "answers": answers, "scores": scores}
    path = lines(tmp_path_factory.mktemp("s"), row, FORMS["trl text"])
    found = [e.answers for e in read(path, "dpo").examples[:-1]]
    expected = {
        (answers[i], answers[k])
        for i, k in itertools.permutations(range(len(scores)), 2)
        if scores[i] > scores[k]
    }
    assert set(found) == expected
    assert len(found) == len(expected)


def test_a_ranking_names_answers_from_the_best_on_and_counts_from_0_or_1(tmp_path: Path) -> None:
    for ranking in ([2, 0, 1], [3, 1, 2]):
        row = {"prompt": "p", "answers": ["b", "c", "a"], "ranking": ranking}
        found = [e.answers for e in read(lines(tmp_path, row), "dpo").examples]
        assert found == [("a", "b"), ("a", "c"), ("b", "c")]


def test_revisions_are_learnt_from_without_the_draft(tmp_path: Path) -> None:
    rows = [
        {"prompt": ASKED.content, "draft": "a", "critique": "too short", "revision": "aa"},
        {"messages": [USER], "answer": "a", "critique": "too short", "revision": "aa"},
        {"prompt": ASKED.content, "draft": "a", "critique": "fine", "revision": " a "},
        FORMS["trl text"],
    ]
    found = read(lines(tmp_path, *rows), "revise")
    assert found.examples == [Revision((ASKED,), "aa")] * 2
    assert found.rows == 4
    assert found.skipped == {
        "equal answers": 1,
        "of the format pair, which revise does not learn from": 1,
    }


BROKEN: list[tuple[Any, str]] = [
    ({"prompt": "p", "chosen": "a", "rejected": " a"}, "equal answers"),
    ({"prompt": "p", "chosen": "a", "rejected": " \n"}, "an empty text"),
    ({"prompt": " ", "chosen": "a", "rejected": "b"}, "no prompt"),
    ({"prompt": [], "chosen": "a", "rejected": "b"}, "no prompt"),
    ({"chosen": "a", "rejected": "b"}, "no prompt"),
    ({"prompt": [USER, GOOD], "chosen": "a", "rejected": "b"}, "no prompt"),
    ({"prompt": "p", "chosen": 1, "rejected": "b"}, "a turn of a wrong type"),
    ({"prompt": 7, "chosen": "a", "rejected": "b"}, "a prompt or answer of a wrong type"),
    (
        {"prompt": "p", "chosen": "a\x00", "rejected": "b"},
        "a NUL character or half a surrogate pair",
    ),
    (
        {"prompt": "p", "chosen": "\ud800", "rejected": "b"},
        "a NUL character or half a surrogate pair",
    ),
    ({"prompt": "p", "chosen": [USER], "rejected": [BAD]}, "no answer of an assistant"),
    ({"prompt": [{"role": "king", "content": "x"}], **TEXT}, "a turn of an unknown role"),
    (
        {"chosen": [USER, GOOD], "rejected": [said("user", "Else?"), BAD]},
        "answers to different conversations",
    ),
    ({"prompt": "p", "answers": ["a", "b"], "scores": [1, 1]}, "all answers of one rank"),
    (
        {"prompt": "p", "answers": ["a", "b"], "scores": [1, True]},
        "scores that are not one number for each answer",
    ),
    (
        {"prompt": "p", "answers": ["a", "b"], "scores": [1, float("nan")]},
        "scores that are not one number for each answer",
    ),
    (
        {"prompt": "p", "answers": ["a", "b"], "scores": [1, 10**400]},
        "scores that are not one number for each answer",
    ),
    (
        {"prompt": "p", "answers": ["a", "b"], "ranking": [0, 0]},
        "a ranking that does not name each answer once",
    ),
    ({"prompt": "p", "answers": ["a"] * 99, "ranking": [0]}, "not 2 to 64 answers"),
    ({"text": "hello"}, "of no known format"),
    ([1, 2], "not an object"),
]


@pytest.mark.parametrize(("row", "reason"), BROKEN)
def test_what_cannot_be_used_is_counted_with_its_reason(
    row: Any, reason: str, tmp_path: Path
) -> None:
    found = read(lines(tmp_path, FORMS["trl text"], row), "dpo")
    assert found.examples == [PAIR]
    assert found.skipped == {reason: 1}
    with pytest.raises(CorpusError) as caught:
        read(lines(tmp_path, row), "dpo")
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def as_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("\n\n".join(map(json.dumps, rows)) + "\n")


def as_array(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("\ufeff " + json.dumps(rows, indent=2))


def as_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.parametrize("write", [as_lines, as_array, as_parquet])
def test_every_kind_of_file_gives_the_same_rows_in_order(
    write: Callable[[Path, list[dict[str, Any]]], None], tmp_path: Path
) -> None:
    rows = [{"prompt": f"p{i}", "chosen": f"a{i}", "rejected": f"b{i}"} for i in range(600)]
    path = tmp_path / "data"
    write(path, rows)
    found = read(path, "dpo")
    assert [(e.prompt[0].content, *e.answers) for e in found.examples] == [
        (f"p{i}", f"a{i}", f"b{i}") for i in range(600)
    ]
    assert len(read(path, "dpo", cap=7).examples) == 7


def test_hostile_rows_cost_themselves_alone(tmp_path: Path) -> None:
    good = json.dumps(FORMS["trl text"])
    deep = '{"prompt": "]\\"}", "chosen": ' + "[" * 200_000 + "]" * 200_000 + "}"
    number = '{"prompt": "p", "chosen": "a", "rejected": ' + "9" * 5_000 + "}"
    (tmp_path / "a.json").write_text(f"[{good}, {deep}, {number}, {good}]")
    found = read(tmp_path / "a.json", "dpo")
    assert found.examples == [PAIR, PAIR]
    assert found.skipped == {"nested too deeply": 1, "broken JSON": 1}
    torn = [good, deep, number, good[:-9], good]
    (tmp_path / "a.jsonl").write_bytes("\n".join(torn).encode() + b'\n{"a": "\xff"}')
    found = read(tmp_path / "a.jsonl", "dpo")
    assert found.examples == [PAIR, PAIR]
    assert found.skipped == {"nested too deeply": 1, "broken JSON": 2, "not UTF-8": 1}


def test_a_file_that_is_cut_off_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    as_array(path, [FORMS["trl text"]] * 3)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CorpusError, match=r"a\.json.*at character") as caught:
        read(path, "dpo")
    assert "\n" not in str(caught.value)
    as_parquet(path, [FORMS["trl text"]] * 3)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CorpusError, match="Parquet"):
        read(path, "dpo")


def test_a_folder_gives_its_training_split(tmp_path: Path) -> None:
    for name in ("train-1.jsonl", "train-0.jsonl", "test-0.jsonl", "notes.txt", ".hidden.jsonl"):
        lines(tmp_path, {**FORMS["trl text"], "prompt": name}).rename(tmp_path / name)
    found = read(tmp_path, "dpo")
    assert [e.prompt[0].content for e in found.examples] == ["train-0.jsonl", "train-1.jsonl"]


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["a", "b", "", "p"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.fixed_dictionaries(
            {},
            optional=dict.fromkeys(
                ["role", "from", "content", "value", "messages", "text", "tool_calls"], inner
            ),
        )
        | st.sampled_from([USER, GOOD, BAD, [USER], [GOOD], [USER, GOOD], [USER, BAD]])
    ),
    max_leaves=6,
)
KEYS = (
    *(
        "prompt",
        "messages",
        "conversations",
        "instruction",
        "input",
        "system",
        "chosen",
        "rejected",
    ),
    *("preferred_output", "non_preferred_output", "answers", "ranking", "scores"),
    *("revision", "critique", "draft"),
)


@given(
    st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, ANY)) | ANY, max_size=4),
    st.sampled_from(["dpo", "revise"]),
)
@settings(max_examples=100, deadline=None)
def test_no_value_breaks_the_reader_and_every_row_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], method: Method
) -> None:
    path = lines(tmp_path_factory.mktemp("any"), *rows)
    try:
        found = read(path, method)
    except CorpusError:
        return
    assert found.rows == len(rows)
    # Of a ranked list, pairs are skipped; rows of the other formats are used or skipped whole.
    assert sum(found.formats.values()) + sum(found.skipped.values()) >= len(rows)
    for example in found.examples:
        assert example.prompt[-1].role in ("user", "tool")
        assert all(text.strip() for text in example.answers)
        assert len({text.strip() for text in example.answers}) == len(example.answers)


@given(st.binary(max_size=60))
@settings(max_examples=50, deadline=None)
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "x"
    for start in (b"", b"[", b"PAR1", b'[{"'):
        path.write_bytes(start + data)
        with pytest.raises(CorpusError) as caught:
            read(path, "dpo")
        assert "\n" not in str(caught.value)
