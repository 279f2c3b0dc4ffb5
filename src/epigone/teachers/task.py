"""Tasks that a teacher makes examples of: what it is told, how it is read, what is accepted."""

from __future__ import annotations

import importlib
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from epigone.corpus.contamination import words
from epigone.errors import UserError
from epigone.files import read_jsonl
from epigone.study import task_file
from epigone.study.file import read_task
from epigone.teachers.answers import schema_check
from epigone.teachers.pairs import Labels, Pair
from epigone.teachers.wordings import Wording, wording

# What is wrong with a pair, empty where nothing is.
Check = Callable[[Pair], str]
# Seeds of a file may call their halves so, as those of NQ-open do.
_QUESTIONS, _ANSWERS = ("question", "prompt", "instruction"), ("answer", "answers", "output")


@dataclass(frozen=True, slots=True)
class Task:
    """A task as the teacher is asked for examples of it."""

    name: str
    version: int
    description: str
    labels: Labels
    seeds: tuple[Pair, ...]
    prompt: Wording
    check: Check

    def request(self, shown: Sequence[Pair], each: int) -> str:
        """The text that asks for `each` more examples like those shown."""
        form = self.labels.shown([Pair("...", "...")])
        examples = self.labels.shown(shown)
        return wording("task").fill(
            description=self.description, examples=examples, each=each, form=form
        )

    def probe(self) -> None:
        """Raise UserError where a seed is wrong by the task's own check, or there is no check."""
        for seed in self.seeds:
            if wrong := self.check(seed):
                raise UserError(
                    f"a seed of the task {self.name} is wrong by its own check",
                    value=seed.question[:80],
                    fix=wrong,
                )

    def asked(self, pair: Pair) -> str:
        """What a student is asked."""
        return self.prompt.fill(question=pair.question)


def read(folder: Path, seeds: Path | None = None) -> Task:
    """The task in a folder with a task.yaml; `seeds` is a file of other pairs to begin with.

    Its validator is not loaded before it is asked. Raises UserError for a mistake in the file.
    """
    told = read_task(folder / task_file.NAME)
    own = tuple(Pair(s.question.strip(), s.answer.strip()) for s in told.seeds)
    return Task(
        name=told.name,
        version=told.version,
        description=told.description.strip(),
        labels=Labels(told.question, told.answer),
        seeds=own if seeds is None else read_seeds(seeds),
        prompt=Wording(told.name, told.version, told.prompt),
        check=_check(told, folder),
    )


def read_seeds(path: Path) -> tuple[Pair, ...]:
    """Pairs of a JSONL file: question and answer, or a list of answers. Raises UserError."""
    found = []
    try:
        for row in read_jsonl(path):
            question = next(row[name] for name in _QUESTIONS if name in row)
            answer = next(row[name] for name in _ANSWERS if name in row)
            answer = answer[0] if isinstance(answer, list) else answer
            found.append(Pair(_text(question), _text(answer)))
    except (OSError, ValueError, TypeError, LookupError, StopIteration) as error:
        why = f"row {len(found) + 1}" if not isinstance(error, OSError) else error.strerror
        raise UserError(
            "the seeds cannot be read", value=str(path),
            fix=f"{why}: JSON lines with a question and an answer",
        ) from None  # fmt: skip
    if len(found) < 2:
        raise UserError("too few seeds", value=f"{path}: {len(found)}", fix="ten are usual")
    return tuple(found)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise TypeError("no text")
    return value.strip()


def _check(told: task_file.TaskFile, folder: Path) -> Check:
    checks: list[Check] = [
        lambda pair: "an answer that is its question" if _same(pair.question, pair.answer) else ""
    ]
    if told.longest_answer:
        checks.append(
            lambda pair: (
                "an answer too long" if len(pair.answer.split()) > told.longest_answer else ""
            )
        )
    if told.answer_schema:
        of_schema = schema_check(told.answer_schema)
        checks.append(lambda pair: of_schema(pair.answer))
    if told.validator:
        checks.append(_validator(told.validator, folder))
    return lambda pair: next((wrong for check in checks if (wrong := check(pair))), "")


def _same(one: str, other: str) -> bool:
    return words(one) == words(other) != []


def _validator(named: str, folder: Path) -> Check:
    """A function of the user's own, of a question and an answer; loaded when it is first called."""
    loaded = cache(lambda: _load(named, folder))

    def check(pair: Pair) -> str:
        function = loaded()
        try:
            return str(function(pair.question, pair.answer) or "")
        except UserError:
            raise
        except Exception as error:
            # The user's own code, which must not lose what was paid for.
            return f"the validator failed: {type(error).__name__}: {str(error)[:100]}"

    return check


def _load(named: str, folder: Path) -> Callable[[str, str], Any]:
    where, _, name = named.rpartition(":")
    try:
        if where.endswith(".py"):
            # Not by the import system, which would leave compiled files in the task's folder.
            module = types.ModuleType(Path(where).stem)
            module.__file__ = str(folder / where)
            source = (folder / where).read_bytes()
            exec(compile(source, module.__file__, "exec"), module.__dict__)
        else:
            module = importlib.import_module(where)
        found: Callable[[str, str], Any] = getattr(module, name)
        return found
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            "the validator cannot be had", value=named, fix=f"{type(error).__name__}: {error}"
        ) from None
