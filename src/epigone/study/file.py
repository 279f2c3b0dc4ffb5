"""Reading a study file, with the line and column of every mistake."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from epigone.errors import StudyFileError
from epigone.study.declare import Declaration
from epigone.study.published import PublishedFile
from epigone.study.task_file import TaskFile
from epigone.study.values import Mistake, dotted, first_error, told

Kind = TypeVar("Kind", bound=BaseModel)
_LARGEST = 1 << 20
_QUOTES = "put a text in quotes"


def read(path: Path) -> Declaration:
    """The declaration in a study file.

    Raises StudyFileError, one line with the place of the first mistake.
    """
    return parse(_text(path), str(path))


def parse(text: str, path: str = "study.yaml") -> Declaration:
    """The declaration in the text of a study file; `path` is what errors call it."""
    return _parsed(Declaration, text, path, "a study")


def read_task(path: Path) -> TaskFile:
    """A task that a teacher can make examples of. Raises StudyFileError as `read` does."""
    return _parsed(TaskFile, _text(path), str(path), "a task")


def read_published(path: Path) -> PublishedFile:
    """A file of scores that others published. Raises StudyFileError as `read` does."""
    return _parsed(PublishedFile, _text(path), str(path), "a file of reported scores")


def _parsed(kind: type[Kind], text: str, path: str, what: str) -> Kind:
    node, data = _yaml(text, path)
    if not isinstance(data, dict):
        raise StudyFileError(
            path, f"not {what}", value=text[:80], fix=f"{what} is a mapping; see 'epigone new'"
        )
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise _located(error, kind, node, path) from None


def located(mistake: Mistake, path: Path) -> StudyFileError:
    """A mistake that only the expansion finds, with its place in the study file."""
    node, _ = _yaml(_text(path), str(path))
    return _told_at(mistake, node, str(path))


class _Loader(yaml.SafeLoader):
    """Safe YAML without anchors, whose every mistake has a place."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        # A few aliases of aliases make a file of one line a tree of billions of nodes.
        if getattr(event, "anchor", None) is not None:
            raise _at(event.start_mark, "anchors and aliases are not for studies", event.anchor)
        return super().compose_node(parent, index)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        kind = node.tag.rpartition(":")[2]
        try:
            value = super().construct_object(node, deep=deep)
        except (ValueError, LookupError, ArithmeticError, TypeError, AttributeError):
            # PyYAML converts what looks like a number or a date without checking that it is one.
            raise _at(node.start_mark, f"no valid {kind}", node.value, _QUOTES) from None
        if isinstance(value, int) and value.bit_length() > 63:
            raise _at(node.start_mark, f"{kind} too large", node.value, _QUOTES)
        return value


# YAML 1.1, which PyYAML reads, takes 2e-5 for a text: a learning rate is rarely written otherwise.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), "-+0123456789"
)


def _yaml(text: str, path: str) -> tuple[Any, Any]:
    """The tree of a YAML text, for the places, and its value."""
    try:
        loader = _Loader(text)
        loader.name = path  # what marks, and so mistakes, call the file
        try:
            node = loader.get_single_node()
        except (ValueError, OverflowError):
            # An escape such as \UFFFFFFFF is no character.
            raise _at(loader.get_mark(), "not YAML: no such character") from None
        _no_repeated_keys(node)
        return node, None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = _place(mark) if mark else (None, None)
        raise StudyFileError(
            path, f"not YAML: {error.problem or error.context}", line=line, column=column
        ) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise StudyFileError(path, "not YAML", value=str(error).splitlines()[0]) from None


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


def _no_repeated_keys(node: Any) -> None:
    # PyYAML keeps the last of two equal keys, which would drop a setting in silence.
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _at(key.start_mark, "a list or a mapping is no key")
            if key.value in seen:
                raise _at(key.start_mark, "key given twice", key.value)
            seen.add(key.value)
            _no_repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _no_repeated_keys(value)


def _at(mark: Any, what: str, value: object = None, fix: str = "") -> StudyFileError:
    line, column = _place(mark)
    return StudyFileError(mark.name, what, line=line, column=column, value=value, fix=fix)


def _place(mark: Any) -> tuple[int, int]:
    """Line and column from 1, the column in bytes."""
    before = mark.buffer[mark.pointer - mark.column : mark.pointer] if mark.buffer else ""
    # Without its buffer a mark knows characters only; PyYAML keeps it where the input is a text.
    return mark.line + 1, (len(before.encode()) if mark.buffer else mark.column) + 1


def _located(error: ValidationError, kind: type[BaseModel], node: Any, path: str) -> StudyFileError:
    first = first_error(error)
    where: tuple[str | int, ...] = first["loc"]
    cause = (first.get("ctx") or {}).get("error")
    if isinstance(cause, Mistake):
        # A mistake's own place is told from the part of the study that was being checked.
        where = (*first["loc"], *cause.where)
        return _told_at(Mistake(where, cause.error, at_key=cause.at_key), node, path)
    named = dotted(where)
    if first["type"] == "extra_forbidden":
        mark = _mark(node, where, key=True)
        known = _known(kind, where[:-1])
        near = difflib.get_close_matches(str(where[-1]), known, n=1, cutoff=0.5)
        fix = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
        return StudyFileError(
            path, "unknown key", line=mark[0], column=mark[1], value=named, fix=fix
        )
    mark = _mark(node, where)
    if first["type"] == "missing":
        return StudyFileError(path, "missing key", line=mark[0], column=mark[1], value=named)
    shown = told(error)
    return StudyFileError(path, shown.what, line=mark[0], column=mark[1], value=shown.value)


def _told_at(mistake: Mistake, node: Any, path: str) -> StudyFileError:
    line, column = _mark(node, mistake.where, key=mistake.at_key)
    error = mistake.error
    return StudyFileError(
        path, error.what, line=line, column=column, value=error.value, fix=error.fix
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
    return _place(mark)


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
