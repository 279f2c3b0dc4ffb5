"""The local executor: steps in processes of their own on this machine, each GPU given to one."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from epigone.errors import MachineLost, StepFailed, Stopped, UserError
from epigone.processes import cores
from epigone.runs.machine import gpu_names, here
from epigone.runs.needs import Machine, Needs
from epigone.runs.perform import Task
from epigone.runs.worker import GRACE_SECONDS
from epigone.schema import Progress, Record

# What of the machine's memory steps may be expected to take together.
_SHARE = 0.85
# Threads here only wait for what steps tell.
_WAITING = 512


class Told(UserError):
    """A user's mistake that a worker has already put into one line."""

    def __init__(self, line: str) -> None:
        super().__init__(line)


class Local:
    """Steps on this machine."""

    # How long a step takes here says how long the next one will.
    learns = True
    growing_seconds = 0.0

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Start nothing yet; steps see `environment` beside this process's own."""
        self._worker = Worker(environment)
        self._threads = ThreadPoolExecutor(_WAITING)
        self._lock = threading.Lock()
        self._machines = machines_here()
        self._gpus = gpu_names(self._machines[0].has.gpus)

    def machines(self) -> Sequence[Machine]:
        """This machine."""
        return self._machines

    def submit(
        self, task: Task, needs: Needs, places: Sequence[int], tell: Progress
    ) -> Future[Record]:
        """Begin a step with the cores that it needs and with GPUs that nobody else has."""
        with self._lock:
            gpus = [self._gpus.pop(0) for _ in range(needs.gpus)]
        return self._threads.submit(self._run, task, tell, max(1, needs.cpus), gpus)

    def end(self, task: Task) -> None:
        """End a step; training saves before."""
        self._worker.end(task)

    def stop(self) -> None:
        """End all steps; training saves before."""
        self._worker.stop()
        self._threads.shutdown()

    def _run(self, task: Task, tell: Progress, threads: int, gpus: Sequence[str]) -> Record:
        try:
            return self._worker.run(task, tell, threads, gpus)
        finally:
            # Before anybody hears of the end, and begins what needs them.
            with self._lock:
                self._gpus.extend(gpus)


def _next(events: SimpleQueue[dict[str, Any]]) -> dict[str, Any]:
    # Whoever cancels a task of Ray is heard only between two waits.
    while True:
        with suppress(Empty):
            return events.get(timeout=1.0)


def _lines(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """What a process writes, until it ends; what it started may hold the pipe for longer."""
    assert process.stdout is not None
    descriptor, buffer = process.stdout.fileno(), b""
    ready = select.poll()
    ready.register(descriptor, select.POLLIN)
    while True:
        ended = process.poll() is not None
        if not ready.poll(0 if ended else 1000):
            if ended:
                return
            continue
        block = os.read(descriptor, 1 << 16)
        if not block:
            return
        *lines, buffer = (buffer + block).split(b"\n")
        yield from lines


def machines_here() -> tuple[Machine]:
    """This machine as the only one."""
    found = here()
    has = Needs(cores(), len(found.gpus), _SHARE * found.ram)
    return (Machine("here", has, min((size for _, size in found.gpus), default=0)),)


class Worker:
    """The `epigone.runs.worker` process; started with the first step, it serves all of them."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Start nothing yet; steps see `environment` beside this process's own."""
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._lock = threading.Lock()
        # Who waits for the events of which folder's task.
        self._waiting: dict[str, SimpleQueue[dict[str, Any]]] = {}

    def run(
        self, task: Task, tell: Progress, threads: int, gpus: Sequence[str] | None = None
    ) -> Record:
        """Perform one step; raises StepFailed, or UserError for a mistake that only work shows.

        It sees the `gpus` alone; None leaves those of this process. Raises Stopped where the step's
        process was asked to end by somebody else.
        """
        events: SimpleQueue[dict[str, Any]] = SimpleQueue()
        with self._lock:
            if self._stopped:
                raise StepFailed("the run has ended")
            process = self._process or self._start()
            self._waiting[task.folder] = events
            self._say(process, {"task": task.to_json(), "threads": threads, "gpus": gpus})
        tell(0, 0)
        while (event := _next(events))["event"] == "progress":
            tell(event["done"], event["total"], event["note"])
        if event["event"] == "finished":
            return Record.from_json(event["record"])
        if event["event"] == "stopped":
            raise Stopped(event["error"])
        if event["event"] == "lost":
            raise MachineLost(event["error"])
        if event["user"]:
            raise Told(event["error"])
        raise StepFailed(event["error"])

    def end(self, task: Task) -> None:
        """Ask the process of a step to end, and make it where it does not; `run` tells how."""
        with self._lock:
            if self._process is not None and task.folder in self._waiting:
                self._say(self._process, {"end": task.folder})

    def _say(self, process: subprocess.Popen[bytes], line: Mapping[str, Any]) -> None:
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # told by `_listen`: the worker's output has ended
            process.stdin.write(f"{json.dumps(line)}\n".encode())
            process.stdin.flush()

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "epigone.runs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A library that starts threads when it is imported must find one to be enough.
            env={
                **os.environ,
                **self._environment,
                "OMP_NUM_THREADS": "1",
                "TOKENIZERS_PARALLELISM": "true",
            },
            # An interrupt at the terminal is the runner's to act on.
            start_new_session=True,
        )
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()
        return self._process

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        for line in _lines(process):
            try:
                event: dict[str, Any] = json.loads(line)
            except ValueError:
                continue  # empty, or cut off by a kill
            # A process may have told how its step ended before it ended badly itself.
            if (waiting := self._waiting.get(event["folder"])) is not None:
                if event["event"] != "progress":
                    del self._waiting[event["folder"]]
                waiting.put(event)
        code = process.wait()
        how = f"ended with exit code {code}" if code >= 0 else f"was killed by signal {-code}"
        lack = ", perhaps for want of memory" if code == -signal.SIGKILL else ""
        error = f"the worker process {how}{lack}"
        with self._lock:
            if self._process is process:
                self._process = None
            for waiting in self._waiting.values():
                waiting.put({"event": "lost", "error": error})
            self._waiting.clear()

    def stop(self) -> None:
        """End the process, and with it the steps that it works on; training is saved before."""
        with self._lock:
            self._stopped, process = True, self._process
        if process is None:
            return
        with suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        try:
            process.wait(timeout=GRACE_SECONDS + 5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
