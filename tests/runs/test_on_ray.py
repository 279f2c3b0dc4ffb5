"""Steps on a real Ray cluster of two nodes, one of which dies."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import epigone
from epigone.errors import UserError
from epigone.runs import on_ray
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
    """Kills the node on which training begins, and all that works on it, as a machine dies."""

    def __init__(self, cluster: Any, study: epigone.Study) -> None:
        self.cluster, self.study = cluster, study
        self.killed: list[str] = []
        self.told: list[str] = []

    def started(self, step: Step, number: int, of: int) -> None:
        self.told.append(step.name)
        if step.stage == "train" and not self.killed:
            self.killed.append(step.name)
            threading.Thread(
                target=self._kill, args=(self.study.store.partial(step) / LOG,)
            ).start()

    def _kill(self, log: Path) -> None:
        while (pid := worker_on(log)) is None:
            time.sleep(0.005)
        os.kill(pid, signal.SIGSTOP)  # or it would be done before its node is dead
        family = [*ancestors(pid)]
        for node in self.cluster.worker_nodes.copy():
            raylet = node.all_processes["raylet"][0].process.pid
            if raylet in family:
                self.cluster.remove_node(node, allow_graceful=False)
                for process in reversed(family[: family.index(raylet)]):
                    os.kill(process, signal.SIGKILL)

    def progress(self, step: Step, done: float, total: float, note: str) -> None: ...
    def finished(self, step: Step, record: Record) -> None: ...
    def failed(self, step: Step, error: str, log: Path) -> None:
        pytest.fail(error)

    def blocked(self, steps: Sequence[Step], by: Step) -> None: ...
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


def test_training_by_ray_train_has_the_bytes_of_as_many_processes_here(
    cluster: Any, whole: Path, study_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPIGONE_PROCESSES", "2")
    (tmp_path / "study.yaml").write_text(study_text)
    made = []
    for on, address in (("local", ""), ("ray", cluster.address)):
        study = epigone.Study.load(tmp_path, runs=tmp_path / on)
        shutil.copytree(whole / "runs/tiny/steps", study.root / "steps")
        shutil.rmtree(study.root / "steps" / "train")
        study.run(only="train", on=on, address=address)  # type: ignore[arg-type]
        (train,) = (s for s in study.expansion().steps if s.stage == "train")
        record = study.store.record(train)
        assert record is not None and record.facts["layout"] == "replicate=1,shard=2,tensor=1"
        made.append(record.outputs)
    assert made[0] == made[1]


def test_large_corpora_and_those_of_unknown_size_are_spread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.json").write_text("x" * 10)
    (tmp_path / "b.json").write_text("x" * 10)
    monkeypatch.setattr(on_ray, "_LARGE", 19)

    def large(*refs: str) -> bool:
        return on_ray.is_large({"sources": [{"ref": ref} for ref in refs]})

    assert not large(str(tmp_path / "a.json"))
    assert large(str(tmp_path / "a.json"), str(tmp_path / "b.json"))
    assert large(str(tmp_path))
    assert large("hf:org/data@main")
    assert large("sharegpt-v3-part")


def test_a_port_where_nothing_listens_is_told_in_one_line(whole: Path) -> None:
    study = epigone.Study.load(whole, runs=whole / "runs")
    with pytest.raises(UserError, match="no Ray cluster answers"):
        study.run(on="ray", address="127.0.0.1:9")
