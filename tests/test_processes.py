"""What containers, batch systems and services leave to a process, in a made file system."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from epigone import processes
from epigone.runs import machine

V1, V2 = "9223372036854771712", "max"
Root = Callable[..., None]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    """Makes the files of control groups: this process's, where they are mounted, what they say."""
    monkeypatch.setattr(processes, "_ROOT", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)

    def make(own: str, mounts: list[str], files: dict[str, str]) -> None:
        numbered = [f"{31 + i} 24 0:{i} {mount}" for i, mount in enumerate(mounts)]
        mountinfo = "\n".join(["22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw", *numbered])
        told = {"proc/self/cgroup": own, "proc/self/mountinfo": mountinfo}
        for name, text in {**told, **{f"sys/fs/cgroup/{n}": t for n, t in files.items()}}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{text}\n")

    return make


def test_of_its_group_and_those_above_the_least_counts(root: Root) -> None:
    job = "system.slice/slurmstepd.scope/job_7"
    root(
        f"0::/{job}/step_0/task_0",
        ["/ /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"],
        {
            f"{job}/step_0/task_0/memory.max": V2,
            f"{job}/step_0/task_0/cpu.max": "max 100000",
            f"{job}/step_0/memory.max": "8192",
            f"{job}/step_0/memory.current": "1000",
            f"{job}/step_0/memory.stat": "anon 700\ninactive_file 300",
            f"{job}/memory.max": "9000",
            f"{job}/memory.current": "8900",
            f"{job}/memory.stat": "anon 8900\ninactive_file 0",
            f"{job}/cpu.max": "250000 100000",
            "system.slice/cpu.max": "800000 100000",
        },
    )
    # Others of the job have taken what this step's own limit would leave.
    assert processes.memory() == (8192, 100)
    assert processes.cores() == 3
    assert machine.here().ram == 8192


def test_the_first_version_has_a_tree_for_each_kind(root: Root) -> None:
    job = "slurm/uid_1000/job_7"
    root(
        f"5:cpu,cpuacct:/{job}\n4:memory:/{job}/step_0\n1:name=systemd:/x\n0::/x",
        [
            "/ /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
            "/ /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
            "/ /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
        ],
        {
            f"memory/{job}/step_0/memory.limit_in_bytes": V1,
            f"memory/{job}/memory.limit_in_bytes": "5000",
            f"memory/{job}/memory.usage_in_bytes": "4000",
            f"memory/{job}/memory.stat": "inactive_file 1\ntotal_inactive_file 500",
            f"cpu,cpuacct/{job}/cpu.cfs_quota_us": "150000",
            f"cpu,cpuacct/{job}/cpu.cfs_period_us": "100000",
            "cpu,cpuacct/cpu.cfs_quota_us": "-1",
            "cpu,cpuacct/cpu.cfs_period_us": "100000",
        },
    )
    assert processes.memory() == (5000, 1500)
    assert processes.cores() == 2


@pytest.mark.parametrize("first", ["/docker/abc", "/"])
def test_a_container_sees_its_own_groups_first(root: Root, first: str) -> None:
    mounted = [f"{first} /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory"]
    files = {"memory/memory.limit_in_bytes": "4096", "memory/memory.usage_in_bytes": "4097"}
    root("4:memory:/docker/abc", mounted, files)
    assert processes.memory() == (4096, 0)


def test_without_a_limit_all_of_the_machine_counts(root: Root, tmp_path: Path) -> None:
    files = {"memory.max": V2, "a/memory.max": V1, "a/cpu.max": "max 100000"}
    root("0::/a", ["/ /sys/fs/cgroup rw - cgroup2 cgroup2 rw"], files)
    assert (processes.memory(), processes.cores()) == ((math.inf, math.inf), 64)
    (tmp_path / "proc/self/cgroup").unlink()
    assert (processes.memory(), processes.cores()) == ((math.inf, math.inf), 64)


IN_A_CONTAINER = """
import os, sys
from epigone.processes import die_with_parent
if (child := os.fork()) == 0:
    die_with_parent()
    os._exit(7)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
ALONE = ["unshare", "--pid", "--fork", "--mount-proc"]


@pytest.mark.skipif(
    sys.platform != "linux"
    or subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode != 0,
    reason="no process may be the first of its own here",
)
def test_children_of_the_first_process_of_a_container_live() -> None:
    command = [*ALONE, sys.executable, "-c", IN_A_CONTAINER]
    assert subprocess.run(command, check=False).returncode == 7
