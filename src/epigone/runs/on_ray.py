"""The Ray executor: each step a remote task with the cores, GPUs and memory that it needs."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from epigone import clusters
from epigone.errors import EpigoneError, MachineLost, StepFailed, Stopped, UserError
from epigone.evaluation.code import UNSAFE
from epigone.models import catalogue, references
from epigone.runs.at_url import STORE, performed, sees
from epigone.runs.local import Local, Told, Worker
from epigone.runs.machine import here
from epigone.runs.needs import Machine, Needs
from epigone.runs.perform import Task
from epigone.runs.worker import of_study
from epigone.schema import Progress, Record, silent
from epigone.training.layout import COMPILE, PARALLEL
from epigone.training.track import TRACK

_LOG = logging.getLogger(__name__)

# How often what steps told is fetched, and how often the cluster's machines are looked at.
_TELL_SECONDS, _LOOK_SECONDS = 0.5, 2.0
# How long a cluster may be without any machine, as one that grows on demand is at first.
_EMPTY_SECONDS = 300.0
# How long a new node may take to answer before the run goes on without it.
_ANSWER_SECONDS = 60.0
_WAITING = 512
# Bytes of sources above which a corpus is built with Ray Data, whose start takes half a minute.
_LARGE = 256 << 20
# What of this process's environment steps see on every machine.
_SHARED = (PARALLEL, COMPILE, TRACK, UNSAFE)
_NOTHING = Needs(0, 0, 0.0)
_VISIBLE = "CUDA_VISIBLE_DEVICES"


class OnRay:
    """Steps on a Ray cluster; those that ask an endpoint stay with this process."""

    # Another machine's speed says nothing of this one's.
    learns = False
    growing_seconds = _EMPTY_SECONDS

    def __init__(self, address: str, environment: Mapping[str, str], root: Path) -> None:
        """Attach to the cluster at `address`, or start one on this machine where it is empty.

        Steps see `environment`; their folders lie in `root`, which all machines must see. Raises
        MissingExtra without Ray, and UserError where no cluster answers.
        """
        self._root = root
        self._place = environment.get(STORE) or str(root)
        # Of the machines' own environments: how the run was asked to train, and no secrets.
        self._environment = {
            **environment,
            **{n: os.environ[n] for n in _SHARED if n in os.environ},
        }
        self._opened = ExitStack()
        self._ray = self._opened.enter_context(clusters.start(address))
        gcs = str(self._ray.get_runtime_context().gcs_address)
        self._local = Local(environment)
        # A large corpus spreads its own work over the cluster, and does so from here; its blocks
        # need a folder that all machines see.
        ray = {} if STORE in environment else {clusters.ON: "ray", clusters.ADDRESS: gcs}
        self._spreading = Local({**environment, **ray})
        here = self._at(self._ray.get_runtime_context().get_node_id())
        self._board = self._ray.remote(num_cpus=0)(Board).options(scheduling_strategy=here).remote()
        # A step that lost its machine begins again under a new lease, which Ray cannot give it.
        self._perform = self._ray.remote(max_retries=0)(_perform)
        self._train = self._ray.remote(num_cpus=0, max_retries=0)(_train)
        self._look_at = self._ray.remote(num_cpus=0, max_retries=0)(_look)
        self._threads = ThreadPoolExecutor(_WAITING)
        self._tells: dict[str, Progress] = {}
        self._refs: dict[str, Any] = {}
        # Machines by node, in the order in which they came; those that left have nothing.
        self._known: dict[str, Machine] = {}
        # Nodes that have not answered yet.
        self._asked: dict[str, Any] = {}
        self._looked = -_LOOK_SECONDS
        self._peopled = time.monotonic()
        self._ended = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def machines(self) -> Sequence[Machine]:
        """The machines of the cluster as they are now; each keeps its place."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._look()
        if any(m.has.cpus for m in self._known.values()):
            self._peopled = now
        elif now - self._peopled > _EMPTY_SECONDS:
            raise EpigoneError("the Ray cluster has no machine left; run again when it has")
        return tuple(self._known.values())

    def submit(
        self, task: Task, needs: Needs, places: Sequence[int], tell: Progress
    ) -> Future[Record]:
        """Begin a step on the machines of `places`; what waits for an endpoint begins here."""
        if stays(task, needs):
            local = self._spreading if needs.cpus else self._local
            return local.submit(task, needs, places, tell)
        self._tells[task.folder] = tell
        asked, name = (task.to_json(), self._environment, self._board), f"{task.stage}/{task.slug}"
        if needs.parts > 1:
            ref = self._train.options(name=name).remote(*asked, needs, str(self._root))
        else:
            perform = self._perform.options(
                num_cpus=needs.cpus,
                num_gpus=needs.gpus,
                memory=int(needs.memory),
                scheduling_strategy=self._at([*self._known][places[0]], soft=True),
                name=name,
            )
            ref = perform.remote(*asked, needs.cpus)
        self._refs[task.folder] = ref
        return self._threads.submit(self._wait, task, ref)

    def end(self, task: Task) -> None:
        """End a step; training saves before."""
        for local in (self._local, self._spreading):
            local.end(task)
        if (ref := self._refs.get(task.folder)) is not None:
            self._ray.cancel(ref)

    def stop(self) -> None:
        """End all steps, and leave the cluster; training saves before."""
        for ref in [*self._refs.values()]:
            with suppress(Exception):
                self._ray.cancel(ref)
        for local in (self._local, self._spreading):
            local.stop()
        self._threads.shutdown(wait=True)
        self._ended.set()
        self._opened.close()

    def _wait(self, task: Task, ref: Any) -> Record:
        errors = self._ray.exceptions
        try:
            told: dict[str, Any] = self._ray.get(ref)
        except errors.TaskCancelledError:
            raise Stopped("the step was ended") from None
        except errors.OutOfMemoryError:
            raise StepFailed("Ray ended the step: its machine had too little memory") from None
        except errors.RayTaskError as error:
            raise StepFailed(f"Ray: {_first_line(error)}") from None
        except errors.RayError as error:  # of a process, a node, or what it had in its memory
            raise MachineLost(f"Ray: {_first_line(error)}") from None
        finally:
            self._refs.pop(task.folder, None)
            self._tells.pop(task.folder, None)
        return _record(told)

    def _at(self, node: str, soft: bool = False) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node, soft=soft)

    def _look(self) -> None:
        alive = {n["NodeID"]: n for n in self._ray.nodes() if n["Alive"]}
        for node, machine in self._known.items():
            if node not in alive:
                self._known[node] = Machine(machine.name, _NOTHING)
        fresh = [n for n in alive if n not in self._known and n not in self._asked]
        refused: UserError | None = None
        for node, ref in self._answers(alive, fresh).items():
            name = str(alive[node]["NodeManagerHostname"])
            self._known[node] = Machine(name, _NOTHING)
            try:
                self._known[node] = self._machine(name, alive[node], self._told(name, ref))
            except UserError as error:
                refused = error
                _LOG.warning("%s; it gets no steps", error)
            except self._ray.exceptions.RayError:
                del self._known[node]  # it has left already, or is seen the next time
        if refused and not any(m.has.cpus for m in self._known.values()):
            raise refused

    def _answers(self, alive: Mapping[str, Any], fresh: Sequence[str]) -> dict[str, Any]:
        """Ask new nodes; what has come, by node, of all that were asked and are alive."""
        look, at = self._look_at, self._at
        asked = {n: look.options(scheduling_strategy=at(n)).remote(self._place) for n in fresh}
        asked = {n: ref for n, ref in self._asked.items() if n in alive} | asked
        if not asked:
            return {}
        # One that hangs is waited for once: all others, and the run itself, would wait with it.
        seconds = _ANSWER_SECONDS if fresh else 0.0
        refs = [*asked.values()]
        come, _ = self._ray.wait(refs, num_returns=len(refs), timeout=seconds)
        self._asked = {n: ref for n, ref in asked.items() if ref not in come}
        for node in fresh:
            if node in self._asked:
                name = alive[node]["NodeManagerHostname"]
                _LOG.warning("the Ray node %s does not answer; it gets no steps until then", name)
        return {n: ref for n, ref in asked.items() if ref in come}

    def _told(self, name: str, ref: Any) -> Mapping[str, Any]:
        try:
            told: Mapping[str, Any] = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            # A traceback, which ends with what is wrong there.
            why = str(error).strip().splitlines()[-1].strip()
            raise UserError(
                f"the Ray node {name} cannot run Epigone",
                value=why,
                fix=f"install epigone[ray]=={metadata.version('epigone')} there",
            ) from None
        return told

    def _machine(self, name: str, node: Mapping[str, Any], told: Mapping[str, Any]) -> Machine:
        """A node as a machine; raises UserError where it cannot do this study's steps."""
        own = metadata.version("epigone")
        if told["version"] != own:
            raise UserError(
                f"the Ray node {name} has another Epigone",
                value=told["version"],
                fix=f"install {own} there",
            )
        if not told["sees"]:
            raise UserError(
                f"the Ray node {name} does not see the study's steps",
                value=self._place,
                fix="--runs names a folder that all machines share, or a URL that all may use",
            )
        has = node["Resources"]
        gpus = int(has.get("GPU", 0))
        room = Needs(int(has.get("CPU", 0)), gpus, float(has.get("memory", 0.0)))
        return Machine(name, room, float(told["gpu_bytes"]))

    def _listen(self) -> None:
        while not self._ended.wait(_TELL_SECONDS):
            with suppress(Exception):  # the board is gone with the cluster, which others tell of
                for folder, last in self._ray.get(self._board.take.remote()).items():
                    self._tells.get(folder, silent)(*last)


