"""The names of benchmarks, without importing lm-eval."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from epigone.errors import UnknownName
from epigone.files import cache_root
from epigone.formats import read_cache, write_cache

TASKS = Path(__file__).parent / "tasks"
# Those of presets.py, whose data lie elsewhere, and those whose files are shipped.
PRESETS = ("mmlu", "nq_open", "humaneval")
_VERSIONS = {"facts": 1, "choices": 1, **dict.fromkeys(PRESETS, 1)}
_KEY = r"^[\s-]*[\"']?(?:task|group|tag)[\"']?\s*:"
_NAME = r"[\"']?([\w.+-]+)[\"']?\s*$"
_NAMED = re.compile(rf"{_KEY}[ \t]*{_NAME}", re.MULTILINE)
_LISTED = re.compile(rf"{_KEY}[ \t]*\n((?:[ \t]*-[ \t].*\n?)+)", re.MULTILINE)
_ENTRY = re.compile(rf"^[ \t]*-[ \t]+{_NAME}", re.MULTILINE)


def known_tasks() -> Mapping[str, int]:
    """Names of Epigone's own benchmarks with their versions."""
    return _VERSIONS


def lm_eval_version(task: str) -> str:
    """The version of the lm-eval that has a task, a group or a tag of this name.

    Raises UnknownName, with the nearest of all names, or Epigone's own where none is near.
    """
    names = _lm_eval()
    if task in names:
        return importlib.metadata.version("lm_eval")
    try:
        raise UnknownName("benchmark", task, names.keys() | known_tasks().keys())
    except UnknownName as error:
        if "did you mean" in error.fix:
            raise
    raise UnknownName("benchmark", task, known_tasks())


def lm_eval_folders(task: str) -> list[Path]:
    """The folders of lm-eval's tasks that speak of a name: its whole index takes ten seconds."""
    root = _tasks_folder()
    return [] if root is None else [root / name for name in _lm_eval().get(task, ())]


@cache
def _lm_eval() -> Mapping[str, list[str]]:
    """Names in lm-eval's files with their folders; kept, because thousands are read."""
    root = _tasks_folder()
    if root is None:
        return {}
    kept = cache_root() / "lm-eval" / f"names-{importlib.metadata.version('lm_eval')}.json"
    if known := read_cache(kept):
        return known
    found: dict[str, set[str]] = defaultdict(set)
    for file in root.rglob("*.y*ml"):
        text = file.read_text("utf-8", errors="replace")
        names = _NAMED.findall(text)
        for entries in _LISTED.findall(text):
            names += _ENTRY.findall(entries)
        for name in names:
            found[name].add(file.relative_to(root).parts[0])
    told = {name: sorted(folders) for name, folders in sorted(found.items())}
    with suppress(OSError):
        write_cache(kept, told)
    return told


def _tasks_folder() -> Path | None:
    spec = importlib.util.find_spec("lm_eval")
    return Path(spec.origin).parent / "tasks" if spec and spec.origin else None
