"""Every function and every test that the page on numbers names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/numbers.md").read_text()
ENTRIES = re.findall(r"^\*\*(.+?)\*\*(.*?)(?=^\*\*|^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)


def names_in(path: Path) -> set[str]:
    """What a module has at its top."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


def test_every_number_names_what_makes_it_and_what_checks_it() -> None:
    assert len(ENTRIES) > 35
    for title, text in ENTRIES:
        code = re.findall(r"`([^`]+)`", text)
        tests = [c for c in code if "::" in c]
        made = [c for c in code if re.fullmatch(r"[a-z_]+(\.\w+)+", c)]
        assert tests and made, title
        for named in tests:
            file, _, function = named.partition("::")
            assert function in names_in(ROOT / "tests" / file), named
        for named in made:
            parts = named.split(".")
            module = ROOT / "src/epigone" / Path(*parts).with_suffix(".py")
            if not module.is_file():
                module = ROOT / "src/epigone" / Path(*parts[:-1]).with_suffix(".py")
                assert parts[-1] in names_in(module), named