def stays(task: Task, needs: Needs) -> bool:
    """Whether a step stays with the driver: it asks an endpoint, or spreads its own work."""
    return not needs.cpus or (task.stage == "corpus" and is_large(task.spec))


def is_large(corpus: Mapping[str, Any]) -> bool:
    """Whether a corpus's sources are too large, or of unknown size, for one process to build it."""
    size = 0
    for source in corpus["sources"]:
        reference = references.parse(source["ref"])
        if reference.kind == "catalogue":
            size += catalogue.load()[reference.value].bytes
        elif reference.kind in ("file", "folder"):
            path = Path(reference.value)
            files = path.rglob("*") if path.is_dir() else [path]
            size += sum(f.stat().st_size for f in files if f.is_file())
        else:
            return True
    return size > _LARGE


class Board:
    """An actor to which steps tell their progress, and from which the run takes it."""

    def __init__(self) -> None:
        """Nothing is told yet."""
        self._last: dict[str, tuple[float, float, str]] = {}

    def tell(self, folder: str, done: float, total: float, note: str) -> None:
        """The newest word of the step in a folder."""
        self._last[folder] = (done, total, note)

    def take(self) -> dict[str, tuple[float, float, str]]:
        """What was told since the last time, by folder."""
        told, self._last = self._last, {}
        return told


