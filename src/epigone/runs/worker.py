"""The process in which steps run: `python -m epigone.runs.worker`, tasks in, events out.

Each task runs in a fork of a process that has already imported what its stage needs: memory is
free after each step, and none waits for torch to be imported again. What to do and what to end are
lines of JSON on stdin, events are such lines on stdout. Tasks run side by side as they come.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import math
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from epigone.errors import (
    BenchmarkError,
    EndpointError,
    EpigoneError,
    ModelError,
    SandboxError,
    Stopped,
    UserError,
)
from epigone.processes import die_with_parent
from epigone.runs.perform import Task, perform
from epigone.runs.store import LOG, environment, partial_of
from epigone.study.step import STAGES

_PROGRESS_SECONDS = 0.2
# A user's mistakes that concern one model, benchmark or machine: a study's other steps go on.
_ONE_STEPS = (BenchmarkError, EndpointError, ModelError, SandboxError)
# What a step is given to save its work before it is killed.
GRACE_SECONDS = 20.0
# The exit code of a step's process that has told how it ended; any other one has not.
_TOLD = 77


def main() -> None:
    """Serve tasks until stdin ends, which it does when the runner dies, however it dies."""
    # An interrupt at the terminal, or a scheduler's end, may reach all processes; the runner
    # decides what ends, and a worker that went by itself would take the step's work with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    events = Events(os.dup(sys.stdout.fileno()))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    children = _Children(events)
    environment()  # what is installed is read here once, and by no fork
    try:
        for line in _lines(children):
            asked = json.loads(line)
            if "end" in asked:
                children.end(asked["end"])
                continue
            task = Task.from_json(asked["task"])
            _import(STAGES[task.stage].preload)
            try:
                child = os.fork()
            except OSError as error:  # too many processes, or too little memory, for now
                told = f"no process could be started: {error.strerror}"
                events.tell(task, event="failed", error=told, user=False)
                continue
            if child == 0:
                children.tasks.clear()  # they are not the fork's to end
                _child(task, asked["threads"], asked["gpus"], events)
            children.tasks[child] = task
    finally:
        _end(children.tasks)


def _import(modules: Iterable[str]) -> None:
    """Import them, and have the collector of garbage leave alone what they made, here and in forks.

    Millions of objects that stay are no garbage: looking through them again and again took a fifth
    of the time, and a fork that does so copies the memory it looks at.
    """
    gc.disable()
    for module in modules:
        # A module that cannot be imported is the step's own failure, told from the fork.
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    gc.freeze()
    gc.enable()


class Events:
    """Lines of JSON to the runner, from this process and from its forks."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        # A long line is no single write, so writers take turns; a lock dies with its process.
        self._turn = tempfile.TemporaryFile()  # noqa: SIM115

    def tell(self, task: Task, **event: Any) -> None:
        """One event of a task; it begins on a new line though a killed writer's last had no end."""
        line = f"\n{json.dumps({'folder': task.folder, **event})}\n".encode()
        fcntl.lockf(self._turn, fcntl.LOCK_EX)
        try:
            # A runner that has gone hears nothing, and a step that is about to save has not failed
            # by it.
            with contextlib.suppress(BrokenPipeError):
                while line:
                    line = line[os.write(self._descriptor, line) :]
        finally:
            fcntl.lockf(self._turn, fcntl.LOCK_UN)


class _Children:
    """The processes of the steps that are being worked on."""

    def __init__(self, events: Events) -> None:
        self.tasks: dict[int, Task] = {}
        self._events = events
        # When a process that was asked to end has had its time.
        self._until: dict[int, float] = {}

    def end(self, folder: str) -> None:
        """Ask a step's process to end; training saves what it has done first."""
        for child, task in self.tasks.items():
            if task.folder == folder and child not in self._until:
                os.kill(child, signal.SIGTERM)
                self._until[child] = time.monotonic() + GRACE_SECONDS

    def reap(self) -> None:
        """Take leave of those that have ended, and kill those that were to."""
        for child, task in list(self.tasks.items()):
            if time.monotonic() > self._until.get(child, math.inf):
                os.kill(child, signal.SIGKILL)
            pid, status = os.waitpid(child, os.WNOHANG)
            if not pid:
                continue
            del self.tasks[child]
            self._until.pop(child, None)
            if os.waitstatus_to_exitcode(status) != _TOLD:
                self._events.tell(task, event="failed", error=_how(status), user=False)


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL:
        return "the step's process was killed by signal 9, perhaps for want of memory"
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"the step's process {how}"


def _lines(children: _Children) -> Iterator[str]:
    buffer = b""
    runner = select.poll()
    runner.register(0, select.POLLIN)
    while True:
        ready = runner.poll(50 if children.tasks else None)
        children.reap()
        if not ready:
            continue
        block = os.read(0, 65536)
        if not block:
            return
        buffer += block
        while b"\n" in buffer:
            line, buffer = buffer.split(b"\n", 1)
            yield line.decode()


def _end(children: Iterable[int]) -> None:
    """End steps; training saves what it has done first, any other work ends at once."""
    left = set(children)
    for child in left:
        os.kill(child, signal.SIGTERM)
    last = time.monotonic() + GRACE_SECONDS
    while left and time.monotonic() < last:
        left -= {child for child in left if os.waitpid(child, os.WNOHANG)[0]}
        time.sleep(0.05)
    for child in left:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _child(task: Task, threads: int, gpus: list[str] | None, events: Events) -> NoReturn:
    die_with_parent()
    _use(threads, gpus)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        partial = partial_of(Path(task.folder))
        partial.mkdir(parents=True, exist_ok=True)
        log = os.open(partial / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        record = perform(task, _progress(events, task))
    except UserError as error:
        print(error, file=sys.stderr)  # its log, of which people are shown the end
        events.tell(task, event="failed", error=str(error), user=of_study(error))
    except (EpigoneError, OSError) as error:
        traceback.print_exception(error.__cause__ or error)
        events.tell(task, event="failed", error=str(error), user=False)
    except Stopped as stopped:
        events.tell(task, event="stopped", error=str(stopped))
    except BaseException as error:  # code of the user's own may want to exit
        traceback.print_exception(error)
        told = f"the step ended by {type(error).__name__}: {error}"[:500]
        events.tell(task, event="failed", error=told, user=False)
    else:
        events.tell(task, event="finished", record=record.to_json())
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: the exit handlers belong to the process that was forked.
    os._exit(_TOLD)


def of_study(error: UserError) -> bool:
    """Whether a user's mistake is one of the whole study, and not of one model or machine."""
    return not isinstance(error, _ONE_STEPS)


def _use(threads: int, gpus: list[str] | None) -> None:
    if gpus is not None:
        # Nothing has asked the driver yet: a process that has cannot fork and go on.
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = str(threads)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)  # it has read the environment already


def _progress(events: Events, task: Task) -> Any:
    last = 0.0

    def tell(done: float, total: float, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > _PROGRESS_SECONDS or done >= total:
            last = now
            events.tell(task, event="progress", done=done, total=total, note=note[:200])

    return tell


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    # Taking apart all that was imported would last a second, and nobody is helped by it.
    os._exit(0)
