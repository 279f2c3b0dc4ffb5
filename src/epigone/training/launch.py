"""Processes of one training run: started here or by torchrun, told what to do, and stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

import torch
import torch.distributed as dist

from epigone.errors import EpigoneError, Stopped, UserError
from epigone.processes import die_with_parent
from epigone.schema import silent
from epigone.study.specs import TrainSpec
from epigone.training.layout import PARALLEL, Layout, launched, parse_layout, processes_asked
from epigone.training.parallel import World, join


def layout_asked() -> Layout:
    """The layout that the environment asks for, $EPIGONE_PARALLEL, on the processes there are.

    These are $WORLD_SIZE under a launcher, else $EPIGONE_PROCESSES, else one for each GPU.
    """
    started = processes_asked() or max(1, torch.cuda.device_count())
    return parse_layout(os.environ.get(PARALLEL, ""), started)


def train(spec: TrainSpec, corpus: Path, out: Path, progress: Any) -> dict[str, Any]:
    """Train in as many processes as the environment asks for; this one is the first of them."""
    from epigone.training.loop import train as alone

    layout = layout_asked()
    if layout.processes == 1:
        return alone(spec, corpus, out, progress)
    if launched()[1] > 1:
        join(layout)
        _announce(spec, corpus, out)
        return alone(spec, corpus, out, progress)
    if 0 < torch.cuda.device_count() < layout.processes:
        raise UserError(
            f"{layout.processes} processes need a GPU each, there are",
            value=torch.cuda.device_count(),
            fix="ask for fewer, or start them on several machines with torchrun",
        )
    with _followers(layout.processes):
        join(layout)
        _announce(spec, corpus, out)
        return alone(spec, corpus, out, progress)


def follow() -> None:
    """Do the part of a process that is not the first: hear what is asked for, and train."""
    from epigone.training.loop import train as alone

    join(layout_asked())
    asked: list[Any] = [None, None, None]
    dist.broadcast_object_list(asked, src=0)
    if asked[0] is None:
        return
    with suppress(Stopped):
        alone(TrainSpec.model_validate_json(asked[0]), Path(asked[1]), Path(asked[2]), silent)


def dismiss() -> None:
    """Let a launcher's other processes end where the first one found nothing to train."""
    if launched()[1] > 1 and not dist.is_initialized():
        join(layout_asked())
        dist.broadcast_object_list([None, None, None], src=0)


def _announce(spec: TrainSpec, corpus: Path, out: Path) -> None:
    asked = [spec.model_dump_json(), str(corpus), str(out)]
    dist.broadcast_object_list(asked, src=0)


def joined() -> World:
    """The processes that this one has joined, or itself alone."""
    return join(layout_asked() if dist.is_initialized() else Layout())


@contextmanager
def _followers(processes: int) -> Iterator[None]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
    }
    threads = str(max(1, torch.get_num_threads() // processes))
    started = [
        subprocess.Popen(
            [sys.executable, "-P", "-m", "epigone.training.launch"],
            env={
                **os.environ,
                **shared,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "OMP_NUM_THREADS": threads,
            },
            stdin=subprocess.DEVNULL,
        )
        for rank in range(1, processes)
    ]
    before = {name: os.environ.get(name) for name in (*shared, "RANK", "LOCAL_RANK")}
    os.environ.update(shared, RANK="0", LOCAL_RANK="0")
    own = torch.get_num_threads()
    if not torch.cuda.is_available():
        torch.set_num_threads(int(threads))
    ended = threading.Event()
    watching = threading.Thread(target=_watch, args=(started, ended), daemon=True)
    watching.start()
    grace = 10.0
    try:
        yield
    except BaseException:
        # The others may be waiting for this one, and for ever.
        grace = 1.0
        raise
    finally:
        ended.set()
        if dist.is_initialized():
            dist.destroy_process_group()
        _forget_state()
        latest = time.monotonic() + grace
        for process in started:
            try:
                process.wait(timeout=max(0.0, latest - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        torch.set_num_threads(own)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _forget_state() -> None:
    from accelerate.state import AcceleratorState, PartialState

    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()


def _watch(started: list[subprocess.Popen[bytes]], ended: threading.Event) -> None:
    # A process that died would be waited for by the others, and on a GPU for many minutes.
    while not ended.wait(0.5):
        if any(p.poll() not in (None, 0) for p in started):
            for p in started:
                if p.poll() is None:
                    p.kill()
            # Long enough for this one to end by itself: what failed there has often failed here.
            if not ended.wait(60):
                os.kill(os.getpid(), signal.SIGKILL)
            return


class Stop:
    """Whether this run was asked to end by SIGTERM, in whichever of its processes."""

    def __init__(self, world: World) -> None:
        """Listen while it is entered; only a process's main thread can."""
        self._world = world
        self._asked = False
        self._before: Any = None

    def __enter__(self) -> Self:
        """Itself."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        """Listen no more."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        self._asked = True

    def asked(self) -> bool:
        """Whether any process was asked to end; all processes must call this together."""
        return bool(self._world.most(float(self._asked)))

    def raise_(self) -> NoReturn:
        """End the run."""
        raise Stopped("stopped by SIGTERM; run the same command again to continue")


if __name__ == "__main__":
    # An interrupt at the terminal reaches all processes; the first one decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    try:
        follow()
    except EpigoneError as error:
        # The first process tells it, and ends this one, unless it happened here alone.
        time.sleep(5)
        print(f"process {os.environ.get('RANK')}: {error}", file=sys.stderr)
        sys.exit(1)