def teller(board: Any, folder: str) -> Progress:
    """Progress that goes to a board, not more often than anybody looks."""
    last = 0.0

    def tell(done: float, total: float, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > _TELL_SECONDS or done >= total:
            last = now
            board.tell.remote(folder, done, total, note)

    return tell


def outcome(perform: Callable[[], Record]) -> dict[str, Any]:
    """A step's record, or how it ended, as data: errors of ours need not survive a pickle."""
    try:
        return {"record": perform().to_json()}
    except Stopped as error:
        return {"stopped": str(error)}
    except MachineLost as error:
        return {"lost": str(error)}
    except UserError as error:
        return {"user" if of_study(error) else "failed": str(error)}
    except (EpigoneError, OSError) as error:
        return {"failed": str(error)}


# Processes of Ray serve one step after another, and keep what forks of it do the work.
_workers: dict[str, Worker] = {}


def _perform(task: str, environment: Mapping[str, str], board: Any, threads: int) -> dict[str, Any]:
    """Perform a step in a remote task: as on one machine, in a process of its own."""
    import ray

    key = json.dumps(environment, sort_keys=True)
    worker = _workers.setdefault(key, Worker(environment))
    asked = Task.from_json(task)
    gpus = [str(gpu) for gpu in ray.get_gpu_ids()]
    try:
        tell = teller(board, asked.folder)
        return outcome(
            lambda: performed(asked, environment, lambda t: worker.run(t, tell, threads, gpus))
        )
    except BaseException:
        # Cancelled: the step's process saves what it has and ends.
        del _workers[key]
        worker.stop()
        raise


def _train(
    task: str, environment: Mapping[str, str], board: Any, needs: Needs, root: str
) -> dict[str, Any]:
    """Train in several processes that Ray Train starts, from a task that can be cancelled."""
    from epigone.runs.ray_train import train

    asked = Task.from_json(task)
    teller(board, asked.folder)(0, 0)
    try:
        return train(asked, needs, environment, board, Path(root))
    except MachineLost as error:
        return {"lost": str(error)}


def _look(place: str) -> dict[str, Any]:
    """What a node is asked before it gets a step."""
    # Older releases of Ray hide all GPUs from a task that takes none, as this one.
    hidden = os.environ.pop(_VISIBLE, None)
    try:
        smallest = min((size for _, size in here().gpus), default=0)
    finally:
        if hidden is not None:
            os.environ[_VISIBLE] = hidden
    return {"version": metadata.version("epigone"), "gpu_bytes": smallest, "sees": sees(place)}


def _record(told: Mapping[str, Any]) -> Record:
    if "record" in told:
        return Record.from_json(told["record"])
    if "stopped" in told:
        raise Stopped(told["stopped"])
    if "user" in told:
        raise Told(told["user"])
    if "lost" in told:
        raise MachineLost(told["lost"])
    raise StepFailed(told["failed"])


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
