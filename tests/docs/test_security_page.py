"""Every test that the page on security names is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security.md").read_text()


def test_what_the_page_says_is_tested() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 20
    for file, function in named:
        assert f"def {function}(" in (ROOT / "tests" / file).read_text(), function
