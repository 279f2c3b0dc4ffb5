"""One step, from its task to its sealed folder; the same for a study, a verb and Python."""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import re
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from epigone.errors import EpigoneError, StepFailed, Stopped, UserError
from epigone.files import SCRATCH, write_json, write_text
from epigone.models import references
from epigone.runs.lease import ours
from epigone.runs.store import (
    FAILURE,
    LIVE,
    LOG,
    RECORD,
    environment,
    outputs,
    partial_of,
    publish,
    read_record,
    seal,
    verify,
)
from epigone.schema import Progress, Record
from epigone.study.identity import digest
from epigone.study.specs import DataSpec, ModelSpec, SourceSpec, Spec, asked_model
from epigone.study.step import STAGES, Step, identity

_LIVE_SECONDS = 1.0
# What libraries say, by errors of no type of their own, where disk, memory or threads run out, or
# where a process that helps was killed.
_RUN_OUT = re.compile(
    r"\(os error \d+\)|no space left|file write failed|can't start new thread|out of memory"
    r"|can(not|'t) allocate memory|bad_alloc|resource temporarily unavailable"
    r"|failed to map segment|terminated abruptly|killed by signal",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Task:
    """A step as it is handed to the process that performs it; JSON all through."""

    stage: str
    slug: str
    hash: str
    identity: dict[str, Any]
    spec: dict[str, Any]
    inputs: dict[str, str]
    folder: str
    lease: str = ""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Task:
        """The inverse of `to_json`."""
        return cls(**json.loads(line))


def task_of(step: Step, folder: Path, inputs: Mapping[str, Path], lease: str = "") -> Task:
    """The task of a study's step; it is given up where the file `lease` is no longer the newest."""
    return Task(
        stage=step.stage,
        slug=step.slug,
        hash=step.hash,
        identity=step.identity,
        spec=step.spec.model_dump(mode="json"),
        inputs={role: str(path) for role, path in inputs.items()},
        folder=str(folder),
        lease=lease,
    )


def task_alone(stage: str, spec: Spec, inputs: Mapping[str, Path], folder: Path) -> Task:
    """The task of a stage that is used by itself; its inputs are folders of any origin."""
    document = identity(stage, spec, {role: _input_hash(path) for role, path in inputs.items()})
    return Task(
        stage=stage,
        slug=folder.name,
        hash=digest(document),
        identity=document,
        spec=spec.model_dump(mode="json"),
        inputs={role: str(path.resolve()) for role, path in inputs.items()},
        folder=str(folder.resolve()),
    )


def stage_function(stage: str) -> Callable[..., dict[str, Any]]:
    """The function behind a stage's lazy string."""
    module, _, name = STAGES[stage].run.partition(":")
    function: Callable[..., dict[str, Any]] = getattr(importlib.import_module(module), name)
    return function


def perform(
    task: Task, progress: Progress, check: Callable[[Mapping[str, Any]], None] = lambda facts: None
) -> Record:
    """Do a task in its .partial folder and seal it.

    A folder that already holds the task's result is left as it is. UserError passes through; any
    other error becomes StepFailed with its last line, the whole traceback goes into failure.json.
    Where `check` refuses the facts, nothing of the result stays.
    """
    folder = Path(task.folder)
    partial = partial_of(folder)
    if folder.exists() and not (folder / RECORD).exists() and any(folder.iterdir()):
        raise UserError(
            "the folder holds something else", value=str(folder), fix="name an empty or new one"
        )
    partial.mkdir(parents=True, exist_ok=True)
    with _alone_in(partial):
        if (folder / RECORD).exists():
            clear(folder)
            record = _same(folder, task)
            check(record.facts)
            return record
        if (kept := _sealed_but_for_the_rename(partial, task)) is not None:
            _still_ours(task.lease)
            publish(partial, folder)
            return kept
        _sweep(partial, task)
        spent = _Clock(partial)
        started = datetime.now(UTC)
        spec = STAGES[task.stage].spec.model_validate_json(json.dumps(task.spec))
        inputs = {role: Path(path) for role, path in task.inputs.items()}
        try:
            tell = _live(partial, progress, spent, task.lease)
            fetching = fetch(spec, tell)
            spent.begin()
            with _kept(task.stage, spec, tell):
                facts = stage_function(task.stage)(spec, inputs, partial, tell)
            _pass(facts, check, partial)
        except UserError as error:
            _fail(partial, str(error))
            raise
        except (Exception, MemoryError) as error:
            _fail(partial, _last_line(error), traceback.format_exc(), fault=_is_fault(error))
            if isinstance(error, StepFailed):
                raise
            raise StepFailed(_last_line(error)) from error
        record = Record(
            stage=task.stage,
            slug=task.slug,
            hash=task.hash,
            identity=task.identity,
            inputs=dict(task.identity["inputs"]),
            outputs=outputs(partial),
            facts=facts,
            started=started.isoformat(timespec="seconds"),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(spent.seconds(), 3),
            fetch_seconds=round(fetching, 3),
            peak_bytes=_peak_bytes(),
            environment=environment(),
        )
        return seal(partial, folder, record, lambda: _still_ours(task.lease))


@contextmanager
def _kept(stage: str, spec: Spec, progress: Progress) -> Iterator[None]:
    """What a step that measures asks a teacher's or judge's endpoint goes into its ledger."""
    model = asked_model(spec)
    if stage == "ask" or model is None:
        yield
        return
    from epigone.teachers.keeper import keeping

    with keeping(model, lambda: progress(0, 1, "waiting for another process that asks")):
        yield


def _pass(facts: dict[str, Any], check: Callable[[Mapping[str, Any]], None], partial: Path) -> None:
    try:
        check(facts)
    except UserError:
        for made in partial.iterdir():
            shutil.rmtree(made) if made.is_dir() else made.unlink()
        raise


def fetch(spec: Spec, progress: Progress) -> float:
    """Have on this machine what a step needs from elsewhere; the seconds that it took.

    They count as none of the step's work.
    """
    begun = time.monotonic()
    for part in _references(spec):
        if references.parse(part.ref).kind == "endpoint":
            continue
        locate = references.locate_data if isinstance(part, DataSpec) else references.locate
        locate(part.ref, progress, fingerprint=part.fingerprint)
    return time.monotonic() - begun


def _references(value: object) -> Iterator[ModelSpec | SourceSpec]:
    if isinstance(value, ModelSpec | SourceSpec):
        if value.ref:
            yield value
    elif isinstance(value, Spec):
        for _, part in value:
            yield from _references(part)
    elif isinstance(value, tuple):
        for part in value:
            yield from _references(part)


def _same(folder: Path, task: Task) -> Record:
    record = read_record(folder)
    if record is None or record.hash != task.hash:
        raise UserError(
            "the folder holds the result of another request",
            value=str(folder),
            fix="name another folder, or delete this one",
        )
    return record


@contextmanager
def _alone_in(partial: Path) -> Iterator[None]:
    # A process that outlives its killed runner by a moment must not write beside its successor.
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks: there, the lease has to do
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sealed_but_for_the_rename(partial: Path, task: Task) -> Record | None:
    try:
        record = Record.from_json(json.loads((partial / RECORD).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    # It may be of a process that lost the step after its files were written over.
    return record if record.hash == task.hash and not verify(partial) else None


def _sweep(partial: Path, task: Task) -> None:
    # What another request has left in a folder that the user names is no start for this one.
    asked = partial / SCRATCH / "asked"
    if not asked.exists() or asked.read_text() != task.hash:
        for left in partial.iterdir():
            if left.name != LOG:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        write_text(asked, task.hash)
    # What an earlier, killed attempt was writing aside is no output.
    for name in (FAILURE, LIVE):
        (partial / name).unlink(missing_ok=True)
    for torn in (*partial.rglob("*.tmp"), *partial.rglob(".*.tmp")):
        if torn.is_dir():
            shutil.rmtree(torn)
        else:
            torn.unlink(missing_ok=True)


class _Clock:
    """Seconds that a step has worked, over all its attempts."""

    def __init__(self, partial: Path) -> None:
        self._file = partial / SCRATCH / "seconds"
        self._begun = time.monotonic()
        try:
            self._before = float(self._file.read_text())
        except (OSError, ValueError):
            self._before = 0.0

    def begin(self) -> None:
        self._begun = time.monotonic()

    def seconds(self) -> float:
        return self._before + time.monotonic() - self._begun

    def note(self) -> None:
        self._file.parent.mkdir(exist_ok=True)
        aside = self._file.with_suffix(".tmp")
        aside.write_text(f"{self.seconds():.1f}")
        aside.replace(self._file)


def _still_ours(lease: str) -> None:
    # This process may have been stopped for so long that another machine took the step over.
    if lease and not ours(Path(lease)):
        raise Stopped("another runner has taken the step over")


def _live(partial: Path, progress: Progress, spent: _Clock, lease: str) -> Progress:
    last = 0.0

    def tell(done: float, total: float, note: str = "") -> None:
        nonlocal last
        progress(done, total, note)
        now = time.monotonic()
        if now - last > _LIVE_SECONDS:
            last = now
            _still_ours(lease)
            aside = partial / (LIVE + ".tmp")
            aside.write_text(json.dumps({"done": done, "total": total, "note": note[:200]}))
            aside.replace(partial / LIVE)
            spent.note()

    return tell


def _is_fault(error: BaseException) -> bool:
    """Whether an error would come again: it is none of memory, disk, network, or a request."""
    if _RUN_OUT.search(str(error)):
        return False
    return not isinstance(error, OSError | MemoryError | EpigoneError) or isinstance(
        error, StepFailed
    )


def _fail(partial: Path, message: str, trace: str = "", fault: bool = False) -> None:
    row = {"error": message, "fault": fault, "traceback": trace[-20_000:]}
    try:
        write_json(partial / FAILURE, row)
    except OSError:
        # A full disk is the likeliest reason to fail at all; the message still reaches the runner.
        print(message, file=sys.stderr)


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
    if isinstance(error, EpigoneError) and lines:
        text = lines[0]
    return text[:500]


def _input_hash(path: Path) -> str:
    record = path / "record.json"
    if record.is_file():
        return str(json.loads(record.read_text())["hash"])
    return digest({"files": outputs(path)})


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def clear(folder: Path) -> None:
    """Delete what an unfinished or failed step left."""
    shutil.rmtree(partial_of(folder), ignore_errors=True)
