"""What a server needs to know of a provider's study, in a file of its owner alone."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from epigone.errors import UserError
from epigone.files import aside_of


def write_private(path: Path, row: Mapping[str, str]) -> None:
    """Write texts as JSON, whole, for the owner alone."""
    aside = aside_of(path)
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
            json.dump(row, f, indent=2)
            f.write("\n")
            f.flush()
            os.fsync(f.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def claim(path: Path, text: str) -> bool:
    """Write a text into a new file of the owner alone; False where the file is there already.

    Once it is True, the file survives whatever ends this process.
    """
    path.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with open(file, "w") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    return True


def read_private(path: Path, names: Sequence[str], made_by: str) -> dict[str, str]:
    """The texts of a file, which has these names and no others; raises UserError.

    Also for a file that others can read.
    """
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise UserError("others can read the settings", value=str(path), fix=f"chmod 600 {path}")
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        row = None
    good = isinstance(row, dict) and set(row) == set(names)
    if not good or not all(isinstance(value, str) for value in row.values()):
        raise UserError("not a file with a study's settings", value=str(path), fix=made_by)
    return dict(row)
