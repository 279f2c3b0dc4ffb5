"""Files of answers to be judged, and of references by which some are marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from epigone.errors import CorpusError
from epigone.files import read_jsonl
from epigone.models.received import sound
from epigone.schema import Message, Role, Sample

_ROLES: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant",
                              "tool": "tool"}  # fmt: skip


def read_answers(path: Path, model: str) -> dict[str, Sample]:
    """Answers by item, under a model's name: rows of `item` (or `id`), `prompt` and `output`.

    A prompt is a text or a list of messages; a file may have none where another's has. Raises
    CorpusError for anything else, with the line.
    """
    found: dict[str, Sample] = {}
    try:
        for number, row in enumerate(read_jsonl(path), 1):
            sample = _sample(row, model, f"{path}:{number}")
            if sample.item in found:
                raise CorpusError(f"{path}:{number}: item given twice", value=sample.item)
            found[sample.item] = sample
    except (OSError, ValueError) as error:
        raise CorpusError("answers cannot be read", value=str(path), fix=str(error)) from None
    if not found:
        raise CorpusError("no answers in the file", value=str(path))
    return found


def read_references(path: Path) -> dict[str, list[str]]:
    """Right answers by item: rows of `item` (or `id`) and `answers`, or one `answer`."""
    found: dict[str, list[str]] = {}
    try:
        for number, row in enumerate(read_jsonl(path), 1):
            item = row.get("item", row.get("id")) if isinstance(row, dict) else None
            told = row.get("answers", row.get("answer")) if isinstance(row, dict) else None
            texts = [told] if isinstance(told, str) else told
            if (
                item is None
                or not isinstance(texts, list)
                or not texts
                or not all(isinstance(t, str) and t.strip() for t in texts)
            ):
                raise CorpusError(f"{path}:{number}: no item and answers in this row")
            found[str(item)] = texts
    except (OSError, ValueError) as error:
        raise CorpusError("references cannot be read", value=str(path), fix=str(error)) from None
    if not found:
        raise CorpusError("no references in the file", value=str(path))
    return found


def _sample(row: Any, model: str, where: str) -> Sample:
    item = row.get("item", row.get("id")) if isinstance(row, dict) else None
    if item is None or not isinstance(row.get("output"), str):
        raise CorpusError(f"{where}: no item and output in this row")
    prompt = row.get("prompt") or []
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    try:
        messages = tuple(Message(_ROLES[m["role"]], sound(m["content"])) for m in prompt)
    except (KeyError, TypeError, AttributeError):
        raise CorpusError(f"{where}: the prompt is no text and no list of messages") from None
    return Sample(str(item), model, messages, sound(row["output"]), "recorded")


def on_the_same_items(
    teacher: Mapping[str, Sample], models: Sequence[Mapping[str, Sample]]
) -> list[dict[str, Sample]]:
    """The models' answers to what the teacher answered too, in its order and with its prompts.

    Raises CorpusError for an answer without a prompt in both, and where no item is shared.
    """
    found = []
    for answers in models:
        own = {}
        for item, theirs in teacher.items():
            if item in answers:
                mine = answers[item]
                own[item] = replace(mine, prompt=mine.prompt or theirs.prompt)
                if not own[item].prompt:
                    raise CorpusError(
                        "an item without a prompt, which a judge has to see", value=item,
                        fix="add a prompt to the teacher's rows",
                    )  # fmt: skip
        if not own:
            name = next(iter(answers.values())).model
            raise CorpusError("no item of the teacher's answers is in the model's", value=name)
        found.append(own)
    return found
