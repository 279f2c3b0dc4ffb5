"""Runs under several layouts, each in processes of its own, forked from one that imported all."""

from __future__ import annotations

import gc
import importlib
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from epigone.errors import Stopped
from epigone.study.specs import TrainSpec
from epigone.training import launch, model


def work(jobs: list[dict[str, Any]]) -> None:
    for job in jobs:
        if os.environ["RANK"] != "0":
            launch.follow()
            continue

        def progress(done: float, total: float, note: str = "", at: int = job["stop"]) -> None:
            if done == at:
                os.kill(os.getpid(), signal.SIGTERM)

        out = Path(job["out"])
        if job["after"]:
            shutil.copytree(job["after"], out)
        out.mkdir(parents=True, exist_ok=True)
        spec = TrainSpec.model_validate_json(json.dumps(job["spec"]))
        try:
            facts = launch.train(spec, Path(job["corpus"]), out, progress)
            (out / "facts.json").write_text(json.dumps(facts))
        except Stopped:
            (out / "stopped").write_text("")


def train(listed: Sequence[tuple[int, str, list[dict[str, Any]]]]) -> None:
    """Do jobs in so many processes under a layout; call it in a process that ends thereafter."""
    # Here once, and not in every process.
    for name in (
        "epigone.models.first_load",
        "epigone.training.loop",
        "peft.tuners",
        "torch.distributed.fsdp",
        *(f"transformers.models.{m}.modeling_{m}" for m in ("gpt2", "llama", "t5")),
    ):
        importlib.import_module(name)
    # As if the machine's memory were enough for one process at a time.
    model._bytes_to_load = lambda *_: 1e18
    # Else every fork would look through it for garbage, and copy the memory it looks at.
    gc.freeze()
    for processes, layout, jobs in listed:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
            "EPIGONE_PARALLEL": layout,
        }
        children = []
        for rank in range(processes):
            if not (child := os.fork()):
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                work(jobs)
                os._exit(0)
            children.append(child)
        for child in children:
            if os.waitpid(child, 0)[1]:
                sys.exit(f"a process failed under {layout!r}")
