"""The page on pandas: its blocks run on a finished study, and its list of columns is complete."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs/tables.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
INTERVAL = ("", "_low", "_high", "_n", "_note")


@pytest.mark.slow
def test_the_blocks_run_one_after_the_other(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(whole)
    names: dict[str, object] = {}
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        for block in BLOCKS:
            exec(compile(block.replace("runs/first", "runs/tiny"), "tables.md", "exec"), names)
    assert re.search(r"tiny:talk:\w+:s0 minus tiny on (facts|choices): [+-]0\.\d+", told.getvalue())
    # Two students and the base on four style metrics and two benchmarks, and a line of names.
    assert len(re.findall(r"^ *tiny", told.getvalue(), re.MULTILINE)) >= 3 * 6
    assert (whole / "families.svg").read_text().startswith("<svg")


@pytest.mark.slow
def test_the_list_has_every_table_and_every_column_in_order(whole: Path) -> None:
    listed = {}
    for name, columns in re.findall(r"^\| `(\w+\.csv)` \| [^|]+ \| (.+) \|$", PAGE, re.MULTILINE):
        plain = re.sub(r"\([^)]*\)", "", columns)
        listed[name] = [
            full
            for column in re.findall(r"`([^`]+)`", plain)
            for full in (
                [column[:-1] + end for end in INTERVAL] if column.endswith("*") else [column]
            )
        ]
    found = {}
    for file in (whole / "runs/tiny/report/tables").glob("*.csv"):
        with open(file, encoding="utf-8", newline="") as f:
            found[file.name] = next(csv.reader(f))
    assert listed == found
