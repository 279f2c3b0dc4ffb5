"""Steps on a real Ray cluster of two nodes, one of which dies."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import epigone
from epigone.runs.store import LOG
from epigone.schema import Record
from epigone.study.step import Step

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without cores, so that no step is where the run itself is, and two nodes."""
    with pytest.MonkeyPatch.context() as patch:
        # Read when Ray is imported: without it 127.0.0.1 is the machine's outer address.
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        here: dict[str, Any] = {"node_ip_address": "127.0.0.1", "object_store_memory": 1 << 27}
        made = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, **here},
        )
        for _ in range(2):
            made.add_node(num_cpus=2, **here)
        yield made
        made.shutdown()


def ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        yield pid
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def worker_on(log: Path) -> int | None:
    """The process that has a step's log for its output."""
    for fd in Path("/proc").glob("[0-9]*/fd/1"):
        try:
            if os.readlink(fd) == str(log):
                return int(fd.parts[2])
        except OSError:
            continue
    return None


class KillsNode:
    """Kills, at the first word of a step that trains, the node on which it works."""

    def __init__(self, cluster: Any, study: epigone.Study) -> None:
        self.cluster, self.study = cluster, study
        self.killed: list[str] = []
        self.told: list[str] = []

    def progress(self, step: Step, done: float, total: float, note: str) -> None:
        if step.stage != "train" or self.killed:
            return
        pid = worker_on(self.study.store.partial(step) / LOG)
        assert pid is not None
        family = set(ancestors(pid))
        (node,) = (
            n
            for n in self.cluster.worker_nodes
            if n.all_processes["raylet"][0].process.pid in family
        )
        self.killed.append(node.node_id)
        self.cluster.remove_node(node, allow_graceful=False)

    def started(self, step: Step, number: int, of: int) -> None:
        self.told.append(step.name)

    def finished(self, step: Step, record: Record) -> None: ...
    def failed(self, step: Step, error: str, log: Path) -> None:
        pytest.fail(error)

    def blocked(self, step: Step, by: Step) -> None: ...
    def remaining(self, done: int, of: int, seconds: float) -> None: ...


def test_a_study_whose_node_dies_has_the_bytes_of_a_local_run(
    cluster: Any, whole: Path, study_text: str, tmp_path: Path
) -> None:
    local = epigone.Study.load(whole, runs=whole / "runs")
    (tmp_path / "study.yaml").write_text(study_text)
    study = epigone.Study.load(tmp_path, runs=tmp_path / "runs")
    shutil.copytree(local.root / "steps", study.root / "steps")
    for stage in ("train", "generate", "style"):
        shutil.rmtree(study.root / "steps" / stage)
    watcher = KillsNode(cluster, study)
    result = study.run(watcher, on="ray", address=cluster.address)
    assert set(result.outcomes.values()) == {"done"}
    assert len(watcher.killed) == 1
    (train,) = (s.name for s in study.expansion().steps if s.stage == "train")
    assert watcher.told.count(train) == 2
    for step in study.expansion().steps:
        ours, theirs = study.store.record(step), local.store.record(step)
        assert ours is not None and theirs is not None
        assert ours.outputs == theirs.outputs
    assert not list(study.root.rglob("*.partial"))
