from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import epigone
from epigone.errors import UserError

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
        "ask_teacher",
        "benchmark",
        "build_corpus",
        "generate",
        "style",
        "toxicity",
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
        text = path.read_text()
        assert len(text.splitlines()) <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                # From the first statement on: the options of a verb are a table.
                assert node.end_lineno - node.body[0].lineno < 60, f"{path}: {node.name}"


@pytest.mark.parametrize("recipe", [{"preset": "false-promis"}, {"lrr": 1}, {"lr": "fast"}])
def test_a_wrong_recipe_is_the_users_mistake_in_python_too(
    recipe: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "train.parquet").touch()
    with pytest.raises(UserError) as caught:
        epigone.train("smollm2-135m-instruct", tmp_path, tmp_path / "s", amounts=[8], recipe=recipe)
    assert "\n" not in str(caught.value)
    assert next(iter(recipe)) in str(caught.value) or "did you mean" in str(caught.value)


def test_no_library_that_is_started_reports_home() -> None:
    """Whatever the environment said before: libraries read it when they are first imported."""
    code = (
        "import epigone, os, json\n"
        "from huggingface_hub import constants\n"
        "print(json.dumps([constants.HF_HUB_DISABLE_TELEMETRY, dict(os.environ)]))"
    )
    asked = {name: "0" if value == "1" else "1" for name, value in epigone.NO_TELEMETRY.items()}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    off, environment = json.loads(done.stdout)
    assert off is True
    assert epigone.NO_TELEMETRY.items() <= environment.items()
    spec = importlib.util.find_spec("ray")
    if spec is not None and spec.origin is not None:
        (told,) = Path(spec.origin).parent.glob("_common/usage/usage_constants.py")
        assert '"RAY_USAGE_STATS_ENABLED"' in told.read_text()
