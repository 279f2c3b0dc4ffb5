from __future__ import annotations

import contextlib
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigone.errors import BenchmarkError
from epigone.evaluation.original import read_humaneval, read_mmlu, read_nq_open

from .benchmark_files import NQ, PROBLEMS, QUESTIONS, write_humaneval, write_mmlu, write_nq

SHARED = Path(__file__).parents[3] / "shared/data"


def test_both_layouts_of_mmlu_are_the_same_rows(tmp_path: Path) -> None:
    one = read_mmlu(write_mmlu(tmp_path / "a", header=True))
    other = read_mmlu(write_mmlu(tmp_path / "b" / "data", header=False).parent)
    assert one == other
    test = one["metals"]["test"]
    assert [(r["question"], *r["choices"], r["answer"]) for r in test] == QUESTIONS
    assert len({r["id"] for r in test}) == len(QUESTIONS)
    assert [r["id"] for r in one["metals"]["dev"]] == [r["id"] for r in test[:5]]


def test_names_do_not_depend_on_order_and_repeats_have_their_own(tmp_path: Path) -> None:
    write_mmlu(tmp_path, header=False)
    file = tmp_path / "test/metals_test.csv"
    names = [r["id"] for r in read_mmlu(tmp_path)["metals"]["test"]]
    lines = gzip.decompress(gzip.compress(file.read_bytes())).decode().split("\r\n")
    file.write_text("\r\n".join([lines[-2], lines[0], lines[0], ""]), newline="")
    again = [r["id"] for r in read_mmlu(tmp_path)["metals"]["test"]]
    assert again == [names[-1], names[0], f"{names[0]}-2"]


def test_a_question_called_question_is_no_header(tmp_path: Path) -> None:
    write_mmlu(tmp_path, header=False)
    file = tmp_path / "test/metals_test.csv"
    file.write_text("what,a,b,c,d,A\n" + "question,a,b,c,d,B\n")
    assert len(read_mmlu(tmp_path)["metals"]["test"]) == 2


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("only,five,cells,in,it", "row 2 is not a question"),
        ("what,a,b,c,d,E", "row 2 is not a question"),
        ("what,a,b,c,d,4", "row 2 is not a question"),
        ("what,a,b,c,d,", "row 2 is not a question"),
        ("\udcff,a,b,c,d,A", "cannot be read"),
    ],
)
def test_other_layouts_of_mmlu_are_refused_with_their_place(
    line: str, what: str, tmp_path: Path
) -> None:
    write_mmlu(tmp_path, header=False)
    file = tmp_path / "test/metals_test.csv"
    file.write_bytes(f"what,a,b,c,d,A\n{line}\n".encode(errors="surrogateescape"))
    with pytest.raises(BenchmarkError, match=what) as told:
        read_mmlu(tmp_path)
    assert "metals_test.csv" in str(told.value)
    assert "\n" not in str(told.value)


def test_missing_files_of_mmlu_are_named(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no MMLU here"):
        read_mmlu(tmp_path)
    write_mmlu(tmp_path, header=True)
    dev = tmp_path / "dev/metals_dev.csv"
    text = dev.read_text()
    dev.write_text("\n".join(text.split("\n")[:2]))
    with pytest.raises(BenchmarkError, match=r"examples, 5 are shown .*metals_dev\.csv"):
        read_mmlu(tmp_path)
    dev.unlink()
    with pytest.raises(BenchmarkError, match=r"no examples for MMLU's metals: .*metals_dev\.csv"):
        read_mmlu(tmp_path)
    dev.write_text(text)
    (tmp_path / "test/metals_test.csv").write_text("")
    with pytest.raises(BenchmarkError, match="no questions"):
        read_mmlu(tmp_path)


def test_nq_open_by_file_and_by_folder(tmp_path: Path) -> None:
    file = write_nq(tmp_path)
    rows = read_nq_open(file)
    assert rows == read_nq_open(tmp_path)
    assert [{k: r[k] for k in ("question", "answer")} for r in rows] == NQ
    (tmp_path / "NQ-open.efficientqa.dev.1.1.jsonl").write_text("{}")
    with pytest.raises(BenchmarkError, match="several files"):
        read_nq_open(tmp_path)


@pytest.mark.parametrize(
    "line", ['{"question": "a"}', '{"question": "", "answer": ["b"]}', "[]", "{", "\x00",
             '{"question": "a", "answer": []}', '{"question": "a", "answer": "b"}', "[" * 100_000]
)  # fmt: skip
def test_other_layouts_of_nq_open_are_refused_with_their_line(line: str, tmp_path: Path) -> None:
    file = write_nq(tmp_path)
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(BenchmarkError, match=r"NQ-open\.dev\.jsonl:4") as told:
        read_nq_open(file)
    assert len(str(told.value)) < 1000


def test_humaneval_plain_and_packed(tmp_path: Path) -> None:
    file = write_humaneval(tmp_path / "a")
    rows = read_humaneval(file)
    assert [r["id"] for r in rows] == [p["task_id"] for p in PROBLEMS]
    plain = tmp_path / "HumanEval.jsonl"
    plain.write_bytes(gzip.decompress(file.read_bytes()))
    assert read_humaneval(plain) == rows == read_humaneval(tmp_path) == read_humaneval(file.parent)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(BenchmarkError, match="cannot be read"):
        read_humaneval(file)
    plain.write_text(json.dumps(PROBLEMS[0]) + "\n" + json.dumps(PROBLEMS[0]))
    with pytest.raises(BenchmarkError, match="two problems of one task_id: HumanEval/0"):
        read_humaneval(plain)
    plain.write_text(json.dumps({k: v for k, v in PROBLEMS[0].items() if k != "test"}))
    with pytest.raises(BenchmarkError, match="no test in this problem"):
        read_humaneval(plain)


@given(st.binary(max_size=200))
def test_any_bytes_are_rows_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "any.jsonl").write_bytes(data)
    (folder / "any.jsonl.gz").write_bytes(data)
    write_mmlu(folder, header=False)
    (folder / "test/metals_test.csv").write_bytes(data)
    for read, path in (
        (read_nq_open, folder / "any.jsonl"),
        (read_humaneval, folder / "any.jsonl.gz"),
        (read_mmlu, folder),
    ):
        with contextlib.suppress(BenchmarkError):
            read(path)  # type: ignore[operator]


@pytest.mark.skipif(not (SHARED / "mmlu").is_dir(), reason="needs ../shared/data")
def test_the_real_files() -> None:
    subjects = read_mmlu(SHARED / "mmlu")
    assert len(subjects) == 8
    assert len(subjects["anatomy"]["test"]) == 135
    assert all(len(s["dev"]) == 5 for s in subjects.values())
    assert len(read_nq_open(SHARED)) == 3_610
