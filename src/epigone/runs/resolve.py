"""What a study needs to know of the world: fingerprints, names, versions, without any download."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from epigone.errors import UnknownName, UserError
from epigone.evaluation.catalogue import known_tasks, lm_eval_version
from epigone.evaluation.judge.rubrics import rubrics
from epigone.files import read_json
from epigone.models import catalogue, references
from epigone.study.declare import Declaration
from epigone.study.steps import Expansion
from epigone.study.templates import template_text
from epigone.teachers.wordings import task_wordings

# How the fingerprints begin of what cannot be known yet: hub references without a revision, and
# local data that is not there. The reference follows, or two of them would seem to be the same.
UNRESOLVED = "unresolved"
ABSENT = "absent"


class World:
    """Resolves a study's references; `locked` are the revisions of an earlier run.

    Relative paths start at `folder`, else at the current one. With `online` false nothing is
    asked of the network, a hub reference without a revision stays "unresolved" until the study
    runs, and local data that is not there is known by what an earlier run saw of it, or "absent".
    """

    def __init__(
        self,
        *,
        online: bool,
        locked: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._online = online
        self._folder = folder
        self._locked = dict(locked or {})
        self.seen: dict[str, str] = {}

    def reference(self, ref: str) -> str:
        """A text that means the same reference from any folder."""
        return str(self._absent(ref) or self._parsed(ref))

    def fingerprint(self, ref: str) -> str:
        """The revision or content hash of a reference."""
        return self._once(ref, lambda r: references.fingerprint(r, offline=not self._online))

    def data_fingerprint(self, ref: str) -> str:
        """The revision or content hash of a reference to data."""
        if self._absent(ref):
            return self._locked.get(ref, f"{ABSENT}:{ref}")
        return self._once(ref, lambda r: references.data_fingerprint(r, offline=not self._online))

    def _once(self, ref: str, find: Callable[[references.Reference], str | None]) -> str:
        if ref not in self.seen:
            parsed = self._parsed(ref)
            found = self._locked.get(ref) if parsed.kind == "hf" else None
            self.seen[ref] = found or find(parsed) or f"{UNRESOLVED}:{parsed}"
        return self.seen[ref]

    def provenance(self, ref: str) -> tuple[str, str]:
        """Licence and terms of a corpus reference; empty where unknown."""
        entry = catalogue.load().get(ref)
        if entry is not None and entry.kind != "corpus":
            corpora = [name for name, e in catalogue.load().items() if e.kind == "corpus"]
            raise UserError(f"a {entry.kind} is no corpus", value=ref, fix=f"known: {corpora[0]}")
        return (entry.licence, entry.terms) if entry else ("", "")

    def model_name(self, ref: str) -> str:
        """A short name for a model reference."""
        reference = self._parsed(ref)
        references.check_model(reference)
        if reference.kind == "catalogue":
            return ref
        return Path(str(reference.value)).name.removesuffix(".gguf").replace(":", "-")

    def _absent(self, ref: str) -> Path | None:
        return None if self._online else references.absent(ref, self._folder)

    def template(self, name: str) -> str:
        """The text of a chat template, by its name or its file."""
        return template_text(name, self._folder or Path.cwd())

    def _parsed(self, ref: str) -> references.Reference:
        return references.parse(ref, self._folder)

    def task_version(self, task: str) -> int:
        """The version of a benchmark of Epigone's own, else 0."""
        return known_tasks().get(task, 0)

    def wording(self, task: str) -> str | None:
        """A hash of what a teacher is asked with for a task by that name, None for a folder's.

        Raises UnknownName for neither.
        """
        known = task_wordings()
        if (
            task not in known
            and "/" not in task
            and not (self._folder or Path.cwd()).joinpath(Path(task).expanduser()).is_dir()
        ):
            raise UnknownName("task", task, [name for name in known if name])
        return known.get(task)

    def rubrics(self, file: str | None, protocols: Sequence[str]) -> dict[str, str]:
        """The text of each protocol's rubric: those of a file, and Epigone's for the others."""
        folder = self._folder or Path.cwd()
        return rubrics(None if file is None else folder / Path(file).expanduser(), protocols)

    def suite(self, task: str) -> str:
        """The version of lm-eval where the task is its own, else ""."""
        if task in known_tasks():
            return ""
        return lm_eval_version(task)


def locked_fingerprints(root: Path) -> Mapping[str, str]:
    """The fingerprints that an earlier run of the study wrote into its lock file."""
    try:
        found = read_json(root / "study.lock.json")["references"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def lock_document(declaration: Declaration, expansion: Expansion, world: World) -> dict[str, Any]:
    """What a study's lock file holds: revisions and hashes, cells, steps.

    Raises UserError for a reference whose revision is not known.
    """
    unresolved = [ref for ref, found in world.seen.items() if found.startswith(UNRESOLVED)]
    if unresolved:
        raise UserError("reference without a revision", value=unresolved[0])
    return {
        "study": declaration.name,
        "references": world.seen,
        "cells": [
            {
                "model": s.model,
                "base": s.base,
                **(asdict(s.cell) if s.cell else {}),
                "steps": [step.name for step in expansion.steps_of(s)],
            }
            for s in expansion.subjects
        ],
        "steps": [
            {"step": s.name, "hash": s.hash, "model": s.model, "identity": s.identity}
            for s in expansion.steps
        ],
    }
