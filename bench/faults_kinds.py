"""The kinds of faults of bench/faults.py: how each is made, and how a person undoes it."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from faults_study import Command, Scene, Teacher, Whole, below, cmdline, end, parents

from epigone.runs.store import RECORD

# How often a stage's steps are those to do.
_WEIGHTS = {"train": 3, "generate": 2, "benchmark": 2, "ask": 2}
_CGROUPS = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


class Kind:
    """A kind of fault, as it is for one scene."""

    name: ClassVar[str]
    # Of 1,000 faults so many are of this kind.
    share: ClassVar[int] = 40
    # How many one scene has, and how many of them one command.
    most, at_once = 6, 3
    stages: ClassVar[tuple[str, ...]] = ()
    runners = 1
    tmpfs = False
    # Whether the moment is one of a step's work, and not of the whole run.
    in_step = True
    # What may be answered twice: what was under way when the process that asked was killed.
    twice = False

    def __init__(self, scene: Scene, teacher: Teacher, rng: random.Random) -> None:
        self.scene, self.teacher, self.rng = scene, teacher, rng

    @classmethod
    def why_not(cls) -> str:
        """Why there can be no such fault on this machine, empty where there can."""
        return ""

    def words(self) -> list[str]:
        """What the command is given."""
        return []

    def cgroup(self) -> Path | None:
        """The group of processes that the command belongs to."""
        return None

    def targets(self) -> list[str]:
        """Steps that are to do."""
        names = [
            n for n in self.scene.whole.names() if not self.stages or n.split("/")[0] in self.stages
        ]
        weights = [_WEIGHTS.get(n.split("/")[0], 1) for n in names]
        chosen = self.rng.choices(names, weights, k=self.rng.randint(1, 2))
        return sorted({*chosen})

    def before(self, cut: Sequence[str]) -> str:
        """Make the fault before the command; what it is, empty for none."""
        return ""

    def strike(self, commands: Sequence[Command], working: Sequence[int]) -> str:
        """Make the fault now; what it is, empty where there is nothing to make it of."""
        return ""

    def noticed(self) -> str:
        """A fault that the system has made meanwhile; what it is, empty for none."""
        return ""

    def tick(self) -> None:
        """Do what is due while the command runs."""

    def undo(self, told: str) -> str:
        """What a person does after the command; the line that asks for it, empty for nothing."""
        return ""

    def close(self) -> None:
        """Leave nothing behind."""


def line_with(told: str, *parts: str) -> str:
    """The first line of what was told with one of the parts in it."""
    lines = told.splitlines()
    return next((x.strip() for x in lines if any(p in x.lower() for p in parts)), "")


class RunnerKilled(Kind):
    name, share, at_once, in_step, twice = "kill -9 of the runner", 120, 1, False, True

    def strike(self, commands: Sequence[Command], working: Sequence[int]) -> str:
        return "runner" if end(self.rng.choice(commands).pid) else ""


class WorkerKilled(Kind):
    name, share, twice = "kill -9 of a worker", 100, True

    def strike(self, commands: Sequence[Command], working: Sequence[int]) -> str:
        of = parents()
        workers = {of.get(pid, 0) for pid in working}
        workers = {w for w in workers if "epigone.runs.worker" in cmdline(w)}
        return "worker" if workers and end(self.rng.choice(sorted(workers))) else ""


class StepKilled(Kind):
    name, share, twice = "kill -9 of a step, as the kernel's", 120, True

    def strike(self, commands: Sequence[Command], working: Sequence[int]) -> str:
        return "step" if working and end(self.rng.choice(working)) else ""


class Terminated(Kind):
    name, share, at_once, in_step = "SIGTERM", 80, 1, False

    def strike(self, commands: Sequence[Command], working: Sequence[int]) -> str:
        pid = commands[0].pid
        with suppress(ProcessLookupError):
            if self.rng.random() < 0.5:
                os.killpg(pid, signal.SIGTERM)
                return "to its group"
            os.kill(pid, signal.SIGTERM)
            return "to the runner"
        return ""


class Interrupted(Kind):
    name, share, at_once, in_step = "SIGINT, as ^C at a terminal", 60, 1, False

    def strike(self, commands: Sequence[Command], working: Sequence[int]) -> str:
        with suppress(ProcessLookupError):
            os.killpg(commands[0].pid, signal.SIGINT)
            return "to its group"
        return ""


class OutOfMemory(Kind):
    """The kernel kills one of the processes of a group that has too little memory."""

    name, share, at_once, twice = "out of memory (a cgroup's limit)", 40, 1, True

    def __init__(self, scene: Scene, teacher: Teacher, rng: random.Random) -> None:
        super().__init__(scene, teacher, rng)
        self._group = _cgroup() / f"epigone-faults-{os.getpid()}"
        self._group.mkdir(exist_ok=True)
        self._most, self._killed = 500, 0

    @classmethod
    def why_not(cls) -> str:
        with suppress(OSError, StopIteration):
            trial = _cgroup() / f"epigone-trial-{os.getpid()}"
            trial.mkdir()
            trial.rmdir()
            return ""
        return "no cgroup of memory can be made here"

    def cgroup(self) -> Path | None:
        return self._group

    def before(self, cut: Sequence[str]) -> str:
        if self.rng.random() < 0.4:
            self._most = max(150, self._most - 60)  # the last limit was enough
            self._limit(str(self.rng.randint(120, self._most) << 20))
        return ""

    def strike(self, commands: Sequence[Command], working: Sequence[int]) -> str:
        """Leave what works now a little more than it has; `noticed` tells whom the kernel kills."""
        told = dict(x.split() for x in (self._group / "memory.stat").read_text().splitlines())
        held = int(told.get("total_rss") or told["anon"])
        with suppress(OSError):  # more than that is in use, and cannot be given up
            self._limit(str(held + self.rng.randint(0, 24 << 20)))
        return ""

    def noticed(self) -> str:
        before, self._killed = self._killed, self._kills()
        if self._killed == before:
            return ""
        self._most = 560
        return "killed by the kernel"

    def undo(self, told: str) -> str:
        self._limit("-1" if self._file().name == "memory.limit_in_bytes" else "max")
        return ""

    def close(self) -> None:
        for pid in (self._group / "cgroup.procs").read_text().split():
            end(int(pid))
        with suppress(OSError):
            self._group.rmdir()

    def _file(self) -> Path:
        names = ("memory.limit_in_bytes", "memory.max")
        return next(self._group / n for n in names if (self._group / n).exists())

    def _limit(self, value: str) -> None:
        self._file().write_text(value)

    def _kills(self) -> int:
        names = ("memory.oom_control", "memory.events")
        text = next((self._group / n).read_text() for n in names if (self._group / n).exists())
        return int(next(x for x in text.splitlines() if x.startswith("oom_kill ")).split()[1])


def _cgroup() -> Path:
    return next(g for g in _CGROUPS if (g / "cgroup.procs").exists())


class NoAddresses(Kind):
    name, share = "out of memory (ulimit -v)", 30

    def strike(self, commands: Sequence[Command], working: Sequence[int]) -> str:
        for pid in working:
            with suppress(OSError, ValueError):
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
                limit = pages * resource.getpagesize() + self.rng.randint(0, 16 << 20)
                resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))
                return "a step may have no more"
        return ""


class _OnTmpfs(Kind):
    tmpfs, at_once = True, 1

    @classmethod
    def why_not(cls) -> str:
        done = subprocess.run(
            ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
            capture_output=True, check=False,
        )  # fmt: skip
        return "" if done.returncode == 0 else "nothing may be mounted here"


class DiskFull(_OnTmpfs):
    # An answer on its way finds no room in the ledger.
    name, share, twice = "disk full (a tmpfs)", 60, True
    in_step = False

    def strike(self, commands: Sequence[Command], working: Sequence[int]) -> str:
        free = os.statvfs(self.scene.folder)
        left = max(0, free.f_bavail - self.rng.choice((0, 0, 1, 4, 16, 64)))
        with suppress(OSError), open(self._ballast, "wb", buffering=0) as f:
            for _ in range(left):
                f.write(bytes(free.f_bsize))
        return "all but a few pages"

    def undo(self, told: str) -> str:
        self._ballast.unlink(missing_ok=True)
        return line_with(told, "no space left", "disk is full")

    @property
    def _ballast(self) -> Path:
        return self.scene.folder / "ballast"


class FilesTooLarge(Kind):
    name, share, twice = "no room for a file (ulimit -f)", 30, True

    def strike(self, commands: Sequence[Command], working: Sequence[int]) -> str:
        limit = self.rng.choice((0, 100, 5_000, 50_000))
        for pid in working:
            with suppress(OSError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, limit))
                return f"{limit} bytes"
        return ""


class ReadOnly(_OnTmpfs):
    name, share = "read-only folder", 30

    def before(self, cut: Sequence[str]) -> str:
        to_do = [n for n in cut if not (self.scene.steps / n).exists()]
        stage = self.scene.steps / self.rng.choice(to_do or cut).split("/")[0]
        place = self.rng.choice((self.scene.folder, self.scene.runs / "ledger", stage, stage))
        if not place.is_dir():
            return ""
        self._place = place
        if place != self.scene.folder:
            mount("--bind", str(place), str(place))
        mount("-o", "remount,bind,ro", str(place))
        return str(place.relative_to(self.scene.folder))

    def undo(self, told: str) -> str:
        if self._place is None:
            return ""
        if self._place != self.scene.folder:
            subprocess.run(["umount", str(self._place)], check=True)
        else:
            mount("-o", "remount,bind,rw", str(self._place))
        self._place = None
        return line_with(told, "read-only", "read only")

    _place: Path | None = None


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


class RecordDamaged(Kind):
    name, share, at_once, in_step = "damaged record.json", 60, 1, False

    def before(self, cut: Sequence[str]) -> str:
        files = sorted(self.scene.steps.rglob(RECORD))
        file, other = self.rng.sample(files, 2)
        content = bytearray(file.read_bytes())
        way = self.rng.choice(("flipped", "cut", "empty", "another's", "gone"))
        if way == "flipped":
            for _ in range(self.rng.randint(1, 3)):
                content[self.rng.randrange(len(content))] ^= 1 << self.rng.randrange(8)
        elif way == "cut":
            del content[self.rng.randrange(1, len(content)) :]
        elif way == "another's":
            content[:] = other.read_bytes()
        else:
            content.clear()
        file.write_bytes(content)
        if way == "gone":
            file.unlink()
        return f"{way}: {file.parent.name}"


class OutputCut(Kind):
    name, share, at_once, in_step = "truncated output of a finished step", 60, 1, False

    def before(self, cut: Sequence[str]) -> str:
        kinds = (".parquet", ".jsonl", ".safetensors")
        files = [p for p in self.scene.steps.rglob("*") if p.suffix in kinds and p.stat().st_size]
        file = self.rng.choice(sorted(files))
        content = file.read_bytes()
        size = self.rng.randrange(len(content))
        if file.suffix == ".jsonl" and self.rng.random() < 0.5:
            size = content.rfind(b"\n", 0, size) + 1  # what is left looks whole
        file.write_bytes(content[:size])
        return f"{file.parent.name}/{file.name}: {size} of {len(content)} bytes"


class InputGone(Kind):
    name, share, at_once, in_step = "input deleted by hand", 50, 1, False

    def __init__(self, scene: Scene, teacher: Teacher, rng: random.Random) -> None:
        super().__init__(scene, teacher, rng)
        self._moved: list[tuple[Path, Path]] = []

    def before(self, cut: Sequence[str]) -> str:
        tiny = ("source", "base") if self.scene.whole.name == "tiny" else ()
        way = self.rng.choice(("file", "file", "folder", *tiny))
        folders = sorted(p.parent for p in self.scene.steps.rglob(RECORD))
        folder = self.rng.choice(folders)
        if way == "folder":
            shutil.rmtree(folder)
            return f"the folder {folder.name}"
        if way == "file":
            files = [
                p for p in folder.rglob("*") if p.is_file() and p.name not in (RECORD, "log.txt")
            ]
            file = self.rng.choice(sorted(files))
            file.unlink()
            return f"{folder.name}/{file.name}"
        names = {
            "source": ("talk.json", "prompts.jsonl"),
            "base": ("tiny", "tiny/model.safetensors"),
        }
        name = self.rng.choice(names[way])
        place = self.scene.whole.file.parent / name
        aside = self.scene.folder / "aside"
        shutil.move(place, aside)
        self._moved.append((aside, place))
        return name

    def undo(self, told: str) -> str:
        line = ""
        while self._moved:
            aside, place = self._moved.pop()
            shutil.move(aside, place)
            line = line or line_with(told, str(place).lower(), place.name.lower())
        return line

    def close(self) -> None:
        self.undo("")


class Hanging(Kind):
    name, share, most, at_once = "a step that hangs (SIGSTOP, --timeout)", 16, 2, 1
    twice = True  # one that hangs is killed, too

    def words(self) -> list[str]:
        return ["--timeout", "0.25"]

    def strike(self, commands: Sequence[Command], working: Sequence[int]) -> str:
        for pid in working:
            end(pid, signal.SIGSTOP)
        return "stopped" if working else ""


class TeacherAway(Kind):
    name, share, stages = "a teacher that goes away for a while", 80, ("ask",)

    def __init__(self, scene: Scene, teacher: Teacher, rng: random.Random) -> None:
        super().__init__(scene, teacher, rng)
        self._back = 0.0

    def targets(self) -> list[str]:
        return [n for n in self.scene.whole.names() if n.startswith(("ask/", "generate/teacher"))]

    def strike(self, commands: Sequence[Command], working: Sequence[int]) -> str:
        if self._back or not working:
            return ""
        way = self.rng.choice(("gone", "500", "cut", "half"))
        seconds = self.rng.uniform(0.3, 6)
        self.teacher.go(way)
        self._back = time.monotonic() + seconds
        self.twice = self.twice or way == "half"
        return f"{way} for {seconds:.1f} s"

    def tick(self) -> None:
        if self._back and time.monotonic() > self._back:
            self._back = 0.0
            self.teacher.come()

    def undo(self, told: str) -> str:
        self._back = 0.0
        self.teacher.come()
        return ""


class TwoRunners(RunnerKilled):
    name, share, runners = "two runners, one killed", 50, 2


class _OnRay(Kind):
    share, most, at_once, twice = 20, 5, 1, True
    stages = ("train", "generate", "benchmark", "style", "overlap", "items")
    cluster: ClassVar[Any] = None

    @classmethod
    def why_not(cls) -> str:
        try:
            __import__("ray")
        except ImportError:
            return "no Ray is installed"
        return ""

    def words(self) -> list[str]:
        return ["--on", "ray", "--address", _OnRay.cluster.address]


class RayDriverKilled(_OnRay):
    name = "Ray: kill -9 of the driver"
    strike = RunnerKilled.strike


class RayWorkerKilled(_OnRay):
    name = "Ray: kill -9 of a worker"

    def strike(self, commands: Sequence[Command], working: Sequence[int]) -> str:
        of = parents()
        workers = {of.get(of.get(pid, 0), 0) for pid in working}
        workers = {w for w in workers if "ray::" in cmdline(w)}
        return "worker" if workers and end(self.rng.choice(sorted(workers))) else ""


class RayNodeKilled(_OnRay):
    name = "Ray: kill -9 of a node"

    def strike(self, commands: Sequence[Command], working: Sequence[int]) -> str:
        for node in [*_OnRay.cluster.worker_nodes]:
            raylet = node.all_processes["raylet"][0].process.pid
            if set(below(raylet)) & set(working):
                _OnRay.cluster.remove_node(node, allow_graceful=False)
                _OnRay.cluster.add_node(**_NODE)
                return "node"
        return ""


_NODE: dict[str, Any] = {
    "num_cpus": 2, "node_ip_address": "127.0.0.1", "object_store_memory": 1 << 27,
}  # fmt: skip


@contextmanager
def ray_cluster() -> Iterator[None]:
    """A head without cores and two nodes on this machine, which nobody else may reach."""
    # Read when Ray is imported: without it 127.0.0.1 is the machine's outer address.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True,
        head_node_args={**_NODE, "num_cpus": 0, "include_dashboard": False},
    )
    try:
        for _ in range(2):
            made.add_node(**_NODE)
        _OnRay.cluster = made
        yield
    finally:
        made.shutdown()


KINDS: dict[str, type[Kind]] = {
    "runner": RunnerKilled, "worker": WorkerKilled, "step": StepKilled, "sigterm": Terminated,
    "sigint": Interrupted, "two": TwoRunners, "memory": OutOfMemory, "addresses": NoAddresses,
    "disk": DiskFull, "file-size": FilesTooLarge, "read-only": ReadOnly, "record": RecordDamaged,
    "output": OutputCut, "input": InputGone, "hang": Hanging, "teacher": TeacherAway,
    "ray-driver": RayDriverKilled, "ray-worker": RayWorkerKilled, "ray-node": RayNodeKilled,
}  # fmt: skip


def asks(names: Sequence[str], whole: Whole) -> bool:
    """Whether steps ask the teacher."""
    return any(n.startswith("ask/") or "/teacher" in n or "_teacher" in n for n in names)
