"""Two studies side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from epigone.api.study import Study
from epigone.errors import UserError

if TYPE_CHECKING:
    from epigone.report.compared import Compared, Run


def compare(
    first: str | Path, second: str | Path, *, runs: str | Path = "runs", out: Path | None = None
) -> Compared:
    """Two studies' settings and scores side by side; written as a page where `out` is given.

    Each is a folder under runs/, or a study file whose steps lie in `runs`. They need not be
    finished.

    Raises UserError where one of them has nothing done.
    """
    from epigone.report.compare_page import render
    from epigone.report.compared import compared

    found = compared(_run(Path(first), runs), _run(Path(second), runs))
    if out is not None:
        render(found, out)
    return found


def _run(path: Path, runs: str | Path) -> Run:
    from epigone.report.compared import run_of

    if path.is_dir() and not (path / "study.yaml").is_file():
        raise UserError("no study in this folder", value=str(path), fix="runs/STUDY, or a file")
    study = Study.load(path, runs=runs)
    expansion = study.expansion()
    return run_of(str(path), study.declaration, expansion, study.store, study.view())
