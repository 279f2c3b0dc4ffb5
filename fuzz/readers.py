"""Fuzz the readers: no bytes may crash them, hang them, or be lost without a word.

    pip install atheris
    python fuzz/readers.py CORPUS_FOLDER -max_total_time=600 -max_len=4096

What it finds is mended and kept as a test in tests/corpus/.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["epigone.corpus"]):
    from epigone.corpus.readers import FORMATS, File
    from epigone.corpus.rows import Invalid, Row
    from epigone.corpus.values import Lost
    from epigone.errors import UserError

FILE = Path(tempfile.mkdtemp()) / "f"


def check(data: bytes) -> None:
    """Read the bytes as a file, in the format found and in one that the first byte picks."""
    names = ["", FORMATS[data[0] % len(FORMATS)].name] if data else [""]
    FILE.write_bytes(data)
    for name in names:
        try:
            with File(FILE, name) as file:
                found = list(file)
        except UserError as error:
            assert "\n" not in str(error)
            continue
        for item in found:
            if isinstance(item, Lost):
                assert 0 <= item.offset <= len(data)
                assert 0 <= item.bytes <= len(data) - item.offset
            else:
                assert isinstance(item, Row | Invalid)
                assert item.end <= len(data)
            if isinstance(item, Row):
                for turn in item.turns:
                    turn.content.encode("utf-8")


if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
