"""Steps on disk: a folder per step, complete when its record is there."""

from __future__ import annotations

import os
import platform
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from epigone.errors import EpigoneError, NewerFormat
from epigone.files import SCRATCH, fsync_dir, read_json, sha256_file, write_json
from epigone.processes import cores
from epigone.schema import Record
from epigone.study.step import Step

RECORD = "record.json"
LOG = "log.txt"
FAILURE = "failure.json"
LIVE = "progress.json"
# How files of weights end; copies of a study may be without those of its students.
WEIGHTS = ".safetensors"
_PARTIAL = ".partial"
# Files of a step's folder that tell of the work and not of the result.
_ABOUT = frozenset({RECORD, LOG, FAILURE, LIVE})


class Damaged(EpigoneError):
    """A step's folder does not hold what its record says."""


@dataclass(frozen=True, slots=True)
class Store:
    """The folder of one study: runs/<study>."""

    root: Path
    # Whether what is missing here may lie elsewhere, at a URL, and comes when it is needed.
    mirror: bool = False

    def folder(self, step: Step) -> Path:
        """Where a finished step lies."""
        return self.root.joinpath("steps", step.name)

    def partial(self, step: Step) -> Path:
        """Where a step works until it is finished."""
        return partial_of(self.folder(step))

    def record(self, step: Step) -> Record | None:
        """The record of a finished step, None where it is not finished.

        Raises Damaged for a record that is unreadable or belongs to another identity.
        """
        record = read_record(self.folder(step))
        if record is not None and record.hash != step.hash:
            raise Damaged(
                f"{self.folder(step)} holds another step; delete the folder to make it again"
            )
        return record

    def failure(self, step: Step) -> Mapping[str, Any] | None:
        """What a failed step left behind, None where it did not fail."""
        return _json_or_none(self.partial(step) / FAILURE)

    def live(self, step: Step) -> Mapping[str, Any] | None:
        """The last progress that a step wrote while it worked."""
        return _json_or_none(self.partial(step) / LIVE)


class Listing:
    """What lies in a store, each stage's folder listed once: true of the moment of the listing.

    A study of many cells asks about tens of thousands of steps, most of which are not there.
    """

    def __init__(self, store: Store) -> None:
        """List nothing yet."""
        self.store = store
        self._stages: dict[str, Mapping[str, Sequence[str]]] = {}

    def record(self, step: Step) -> Record | None:
        """As `Store.record`, Damaged included."""
        return self.store.record(step) if _base(step) in self._folders(step) else None

    def failure(self, step: Step) -> Mapping[str, Any] | None:
        """As `Store.failure`."""
        return self.store.failure(step) if self.has_partial(step) else None

    def has_partial(self, step: Step) -> bool:
        """Whether a step has begun and is not finished."""
        return _base(step) + _PARTIAL in self._folders(step)

    def relatives(self, step: Step) -> Iterator[Record]:
        """Records of finished steps of the same stage and axes but another identity."""
        for name in self._folders(step):
            if name == _base(step) or name.endswith(_PARTIAL):
                continue
            try:
                record = read_record(self.store.root / "steps" / step.stage / name)
            except (Damaged, NewerFormat):
                continue
            if record is not None and record.slug == step.slug and record.hash != step.hash:
                yield record

    def _folders(self, step: Step) -> Sequence[str]:
        """Names of the folders of a step's stage and slug, whatever their hashes."""
        if step.stage not in self._stages:
            self._stages[step.stage] = _by_slug(self.store.root / "steps" / step.stage)
        return self._stages[step.stage].get(step.slug, ())


def _base(step: Step) -> str:
    return step.name.partition("/")[2]


def _by_slug(folder: Path) -> Mapping[str, Sequence[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    with suppress(FileNotFoundError):
        for name in sorted(os.listdir(folder)):
            # A name ends in "-" and eight digits of the hash.
            found[name.removesuffix(_PARTIAL)[:-9]].append(name)
    return found


def partial_of(folder: Path) -> Path:
    """The folder in which a step works until it is finished."""
    return folder.with_name(folder.name + _PARTIAL)


def read_record(folder: Path) -> Record | None:
    """The record in a folder, None where there is none.

    Raises Damaged for an unreadable one, NewerFormat for one that a newer Epigone wrote.
    """
    file = folder / RECORD
    try:
        return Record.from_json(read_json(file))
    except (FileNotFoundError, NotADirectoryError):
        if not folder.exists():
            return None
        if not file.exists():  # looked at again, for it may have been sealed meanwhile
            raise Damaged(f"{folder} has no record; delete the folder to make it again") from None
        return read_record(folder)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Damaged(f"{file} is damaged ({error}); delete its folder to make it again") from None


def missing(folder: Path, record: Record) -> list[str]:
    """Names of outputs that are absent or not as large as they were; no file is read.

    A record of format 1 tells no sizes: only what is absent is found.
    """
    found = []
    for name in record.outputs:
        try:
            about = os.stat(folder / name)
        except OSError:
            found.append(name)
            continue
        if about.st_size != record.sizes.get(name, about.st_size):
            found.append(name)
    return found


def remake(folder: Path, name: str) -> str:
    """The line for a file of a finished step that is not as it was."""
    return f"{folder / name} is damaged or missing; delete the folder {folder} to make it again"


def verify(folder: Path) -> list[str]:
    """Names of output files that are missing or differ from the record's hashes."""
    record = read_record(folder)
    if record is None:
        return [RECORD]
    return [
        name
        for name, sha in record.outputs.items()
        if not (folder / name).is_file() or sha256_file(folder / name) != sha
    ]


def outputs(folder: Path) -> dict[str, str]:
    """sha256 of every result file below a folder, by relative path, in sorted order."""
    return {
        name: sha256_file(folder / name)
        for name in sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
        if name not in _ABOUT and not name.startswith(SCRATCH)
    }


def seal(
    partial: Path, folder: Path, record: Record, check: Callable[[], None] = lambda: None
) -> Record:
    """Make a finished step count: everything to the disk, the record last, then one rename.

    The record is returned as it is written, with the sizes of the outputs. `check` raises where
    the step is no longer this process's: a disk may hang for longer than a lease lasts.
    """
    sizes: dict[str, int] = {}
    for name in record.outputs:
        fd = os.open(partial / name, os.O_RDONLY)
        try:
            os.fsync(fd)
            sizes[name] = os.fstat(fd).st_size
        finally:
            os.close(fd)
    record = replace(record, sizes=sizes)
    check()
    write_json(partial / RECORD, record.to_json())
    check()
    publish(partial, folder)
    return record


def publish(partial: Path, folder: Path) -> None:
    """The last part of `seal`: a partial folder that has its record becomes the step's folder."""
    # The record stands, so what a killed step would continue from may go.
    shutil.rmtree(partial / SCRATCH, ignore_errors=True)
    (partial / LIVE).unlink(missing_ok=True)
    partial.rename(folder)
    fsync_dir(folder.parent)


def environment() -> dict[str, Any]:
    """Versions and machine, for the record; never part of an identity."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "cpus": cores(),
        "versions": _versions(),
    }


# Reading what is installed takes longer than all else that is done about a small step.
@cache
def _versions() -> Mapping[str, str]:
    names = ("epigone", "torch", "transformers", "tokenizers", "lm_eval", "vllm", "numpy", "scipy")
    found: dict[str, str] = {}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _json_or_none(path: Path) -> Mapping[str, Any] | None:
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
