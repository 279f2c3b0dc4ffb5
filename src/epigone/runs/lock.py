"""A study's lock file: the revisions, steps and places that its last run had."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from epigone.errors import NewerFormat, UserError
from epigone.files import read_json, write_aside
from epigone.formats import LOCK
from epigone.models import references
from epigone.runs.resolve import UNRESOLVED, World
from epigone.study.declare import Declaration
from epigone.study.specs import ModelSpec
from epigone.study.step import STAGES
from epigone.study.steps import Expansion

NAME = "study.lock.json"
STUDY = "study.yaml"
FILES = "files"

_PART = re.compile(r"[^/\\\x00-\x1f\x7f]{1,255}")
_STEP = re.compile(r"[a-z0-9_][a-z0-9._-]{0,160}-[0-9a-f]{8}")
_MARK = re.compile(r"[0-9a-f]{8}")
_DEEPEST = 24


@dataclass(frozen=True, slots=True)
class Kept:
    """A file or folder that the study file names, copied to `path` below the study's folder.

    `sha256` is that of the file, or of the list of a folder's files.
    """

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Lock:
    """What a lock file says: fingerprints by reference, hashes by step, copies by what they are of.

    `parameters` are how many the bases have, by name. `folder` is where the study file lay, None
    where that is not known; `trouble` says why the file cannot be read, empty where it can be or
    there is none.
    """

    study: str = ""
    references: Mapping[str, str] = field(default_factory=dict)
    steps: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Kept] = field(default_factory=dict)
    parameters: Mapping[str, int] = field(default_factory=dict)
    folder: Path | None = None
    trouble: str = ""
    document: Mapping[str, Any] = field(default_factory=dict)


def read_lock(root: Path) -> Lock:
    """The lock of a study's folder; an empty one where there is none or it cannot be read.

    Raises NewerFormat for a study that a newer Epigone ran.
    """
    file = root / NAME
    try:
        document = read_json(file)
        LOCK.of(document, file)
        _refuse_newer_stages(document, file)
        folder = str(document.get("folder", ""))
        return Lock(
            study=str(document.get("study", "")),
            references={str(k): str(v) for k, v in document["references"].items()},
            steps={str(s["step"]): str(s["hash"]) for s in document.get("steps", ())},
            files={str(k): _copy(**v) for k, v in document.get("files", {}).items()},
            parameters={str(k): int(v) for k, v in document.get("parameters", {}).items()},
            folder=Path(folder) if folder else None,
            document=document,
        )
    except FileNotFoundError:
        return Lock()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Lock(trouble=str(error) or type(error).__name__)


def _refuse_newer_stages(document: Mapping[str, Any], file: Path) -> None:
    for step in document.get("steps", ()):
        identity = step["identity"]
        known = STAGES.get(identity["stage"])
        newest = 0 if known is None else known.version
        if identity["version"] > newest:
            stage = f"the stage {identity['stage']}"
            raise NewerFormat(stage, identity["version"], newest, str(file))


def may_lie(path: str) -> bool:
    """Whether a path below a study's folder is where steps and copies have files, and no other."""
    parts = path.split("/")
    if len(parts) > _DEEPEST or any(p in (".", "..") or not _PART.fullmatch(p) for p in parts):
        return False
    match parts:
        case ["steps", stage, step, *rest]:
            shown = not any(p.startswith(".") for p in rest)
            return stage in STAGES and bool(_STEP.fullmatch(step)) and bool(rest) and shown
        case [top, mark, *rest] if top == FILES:
            return bool(_MARK.fullmatch(mark)) and bool(rest)
    return False


def _copy(path: str, sha256: str) -> Kept:
    # A lock may come from anywhere, and what it names is read, copied and given to steps.
    if not (path.startswith(f"{FILES}/") and may_lie(path)):
        raise ValueError(f"it names a copy outside of {FILES}/: {path!r}"[:160])
    return Kept(path, sha256)


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a study which was run, with its own copy of the study file."""
    return (folder / STUDY).is_file() and ((folder / NAME).is_file() or (folder / "steps").is_dir())


def base_folder(file: Path, root: Path, lock: Lock) -> Path:
    """Where the paths of a study file start: its folder; of a run's copy, the original's."""
    if file.resolve() != root / STUDY:
        return file.parent
    return lock.folder if lock.folder is not None and lock.folder.is_dir() else root


def world_of(file: Path, root: Path, *, online: bool) -> World:
    """The world as the study file `file`, whose steps lie in `root`, and its last run see it."""
    lock = read_lock(root)
    return World(
        online=online,
        locked=lock.references,
        folder=base_folder(file, root, lock),
        kept={name: root / kept.path for name, kept in lock.files.items()},
    )


def lock_document(
    declaration: Declaration, expansion: Expansion, world: World, root: Path
) -> dict[str, Any]:
    """What a study's lock file holds: revisions and hashes, cells, steps, places.

    What the study names and is part of no step's folder, such as a template, is copied to `root`.
    Raises UserError for a reference whose revision is not known.
    """
    unresolved = [ref for ref, found in world.seen.items() if found.startswith(UNRESOLVED)]
    if unresolved:
        raise UserError("reference without a revision", value=unresolved[0])
    named = {*world.seen, *world.texts}
    before = read_lock(root)
    kept = {name: k for name, k in before.files.items() if name in named}
    kept |= {name: _keep(path, root) for name, path in world.texts.items()}
    folder = world.folder.resolve()
    return LOCK.mark(
        {
            "study": declaration.name,
            "folder": "" if folder == root.resolve() else str(folder),
            "references": world.seen,
            "files": {name: asdict(k) for name, k in kept.items()},
            "parameters": _parameters(expansion, before.parameters),
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
    )


def _parameters(expansion: Expansion, before: Mapping[str, int]) -> dict[str, int]:
    """How many parameters each base has; of one that is gone, what an earlier run saw."""
    specs = [s.spec for s in expansion.steps]
    named = (getattr(spec, field, None) for spec in specs for field in ("base", "model"))
    bases = {m.name: m.ref for m in named if isinstance(m, ModelSpec) and m.kind == "base"}
    found = {name: references.parameters(ref) or before.get(name) for name, ref in bases.items()}
    return {name: count for name, count in found.items() if count}


def kept_name(ref: str, sha256: str) -> str:
    """Where the copy of what a study names goes, below the study's folder."""
    name = os.path.basename(ref.removeprefix("gguf:").rstrip("/"))
    name = name if may_lie(f"{FILES}/{'0' * 8}/{name}") else "data"
    return f"{FILES}/{hashlib.sha256(f'{ref} {sha256}'.encode()).hexdigest()[:8]}/{name}"


def _keep(path: Path, root: Path) -> Kept:
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    place = kept_name(str(path.name), sha256)
    if not (root / place).is_file():
        with write_aside(root / place) as f:
            f.write(content)
    return Kept(place, sha256)
