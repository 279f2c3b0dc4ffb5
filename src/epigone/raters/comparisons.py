"""What raters compare: pairs of outputs for one prompt, and the tasks that train and check them."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from epigone.errors import UserError
from epigone.schema import Message, Purpose, Role

Pairs = Literal["teacher", "all"]
# What PostgreSQL cannot keep (NUL) and UTF-8 cannot write (halves of characters).
_UNWRITABLE = {0: "\ufffd", **dict.fromkeys(range(0xD800, 0xE000), "\ufffd")}
_ROLES: tuple[str, ...] = get_args(Role)
_KINDS: Mapping[str, Purpose] = {"training": "training", "gold": "gold", "attention": "attention"}
_CHECK_KEYS = {"kind", "prompt", "outputs", "expected", "feedback"}


@dataclass(frozen=True, slots=True)
class Output:
    """One model's answer to one prompt."""

    item: str
    model: str
    prompt: tuple[Message, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two outputs for one prompt, of models `a` and `b` in the order of their names.

    `expected` is the right preference where one is known, as in `epigone.schema.Rating`.
    """

    item: str
    prompt: tuple[Message, ...]
    a: str
    b: str
    a_text: str
    b_text: str
    purpose: Purpose = "item"
    expected: int | None = None
    feedback: str = ""


def read_outputs(path: Path, model: str = "") -> dict[str, Output]:
    """A file of samples by item: each line has item (or id), prompt, output, and a model if known.

    `model` names the model of all lines; without it lines do, else the file's name. Raises
    UserError with the line's number.
    """
    found: dict[str, Output] = {}
    try:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    output = _output_at(line, model, path, f"{path}:{number}")
                    if output.item in found:
                        raise UserError(f"{path}:{number}: the same item twice", value=output.item)
                    found[output.item] = output
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8"
        raise UserError(f"cannot read the samples: {reason}", value=str(path)) from None
    if not found:
        raise UserError("no samples in the file", value=str(path))
    if len(models := {o.model for o in found.values()}) > 1:
        raise UserError(f"samples of several models in {path}", value=", ".join(sorted(models)))
    return found


def _output_at(line: str, model: str, path: Path, where: str) -> Output:
    try:
        return _output(line, model, path, where)
    except RecursionError:
        raise UserError(f"{where}: nested too deeply", value=line[:60]) from None


def _output(line: str, model: str, path: Path, where: str) -> Output:
    try:
        row = json.loads(line)
    except ValueError:
        raise UserError(f"{where}: not a line of JSON", value=line[:60]) from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: not a JSON object", value=line[:60])
    item, text = row.get("item", row.get("id")), row.get("output")
    if not isinstance(item, str | int) or not str(item) or len(str(item)) > 400:
        raise UserError(f"{where}: an item is a name of at most 400 characters", value=item)
    if not isinstance(text, str):
        raise UserError(f"{where}: an output is a text", value=text)
    named = model or row.get("model") or path.stem
    if not isinstance(named, str) or len(named) > 400:
        raise UserError(f"{where}: a model is a name of at most 400 characters", value=named)
    return Output(writable(str(item)), writable(named), _prompt(row.get("prompt"), where),
                  writable(text))  # fmt: skip


def _prompt(value: Any, where: str) -> tuple[Message, ...]:
    if isinstance(value, str) and value.strip():
        return (Message("user", writable(value)),)
    if isinstance(value, list) and value:
        try:
            made = tuple(Message(m["role"], writable(m["content"])) for m in value)
            if all(message.role in _ROLES for message in made):
                return made
        except (KeyError, TypeError, AttributeError):
            pass
    raise UserError(f"{where}: a prompt is a text, or messages with role and content", value=value,
                    fix="role: " + ", ".join(_ROLES))  # fmt: skip


def writable(text: str) -> str:
    """A text without the characters that no database or page can hold."""
    return text.translate(_UNWRITABLE)


def compare(
    teacher: Mapping[str, Output],
    models: Sequence[Mapping[str, Output]],
    *,
    pairs: Pairs = "teacher",
    n: int | None = None,
    seed: int = 0,
    tell: Callable[[str], object] = lambda line: None,
) -> list[Pair]:
    """Each model's outputs beside the teacher's, or beside all others', item by item.

    `n` draws so many of the items that all have, the same for all models, and of items with one
    prompt the first; `tell` is given a line for whatever is left out. Raises UserError where two
    files have no item in common, or disagree on an item's prompt.
    """
    everyone = [teacher, *models]
    names = [next(iter(outputs.values())).model for outputs in everyone]
    for name in names:
        if names.count(name) > 1:
            raise UserError("two files of one model", value=name, fix="NAME=FILE")
    shared = [item for item in teacher if all(item in outputs for outputs in models)]
    if not shared:
        raise UserError("the files have no item in common", value=", ".join(names))
    for item in shared:
        if len({outputs[item].prompt for outputs in everyone}) > 1:
            raise UserError("files disagree on the prompt of an item", value=item)
    for name, outputs in zip(names, everyone, strict=True):
        if left := len(outputs) - len(shared):
            tell(f"{name}: {left} of {len(outputs)} items left out, which not all models have")
    # A text that a rater saw twice would be the teacher's.
    first: dict[tuple[str, ...], str] = {}
    for item in shared:
        first.setdefault(tuple(" ".join(m.content.split()) for m in teacher[item].prompt), item)
    if repeated := len(shared) - len(first):
        tell(f"{repeated} items left out, whose prompt an earlier one has")
    shared = list(first.values())
    if n is not None and n < len(shared):
        chosen = set(random.Random(seed).sample(shared, n))
        shared = [item for item in shared if item in chosen]
    couples = list(combinations(everyone, 2))
    if pairs == "teacher":
        couples = [(one, other) for one, other in couples if one is teacher]
    return [_pair(one[item], other[item]) for item in shared for one, other in couples]


def differing(pairs: Sequence[Pair]) -> tuple[list[Pair], Counter[str]]:
    """The pairs of two different texts, and by "a, b" how many others there are.

    Two equal texts, but for space around them, are a tie that nobody has to be asked about.
    """
    same = [pair for pair in pairs if pair.a_text.strip() == pair.b_text.strip()]
    told = Counter(f"{pair.a}, {pair.b}" for pair in same)
    return [pair for pair in pairs if pair.a_text.strip() != pair.b_text.strip()], told


def _pair(one: Output, other: Output) -> Pair:
    a, b = sorted((one, other), key=lambda output: output.model)
    return Pair(a.item, a.prompt, a.model, b.model, a.text, b.text)


def read_checks(path: Path | None = None) -> list[Pair]:
    """Training, gold and attention tasks of a YAML or JSONL file; without one, those that ship.

    A row has a kind, a prompt, two outputs, the expected preference (2 where the first is better to
    -2 where the second is), and for training the feedback. Raises UserError for anything else.
    """
    name = str(path) if path else "checks.yaml"
    try:
        if path is None:
            text = resources.files("epigone.raters").joinpath("checks.yaml").read_text("utf-8")
        else:
            text = path.read_text(encoding="utf-8")
        if name.endswith(".jsonl"):
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = str(getattr(error, "strerror", None) or error).splitlines()[0]
        raise UserError(f"cannot read the checks: {reason}", value=name) from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError("checks are a list of tasks", value=name)
    return [_check(row, i, f"{name}, task {i}") for i, row in enumerate(rows, 1)]


def _check(row: Mapping[str, Any], number: int, where: str) -> Pair:
    if unknown := set(row) - _CHECK_KEYS:
        raise UserError(f"{where}: unknown key", value=min(map(str, unknown)),
                        fix="known: " + ", ".join(sorted(_CHECK_KEYS)))  # fmt: skip
    kind, outputs, expected = row.get("kind"), row.get("outputs"), row.get("expected")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UserError(f"{where}: a kind is training, gold or attention", value=kind)
    if not (isinstance(outputs, list) and len(outputs) == 2
            and all(isinstance(text, str) for text in outputs)):  # fmt: skip
        raise UserError(f"{where}: a task has two outputs", value=outputs)
    if type(expected) is not int or not -2 <= expected <= 2:
        raise UserError(f"{where}: expected is a whole number from 2 to -2", value=expected)
    feedback = row.get("feedback", "")
    if not isinstance(feedback, str) or (kind == "training" and not feedback.strip()):
        raise UserError(f"{where}: training has a text as feedback", value=feedback)
    # No models wrote these; the names only tell the first output from the second.
    return Pair(f"{kind}-{number}", _prompt(row.get("prompt"), where), "first", "second",
                writable(outputs[0]), writable(outputs[1]), _KINDS[kind], expected,
                writable(feedback))  # fmt: skip
