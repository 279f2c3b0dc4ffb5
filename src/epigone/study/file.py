"""Reading a study file, with the line and column of every mistake."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from epigone.errors import StudyFileError, UserError
from epigone.study.declare import Declaration, Mistake

_LARGEST = 1 << 20


def read(path: Path) -> Declaration:
    """The declaration in a study file.

    Raises StudyFileError, one line with the place of the first mistake.
    """
    return parse(_text(path), str(path))


def parse(text: str, path: str = "study.yaml") -> Declaration:
    """The declaration in the text of a study file; `path` is what errors call it."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _no_repeated_keys(node, path)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        raise StudyFileError(
            path, f"not YAML: {error.problem or error.context}", line=line, column=column
        ) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise StudyFileError(path, "not YAML", value=str(error).splitlines()[0]) from None
    if not isinstance(data, dict):
        raise StudyFileError(
            path, "not a study", value=text[:80], fix="a study is a mapping; see 'epigone new'"
        )
    try:
        return Declaration.model_validate(data)
    except ValidationError as error:
        raise _located(error, node, path) from None


def _text(path: Path) -> str:
    try:
        if path.is_dir():
            raise StudyFileError(str(path), "is a folder", fix="name the study's YAML file")
        if path.stat().st_size > _LARGEST:
            raise StudyFileError(str(path), "too large for a study file", value=path.stat().st_size)
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(
            path.name, [p.name for p in path.parent.glob("*.y*ml")], n=1, cutoff=0.5
        )
        fix = f"did you mean {near[0]!r}?" if near else "'epigone new DIR' writes one"
        raise StudyFileError(str(path), "no such file", fix=fix) from None
    except UnicodeDecodeError as error:
        raise StudyFileError(str(path), f"not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise StudyFileError(str(path), f"cannot be read: {error.strerror}") from None


def _no_repeated_keys(node: Any, path: str) -> None:
    # PyYAML keeps the last of two equal keys, which would drop a setting in silence.
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise StudyFileError(
                    path,
                    "key given twice",
                    line=key.start_mark.line + 1,
                    column=key.start_mark.column + 1,
                    value=key.value,
                )
            seen.add(key.value)
            _no_repeated_keys(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _no_repeated_keys(value, path)


def _located(error: ValidationError, node: Any, path: str) -> StudyFileError:
    # A misspelt key also leaves its right spelling missing: the typo is the mistake to tell.
    found = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
    first = found[0]
    where: tuple[str | int, ...] = first["loc"]
    cause = (first.get("ctx") or {}).get("error")
    if isinstance(cause, Mistake):
        where = cause.where
        mark = _mark(node, where, key=cause.at_key)
        return StudyFileError(
            path, cause.error.what, line=mark[0], column=mark[1],
            value=cause.error.value, fix=cause.error.fix,
        )  # fmt: skip
    dotted = ".".join(str(p) for p in where if p != "[key]")
    if first["type"] == "extra_forbidden":
        mark = _mark(node, where, key=True)
        known = _known(Declaration, where[:-1])
        near = difflib.get_close_matches(str(where[-1]), known, n=1, cutoff=0.5)
        fix = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
        return StudyFileError(
            path, "unknown key", line=mark[0], column=mark[1], value=dotted, fix=fix
        )
    mark = _mark(node, where)
    if first["type"] == "missing":
        return StudyFileError(path, "missing key", line=mark[0], column=mark[1], value=dotted)
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    shown = UserError("", value=first["input"])
    return StudyFileError(
        path, f"{dotted}: {message}", line=mark[0], column=mark[1], value=shown.value
    )


def _mark(node: Any, where: Sequence[str | int], *, key: bool = False) -> tuple[int, int]:
    """Line and column, from 1, of the deepest node on the way that the file has."""
    mark = node.start_mark
    for depth, part in enumerate(where):
        if isinstance(node, yaml.MappingNode):
            pairs = [(k, v) for k, v in node.value if k.value == str(part)]
            if not pairs:
                break
            mark = (pairs[0][0] if key and depth == len(where) - 1 else pairs[0][1]).start_mark
            node = pairs[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            if part >= len(node.value):
                break
            node = node.value[part]
            mark = node.start_mark
        else:
            break
    return mark.line + 1, mark.column + 1


def _known(model: type[BaseModel], where: Sequence[str | int]) -> list[str]:
    for part in where:
        field = next((f for n, f in model.model_fields.items() if (f.alias or n) == part), None)
        if field is None:
            continue  # a key of a mapping, or an index
        found = _models(field.annotation)
        if found:
            model = found[0]
    return [f.alias or n for n, f in model.model_fields.items()]


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for a in getattr(annotation, "__args__", ()) for m in _models(a)]
