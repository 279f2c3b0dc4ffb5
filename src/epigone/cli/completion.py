"""What every verb has: --verbose, and completion of what its words stand for."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import typer

from epigone import logs
from epigone.study.step import STAGES

# A folder with more is one of data, and a study file is small.
_ENTRIES, _HEAD = 2_000, 1 << 16
_STUDY_KEYS = (re.compile(rb"^teacher:", re.MULTILINE), re.compile(rb"^bases:", re.MULTILINE))
_NAME = re.compile(r"^name:\s*[\"']?([\w.+-]+)", re.MULTILINE)


def equip(command: Any) -> None:
    """Give a command and all below it --verbose, and complete its words by their metavars."""
    probe = typer.Typer(add_completion=False)
    probe.command()(_verbose)
    (option,) = typer.main.get_command(probe).params
    _equip(command, option)


def _verbose(
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            callback=lambda asked: logs.start() if asked else None,
            expose_value=False,
            help="Log to stderr as lines of JSON.",
        ),
    ] = False,
) -> None: ...


def _equip(command: Any, option: Any) -> None:
    for parameter in command.params:
        if found := COMPLETED.get(parameter.metavar):
            parameter.shell_complete = _completer(found)
    command.params.append(option)
    for below in getattr(command, "commands", {}).values():
        _equip(below, option)


def _completer(
    find: Callable[[dict[str, Any], str], Iterable[str]],
) -> Callable[[Any, str], list[Any]]:
    def complete(context: Any, incomplete: str) -> list[Any]:
        # Where nothing is found the shell completes files.
        words = [w for w in find(context.params, incomplete) if w.startswith(incomplete)]
        return [SimpleNamespace(value=word, type="plain", help=None) for word in words]

    return complete


def _stages(_: dict[str, Any], incomplete: str) -> Iterable[str]:
    return STAGES


def _studies(_: dict[str, Any], incomplete: str) -> Iterator[str]:
    """Study files, and folders of studies, that a path may go on to; those one folder deeper, too.

    No folder is completed as such: the shell would take it for a whole word.
    """
    before = incomplete[: len(incomplete) - len(incomplete.rpartition("/")[2])]
    for entry in _entries(Path(before or ".").expanduser(), incomplete.rpartition("/")[2]):
        if _is_study(entry):
            yield before + entry.name
        elif entry.is_dir():
            for below in _entries(entry, ""):
                if _is_study(below):
                    yield f"{before}{entry.name}/{below.name}"


def _entries(folder: Path, start: str) -> list[Path]:
    """What a folder has by a beginning of its name; no hidden files, none to be quoted."""
    try:
        with os.scandir(folder) as found:
            names = sorted(entry.name for entry in islice(found, _ENTRIES))
    except OSError:
        return []
    return [
        folder / name
        for name in names
        if name.startswith(start) and name[0] != "." and shlex.quote(name) == name
    ]


def _is_study(path: Path) -> bool:
    """Whether a file looks as a study's does, or a folder has one as study.yaml."""
    if path.suffix not in (".yaml", ".yml"):
        path = path / "study.yaml"
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return all(key.search(head) for key in _STUDY_KEYS)


def _steps(given: dict[str, Any], incomplete: str) -> Iterator[str]:
    """Steps of a study that are done, and its models, as its last run wrote them down."""
    try:
        file = Path(str(given["study"])).expanduser()
        file = file / "study.yaml" if file.is_dir() else file
        with open(file, encoding="utf-8") as opened:
            name = _NAME.search(opened.read(_HEAD))
        if name is None:
            return
        root = Path(str(given.get("runs") or "runs")) / name[1]
        lock = json.loads((root / "study.lock.json").read_text(encoding="utf-8"))
        steps = [str(row["step"]) for row in lock["steps"]]
        models = [str(row["model"]) for row in lock["cells"]]
    except (OSError, ValueError, KeyError, TypeError):
        return
    yield from (step for step in steps if (root / "steps" / step / "record.json").exists())
    # bash begins a new word at each colon, of which a student's name has some.
    yield from dict.fromkeys(model for model in models if ":" not in model)


COMPLETED: dict[str, Callable[[dict[str, Any], str], Iterable[str]]] = {
    "STUDY": _studies,
    "[STUDY]": _studies,
    "RUN": _studies,
    "STAGE": _stages,
    "[STEP]": _steps,
}
