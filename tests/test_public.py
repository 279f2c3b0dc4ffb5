from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import epigone

ROOT = Path(__file__).parents[1]


def test_the_public_surface_is_sealed() -> None:
    assert sorted(epigone.__all__) == [
        "Conversation",
        "EpigoneError",
        "Message",
        "Record",
        "Sample",
        "Score",
        "StepFailed",
        "Study",
        "UserError",
        "benchmark",
        "build_corpus",
        "generate",
        "style",
        "train",
    ]
    for name in epigone.__all__:
        assert getattr(epigone, name) is not None


def test_importing_epigone_imports_no_room() -> None:
    code = "import epigone, sys; print([m for m in sys.modules if m.startswith('epigone.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_in_the_source_is_too_long() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path
