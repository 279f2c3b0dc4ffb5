"""Files of answers to be judged, and of references by which some are marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from epigone.errors import CorpusError
from epigone.evaluation.judge.held import words
from epigone.evaluation.outputs import output_of, rows_of
from epigone.models.received import sound
from epigone.schema import Message, Role, Sample

_ROLES: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant",
                              "tool": "tool"}  # fmt: skip


def read_answers(path: Path, model: str) -> dict[str, Sample]:
    """Answers by item, under a model's name: rows of `item` (or `id`), `prompt` and `output`.

    A prompt is a text or a list of messages; a file may have none where another's has. Raises
    CorpusError for anything else, with the line.
    """
    return {item: _sample(item, row, model, where) for item, row, where in rows_of(path, "answers")}


def read_references(path: Path) -> dict[str, list[str]]:
    """Right answers by item: rows of `item` (or `id`) and `answers`, or one `answer`.

    Raises CorpusError for an answer in which there is no word that an output could hold.
    """
    found: dict[str, list[str]] = {}
    for item, row, where in rows_of(path, "references"):
        told = row.get("answers", row.get("answer"))
        texts = [told] if isinstance(told, str) else told
        if (
            not isinstance(texts, list)
            or not texts
            or not all(isinstance(t, str) and t.strip() for t in texts)
        ):
            raise CorpusError(f"{where}: no item and answers in this row")
        for text in texts:
            if not words(text):
                raise CorpusError(f"{where}: an answer without a word", value=text)
        found[item] = texts
    return found


def _sample(item: str, row: Mapping[str, Any], model: str, where: str) -> Sample:
    prompt = row.get("prompt") or []
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    try:
        messages = tuple(Message(_ROLES[m["role"]], sound(m["content"])) for m in prompt)
    except (KeyError, TypeError, AttributeError):
        raise CorpusError(f"{where}: the prompt is no text and no list of messages") from None
    return Sample(item, model, messages, output_of(row, where), "recorded")


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
