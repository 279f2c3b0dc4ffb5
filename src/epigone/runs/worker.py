"""The process in which steps run: `python -m epigone.runs.worker`, tasks in, events out.

Each task runs in a fork of a process that has already imported what its stage needs: memory is
free after each step, and none waits for torch to be imported again. Tasks and events are lines of
JSON on stdin and stdout.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from epigone.errors import EpigoneError, Stopped, UserError
from epigone.processes import die_with_parent
from epigone.runs.perform import Task, perform
from epigone.runs.store import LOG, partial_of
from epigone.study.steps import STAGES

_PROGRESS_SECONDS = 0.2
# What a step is given to save its work before it is killed.
GRACE_SECONDS = 20.0


def main() -> None:
    """Serve tasks until stdin ends, which it does when the runner dies, however it dies."""
    # An interrupt at the terminal, or a scheduler's end, may reach all processes; the runner
    # decides what ends, and a worker that went by itself would take the step's work with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in _lines():
        task = Task.from_json(line)
        for module in STAGES[task.stage].preload:
            # A module that cannot be imported is the step's own failure, told from the fork.
            with contextlib.suppress(Exception):
                importlib.import_module(module)
        child = os.fork()
        if child == 0:
            _child(task, events)
        _wait(child, task, events)


def _lines() -> Iterator[str]:
    buffer = b""
    while True:
        block = os.read(0, 65536)
        if not block:
            return
        buffer += block
        while b"\n" in buffer:
            line, buffer = buffer.split(b"\n", 1)
            yield line.decode()


def _wait(child: int, task: Task, events: IO[str]) -> None:
    runner = select.poll()
    runner.register(0, 0)
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        # Only the hang-up counts: the next task may arrive before this child has quite ended.
        if any(event & select.POLLHUP for _, event in runner.poll(50)):
            _end(child)
            sys.exit(1)
    if status:
        code = os.waitstatus_to_exitcode(status)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        if code == -signal.SIGKILL:
            how += ", perhaps for want of memory"
        _tell(events, task, event="failed", error=f"the step's process {how}", user=False)


def _end(child: int) -> None:
    """End a step; training saves what it has done first, any other work ends at once."""
    os.kill(child, signal.SIGTERM)
    last = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < last:
        if os.waitpid(child, os.WNOHANG)[0]:
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _child(task: Task, events: IO[str]) -> NoReturn:
    die_with_parent()
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
        _tell(events, task, event="failed", error=str(error), user=True)
    except (EpigoneError, OSError) as error:
        _tell(events, task, event="failed", error=str(error), user=False)
    except Stopped as stopped:
        _tell(events, task, event="stopped", error=str(stopped))
    else:
        _tell(events, task, event="finished", record=record.to_json())
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: the exit handlers belong to the process that was forked.
    os._exit(0)


def _progress(events: IO[str], task: Task) -> Any:
    last = 0.0

    def tell(done: float, total: float, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > _PROGRESS_SECONDS or done >= total:
            last = now
            _tell(events, task, event="progress", done=done, total=total, note=note[:200])

    return tell


def _tell(events: IO[str], task: Task, **event: Any) -> None:
    # A runner that has gone hears nothing, and a step that is about to save has not failed by it.
    with contextlib.suppress(BrokenPipeError):
        events.write(json.dumps({"folder": task.folder, **event}) + "\n")
        events.flush()


if __name__ == "__main__":
    main()
