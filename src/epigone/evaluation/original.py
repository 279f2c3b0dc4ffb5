"""Benchmarks' own files: MMLU's csv in both layouts, NQ-open's jsonl, HumanEval's jsonl."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from epigone.errors import BenchmarkError

Row = dict[str, Any]
LETTERS = "ABCD"
SHOTS = 5
# A line of these files has some hundred bytes; an answer list of NQ-open, some thousand.
_LONGEST = 1 << 24


def read_mmlu(folder: Path) -> dict[str, dict[str, list[Row]]]:
    """Rows of MMLU by subject and split ("dev", "test"), in the order of the files.

    Two layouts are known: the original (no header, six columns, the answer A to D) and one with a
    header (question, four choices, the answer 0 to 3). A row has `id`, `subject`, `question`,
    `choices`, `answer` (0 to 3). Raises BenchmarkError for a missing file or another layout.
    """
    root = next((p for p in (folder, folder / "data") if (p / "test").is_dir()), None)
    if root is None:
        raise BenchmarkError(
            "no MMLU here", value=str(folder), fix="a folder with test/*_test.csv and dev/*_dev.csv"
        )
    found = {}
    for file in sorted((root / "test").glob("*_test.csv")):
        subject = file.name.removesuffix("_test.csv")
        shots = root / "dev" / f"{subject}_dev.csv"
        if not shots.is_file():
            raise BenchmarkError(f"no examples for MMLU's {subject}", value=str(shots))
        dev, test = (named_mmlu(subject, _mmlu_rows(f)) for f in (shots, file))
        if len(dev) < SHOTS:
            raise BenchmarkError(
                f"{len(dev)} examples, {SHOTS} are shown before each question", value=str(shots)
            )
        if not test:
            raise BenchmarkError("no questions in the file", value=str(file))
        found[subject] = {"dev": dev, "test": test}
    if not found:
        raise BenchmarkError("no *_test.csv in the folder", value=str(root / "test"))
    return found


def named_mmlu(subject: str, rows: Iterable[Row]) -> list[Row]:
    """Rows of one split of one subject, with names that their content gives."""
    name = _namer(subject)
    return [
        {
            "id": name([row["question"], *row["choices"]]),
            "subject": subject,
            "question": row["question"],
            "choices": list(row["choices"]),
            "answer": row["answer"],
        }
        for row in rows
    ]


def _mmlu_rows(file: Path) -> Iterator[Row]:
    for number, cells in enumerate(_csv(file), 1):
        if number == 1 and len(cells) == 6 and cells[0].strip().lower() == "question":
            continue
        answer = cells[5].strip().upper() if len(cells) == 6 else ""
        place = next(
            (p.index(answer) for p in (LETTERS, "0123") if len(answer) == 1 and answer in p), -1
        )
        if place < 0:
            raise BenchmarkError(
                f"{file}: row {number} is not a question, four choices, and A to D or 0 to 3",
                value=", ".join(cells)[:200],
            )
        yield {"question": cells[0], "choices": cells[1:5], "answer": place}


def _csv(file: Path) -> Iterator[list[str]]:
    try:
        with open(file, encoding="utf-8-sig", newline="") as f:
            yield from csv.reader(f)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BenchmarkError("a csv file that cannot be read", value=str(file),
                             fix=str(error)) from None  # fmt: skip


def read_nq_open(path: Path) -> list[Row]:
    """Rows of NQ-open: `id`, `question`, `answer`, a list of texts that are all right.

    `path` is the file or a folder with one `*.dev*.jsonl`. Raises BenchmarkError.
    """
    rows = []
    for place, row in json_lines(_one(path, ("*dev*.jsonl", "*.jsonl"), "NQ-open.dev.jsonl")):
        question, answer = row.get("question"), row.get("answer")
        if not _text(question) or not _texts(answer):
            raise BenchmarkError(
                f"{place}: not {{'question': text, 'answer': [text, …]}}", value=str(row)[:200]
            )
        rows.append(row)
    return named_nq_open(rows)


def named_nq_open(rows: Iterable[Row]) -> list[Row]:
    """Rows of NQ-open, with names that their questions give."""
    name = _namer("nq")
    return [
        {"id": name([r["question"]]), "question": r["question"], "answer": list(r["answer"])}
        for r in rows
    ]


def read_humaneval(path: Path) -> list[Row]:
    """Rows of HumanEval: `id`, `prompt`, `entry_point`, `test`, `canonical_solution`.

    `path` is the file, plain or gzipped, or a folder with it. Raises BenchmarkError.
    """
    wanted = ("task_id", "prompt", "entry_point", "test", "canonical_solution")
    rows = []
    found = _one(path, ("HumanEval*.jsonl.gz", "HumanEval*.jsonl"), "HumanEval.jsonl.gz")
    for place, row in json_lines(found):
        for key in wanted:
            if not isinstance(row.get(key), str):
                raise BenchmarkError(f"{place}: no {key} in this problem", value=str(row)[:200])
        rows.append({"id": row["task_id"], **{key: row[key] for key in wanted[1:]}})
    names = Counter(row["id"] for row in rows)
    if twice := [n for n, count in names.items() if count > 1]:
        raise BenchmarkError(f"{found}: two problems of one task_id", value=twice[0])
    return rows


def draw(seed: int, item: str) -> str:
    """What items are sorted by for a subset: every model's is the same, and grows with its size."""
    return hashlib.sha256(f"{seed}:{item}".encode()).hexdigest()


def _namer(prefix: str) -> Callable[[Sequence[str]], str]:
    """Names by content, so that another order or a part of the rows changes none of them."""
    seen: Counter[str] = Counter()

    def name(texts: Sequence[str]) -> str:
        digest = hashlib.sha256(json.dumps([prefix, *texts]).encode()).hexdigest()[:12]
        seen[digest] += 1
        again = f"-{seen[digest]}" if seen[digest] > 1 else ""
        return f"{prefix}-{digest}{again}"

    return name


def _one(path: Path, patterns: Iterable[str], usual: str) -> Path:
    if path.is_file():
        return path
    for pattern in patterns if path.is_dir() else ():
        files = sorted(path.glob(pattern))
        if len(files) > 1:
            raise BenchmarkError(
                "several files that could be meant", value=", ".join(f.name for f in files),
                fix="name the file",
            )  # fmt: skip
        if files:
            return files[0]
    raise BenchmarkError("no data of the benchmark here", value=str(path),
                         fix=f"a folder with {usual}, or the file itself")  # fmt: skip


def json_lines(file: Path) -> Iterator[tuple[str, Row]]:
    """Each object with its place; raises BenchmarkError for anything else, and for no line."""
    number = 0
    try:
        with gzip.open(file) if file.suffix == ".gz" else open(file, "rb") as f:
            while line := f.readline(_LONGEST):
                number += 1
                if line.strip():
                    row = json.loads(line.decode("utf-8-sig"))
                    if not isinstance(row, dict):
                        raise ValueError("no object")
                    yield f"{file}:{number}", row
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise BenchmarkError(f"{file}:{number or 1}: cannot be read", value=str(error)) from None
    if not number:
        raise BenchmarkError("an empty file", value=str(file))


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_text, value))
