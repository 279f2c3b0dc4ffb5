"""Steps on disk: a folder per step, complete when its record is there."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from epigone.errors import EpigoneError
from epigone.files import SCRATCH, fsync_dir, read_json, sha256_file, write_json
from epigone.processes import cores
from epigone.schema import Record
from epigone.study.step import Step

RECORD = "record.json"
LOG = "log.txt"
FAILURE = "failure.json"
LIVE = "progress.json"
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
        return self.root / "steps" / step.name

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

    def relatives(self, step: Step) -> Iterator[Record]:
        """Records of finished steps of the same stage and axes but another identity."""
        parent = self.folder(step).parent
        if not parent.is_dir():
            return  # a study of many cells asks this of each of its steps
        for folder in sorted(parent.glob(f"{step.slug}-????????")):
            try:
                record = read_record(folder)
            except Damaged:
                continue
            if record is not None and record.slug == step.slug and record.hash != step.hash:
                yield record


def partial_of(folder: Path) -> Path:
    """The folder in which a step works until it is finished."""
    return folder.with_name(folder.name + ".partial")


def read_record(folder: Path) -> Record | None:
    """The record in a folder, None where there is none; raises Damaged for an unreadable one."""
    file = folder / RECORD
    if not file.exists():
        if folder.exists():
            raise Damaged(f"{folder} has no record; delete the folder to make it again")
        return None
    try:
        return Record.from_json(read_json(file))
    except (ValueError, TypeError, KeyError) as error:
        raise Damaged(f"{file} is damaged ({error}); delete its folder to make it again") from None


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


def seal(partial: Path, folder: Path, record: Record) -> None:
    """Make a finished step count: everything to the disk, the record last, then one rename."""
    for name in record.outputs:
        fd = os.open(partial / name, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    write_json(partial / RECORD, record.to_json())
    publish(partial, folder)


def publish(partial: Path, folder: Path) -> None:
    """The last part of `seal`: a partial folder that has its record becomes the step's folder."""
    # The record stands, so what a killed step would continue from may go.
    shutil.rmtree(partial / SCRATCH, ignore_errors=True)
    (partial / LIVE).unlink(missing_ok=True)
    partial.rename(folder)
    fsync_dir(folder.parent)


def environment() -> dict[str, Any]:
    """Versions and machine, for the record; never part of an identity."""
    names = ("epigone", "torch", "transformers", "tokenizers", "lm_eval", "vllm", "numpy", "scipy")
    versions: dict[str, str] = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "cpus": cores(),
        "versions": versions,
    }


def _json_or_none(path: Path) -> Mapping[str, Any] | None:
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
