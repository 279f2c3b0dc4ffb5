from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "bench").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_a_bench_takes_from_epigone_is_there(script: Path) -> None:
    # They take hours and no test runs them, so a name that was changed would be seen much later.
    missing = []
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("epigone"):
            module = importlib.import_module(node.module or "")
            missing += [a.name for a in node.names if not _has(module, a.name)]
    assert missing == []


def _has(module: object, name: str) -> bool:
    try:
        importlib.import_module(f"{module.__name__}.{name}")  # type: ignore[attr-defined]
    except ModuleNotFoundError:
        return hasattr(module, name)
    return True
