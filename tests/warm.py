"""Workers of runs as forks of one process that has imported what steps need.

A study that runs in a test's own process starts a worker, which imports torch, transformers and
lm-eval for five seconds of a core. Here one process imports them once for all tests of a test
process, and forks where a worker is to be started; what is forked does what the worker's module
does, with the pipes, environment and folder that it was to have. Studies that tests start by the
command line, in processes of their own, have real workers.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

WORKER = ["-m", "epigone.runs.worker"]
_PR_SET_CHILD_SUBREAPER = 36
Cold = subprocess.Popen


def use() -> None:
    """From now on start workers by forks, where the system lets a fork change its parent."""
    if sys.platform == "linux":
        subprocess.Popen = Warm  # type: ignore[misc]


class Warm(subprocess.Popen):  # type: ignore[type-arg]
    """A process as ever, but for a worker."""

    def _execute_child(self, args: Any, *rest: Any) -> None:
        env, pipes = rest[5], rest[9:15]
        read, _, _, write, _, errors = pipes
        worker = isinstance(args, list) and args[-2:] == WORKER and -1 not in (read, write)
        if not worker or os.getpid() != _server.owner:
            super()._execute_child(args, *rest)  # type: ignore[misc]
            return
        self.pid = _server.fork([read, write, 2 if errors == -1 else errors], env or os.environ)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


class _Server:
    """The process that forks; started when the first worker is."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._turn = threading.Lock()
        self._socket: socket.socket | None = None

    def fork(self, pipes: list[int], env: Any) -> int:
        """A worker's process id; it becomes a child of this process."""
        task = json.dumps({"cwd": os.getcwd(), "env": dict(env)}).encode()
        with self._turn, _adopting():
            here = self._socket = self._socket or _start()
            socket.send_fds(here, [task], pipes)
            return int(here.recv(64))


def _start() -> socket.socket:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with there:
        code = f"import runpy; runpy.run_path({__file__!r}, run_name='server')"
        Cold(
            [sys.executable, "-c", code, str(there.fileno())],
            pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "true"},
        )
    return here


@contextmanager
def _adopting() -> Iterator[None]:
    """Orphans below this process become its children, and not those of the system's first."""
    call = ctypes.CDLL(None).prctl
    call(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        call(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


_server = _Server()


def _serve(here: socket.socket) -> None:
    import gc

    from epigone.study.step import STAGES

    gc.disable()
    for stage in STAGES.values():
        for name in stage.preload:
            importlib.import_module(name)
    gc.freeze()
    gc.enable()
    while True:
        task, pipes, _, _ = socket.recv_fds(here, 1 << 20, 3)
        if not task:
            return
        told, tell = os.pipe()
        if not (between := os.fork()):
            if pid := os.fork():
                os.write(tell, str(pid).encode())
                os._exit(0)
            _become_worker(pipes, **json.loads(task))
        # Once the process between has ended, the worker is an orphan, and is adopted.
        os.waitpid(between, 0)
        here.send(os.read(told, 64))
        for number in (told, tell, *pipes):
            os.close(number)


def _become_worker(pipes: list[int], cwd: str, env: dict[str, str]) -> None:
    code = 1
    try:
        os.setsid()
        for number, pipe in enumerate(pipes):
            os.dup2(pipe, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        importlib.import_module("epigone.runs.worker").main()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "server":
    _serve(socket.socket(fileno=int(sys.argv[1])))
    os._exit(0)
