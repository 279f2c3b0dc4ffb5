"""The calibration's grid on two Ray nodes, one killed in the middle, against one machine.

    epigone calibrate -o calibration
    python bench/calibration_on_ray.py calibration

The study of a finished calibration runs once more from its world and its bases, each step a remote
task; when half of the steps are done, the node of the next step that tells something is killed.
Then every output of every step has to have the hash that it has in the calibration.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import epigone
from epigone.calibration.folder import BASES, STUDY, WORLD
from epigone.runs.store import LOG
from epigone.schema import Record
from epigone.study.step import Step


@contextmanager
def cluster(nodes: int, cpus: int) -> Iterator[Any]:
    """A head without cores, where the run itself is, and nodes with some, all on this machine."""
    # Read when Ray is imported: without it 127.0.0.1 is the machine's outer address.
    os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    from ray.cluster_utils import Cluster

    here: dict[str, Any] = {"node_ip_address": "127.0.0.1", "object_store_memory": 1 << 27}
    head = {"num_cpus": 0, "include_dashboard": False, **here}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes):
            made.add_node(num_cpus=cpus, **here)
        yield made
    finally:
        made.shutdown()


def worker_on(log: Path) -> int | None:
    """The process that has a step's log for its output."""
    for fd in Path("/proc").glob("[0-9]*/fd/1"):
        try:
            if os.readlink(fd) == str(log):
                return int(fd.parts[2])
        except OSError:
            continue
    return None


def ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        yield pid
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


class Kills:
    """Kills a node once half of the steps are done, at the next word of a step."""

    def __init__(self, made: Any, study: epigone.Study) -> None:
        self.made, self.study = made, study
        self.killed = ""
        self.begun: Counter[str] = Counter()
        self.half = False

    def started(self, step: Step, number: int, of: int) -> None:
        self.begun[step.name] += 1
        print(f"[{number}/{of}] {step.name}", flush=True)

    def progress(self, step: Step, done: float, total: float, note: str) -> None:
        if not self.half or self.killed or not done:
            return
        pid = worker_on(self.study.store.partial(step) / LOG)
        family = set(ancestors(pid)) if pid else set()
        for node in self.made.worker_nodes:
            if node.all_processes["raylet"][0].process.pid in family:
                self.killed = f"{node.node_id[:8]} while {step.name} was at {done:g} of {total:g}"
                print(f"killing node {self.killed}", flush=True)
                self.made.remove_node(node, allow_graceful=False)
                return

    def finished(self, step: Step, record: Record) -> None: ...
    def failed(self, step: Step, error: str, log: Path) -> None:
        print(f"FAILED {step.name}: {error}", flush=True)

    def blocked(self, steps: Sequence[Step], by: Step) -> None: ...
    def remaining(self, done: int, of: int, seconds: float) -> None:
        self.half = done >= of / 2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("calibration", type=Path)
    parser.add_argument("--cpus", type=int, default=2, help="Cores that each node says it has.")
    options = parser.parse_args()
    alone = epigone.Study.load(options.calibration / STUDY, runs=options.calibration / "runs")
    with tempfile.TemporaryDirectory() as folder, cluster(2, options.cpus) as made:
        for name in (STUDY, WORLD, BASES):
            source = options.calibration / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, Path(folder) / name)
        study = epigone.Study.load(Path(folder) / STUDY, runs=Path(folder) / "runs")
        watcher = Kills(made, study)
        begun = time.monotonic()
        result = study.run(watcher, on="ray", address=made.address)
        minutes = (time.monotonic() - begun) / 60
        files = differ = 0
        for step in study.expansion().steps:
            ours, theirs = study.store.record(step), alone.store.record(step)
            assert ours is not None and theirs is not None, step.name
            files += len(ours.outputs)
            differ += ours.outputs != theirs.outputs
    again = sorted(name for name, n in watcher.begun.items() if n > 1)
    print(f"\nkilled: node {watcher.killed}")
    print(f"steps that began again: {', '.join(again) or 'none'}")
    print(f"{len(result.outcomes)} steps, {files} files, {minutes:.1f} min on two nodes")
    print(f"steps whose hashes differ from those of one machine: {differ}")
    sys.exit(bool(differ or not watcher.killed or result.failed))


if __name__ == "__main__":
    main()
