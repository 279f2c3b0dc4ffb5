"""Studies whose steps lie at a URL: an S3 of its own process, and file systems with faults."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from epigone.cli import main
from epigone.cli.checks import Check
from epigone.cli.doctor_network import store_probe
from epigone.errors import HeldElsewhere, NewerFormat, StepFailed, UserError
from epigone.files import sha256_file
from epigone.runs import objects as objects_module
from epigone.runs import on_ray
from epigone.runs.at_url import AtUrl, Opened, mirrored, opened, performed, sees
from epigone.runs.driver import Driver
from epigone.runs.execute import execute
from epigone.runs.executors import executor_of
from epigone.runs.lease import DEAD_SECONDS, Runner, Watch
from epigone.runs.local import Local
from epigone.runs.needs import Machine, Needs
from epigone.runs.objects import Objects, StoreError
from epigone.runs.perform import Task
from epigone.runs.remote import Remote
from epigone.runs.roles import Asked, Result
from epigone.runs.segments import Segments
from epigone.runs.store import FAILURE, RECORD, Store, outputs, verify
from epigone.schema import Progress, Record
from epigone.study.specs import ItemsSpec
from epigone.study.step import Step
from epigone.study.steps import Expansion

from .made_study import copied, no_locks


def step(name: str, *inputs: Step) -> Step:
    return Step("items", (name,), ItemsSpec(task=name, task_version=1), {i.slug: i for i in inputs})


A = step("a")
B = step("b", A)


def seal(task: Task) -> Record:
    """What a step does: a text of its inputs' weights, and weights."""
    folder = Path(task.folder)
    if (folder / RECORD).exists():
        return Record.from_json(json.loads((folder / RECORD).read_text()))
    folder.mkdir(parents=True)
    read = [(Path(i) / "model.safetensors").read_text() for i in task.inputs.values()]
    (folder / "out.txt").write_text(task.slug + "".join(read))
    (folder / "model.safetensors").write_text(f"weights of {task.slug}")
    names = ("stage", "slug", "hash", "identity")
    told: dict[str, Any] = {n: getattr(task, n) for n in names}
    record = Record(
        **told, inputs={}, outputs=outputs(folder), facts={}, started="", finished="",
        seconds=1.0, peak_bytes=1, environment={},
    )  # fmt: skip
    (folder / RECORD).write_text(json.dumps(record.to_json()))
    return record


class Fake:
    """Performs steps at once, by `act`."""

    learns = False
    growing_seconds = 0.0

    def __init__(self, act: Callable[[Task], Record] = seal) -> None:
        self.act, self.asked = act, list[str]()

    def machines(self) -> tuple[Machine]:
        return (Machine("m", Needs(2, 0, 1e11)),)

    def submit(self, task: Task, needs: Needs, places: object, tell: Progress) -> Future[Record]:
        self.asked.append(task.slug)
        future: Future[Record] = Future()
        try:
            future.set_result(self.act(task))
        except (StepFailed, UserError) as error:
            future.set_exception(error)
        return future

    def end(self, task: Task) -> None: ...

    def stop(self) -> None: ...


class Quiet:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def run(url: str, inner: Any, *steps: Step, here: bool = True) -> Result:
    """As `epigone run` does, without a study file."""
    remote = mirrored(url, "s")
    with opened(remote) as at_url, Runner(remote.root, "s") as runner:
        assert at_url is not None
        for name in ("study.yaml", "study.lock.json"):
            (remote.root / name).write_text('{"references": {}}')
        remote.push_files("study.yaml", "study.lock.json")
        store = Store(remote.root, mirror=True)
        executor = AtUrl(inner, at_url, lambda task, needs: here)
        found = Expansion(steps or (A, B), (), "t")
        return execute(found, store, Quiet(), executor, runner, Asked())


def move(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Be another machine."""
    monkeypatch.setenv("EPIGONE_HOME", str(home))


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    move(monkeypatch, tmp_path / "one")
    return f"file://{tmp_path}/bucket"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The URL of a bucket at a server in a process of its own."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(command, stdout=quiet, stderr=quiet)
    endpoint = f"http://127.0.0.1:{port}"
    told = {
        "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "secret-of-the-test",
        "AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in told.items():
                patch.setenv(name, value)
            for _ in range(200):
                try:
                    urllib.request.urlopen(
                        urllib.request.Request(f"{endpoint}/bucket", method="PUT"), timeout=60
                    ).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield "s3://bucket/studies"
    finally:
        server.kill()
        server.wait()


def test_a_study_in_s3_goes_on_on_another_machine(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move(monkeypatch, tmp_path / "one")
    first = Local()
    real = Step("items", ("facts",), ItemsSpec(task="facts", task_version=1))
    assert run(s3, first, real).failed == []
    assert run(s3, fake := Fake(), A, real).outcomes[real.name] == "done" and fake.asked == ["a"]
    one = Remote(s3, "s").folder(real.name)
    move(monkeypatch, tmp_path / "two")
    two = mirrored(s3, "s")
    two.bring_small()
    folder = two.folder(real.name)
    assert verify(folder) == [] and outputs(folder) == outputs(one)
    # Weights come when a step needs them.
    assert not (two.folder(A.name) / "model.safetensors").exists()
    assert run(s3, fake := Fake(), A, B).failed == [] and fake.asked == ["b"]
    assert (two.folder(B.name) / "out.txt").read_text() == "bweights of a"
    there = Remote(s3, "s").objects.find()
    assert f"steps/{A.name}/record.json" in there
    assert sum(n.startswith(f"steps/{A.name}/") and n.endswith("/out.txt") for n in there) == 1


def test_two_take_a_study_in_s3_and_one_gets_it(s3: str, tmp_path: Path) -> None:
    store = Objects(f"{s3}/lease")
    assert store.create("driver/000001.json", b"{}")
    assert not store.create("driver/000001.json", b"no")
    with Driver(store, tmp_path / "a", pause=lambda _: first.beat()) as first:
        assert first.number == 2
        with pytest.raises(HeldElsewhere, match=r"another process runs.*pid"):
            Driver(store, tmp_path / "b", pause=lambda _: first.beat()).__enter__()
    assert store.read(f"driver/{first.number:06d}.json", bytes) == b"{}"


def test_no_secret_is_taken_by_a_url_or_told(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bad in ("s3://key:hidden@bucket/x", "s3://bucket/x?secret=hidden"):
        with pytest.raises(UserError, match="no password") as told:
            Objects(bad)
        assert "hidden" not in str(told.value)
    with pytest.raises(StoreError, match="s3://none/x") as gone:
        Objects("s3://none/x").write("f", b"1")
    assert "secret-of-the-test" not in str(gone.value)


def test_a_missing_package_is_told_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(UserError, match=r"az://.*pip install adlfs"):
        Objects("az://container/x")
    with pytest.raises(UserError, match="not the URL"):
        Objects("nothing-like-it://x")


class Cluster(Fake):
    """A cluster whose GPUs have so many bytes each."""

    def __init__(self, gpu_bytes: float) -> None:
        super().__init__()
        self.gpu_bytes, self.stopped = gpu_bytes, False

    def machines(self) -> tuple[Machine]:
        return (Machine("m", Needs(8, 2, 1e11), self.gpu_bytes),)

    def stop(self) -> None:
        self.stopped = True


def test_training_that_a_store_cannot_have_is_refused_before_anything_is_done(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = copied(tmp_path / "study")
    steps = study.expansion().steps
    (train,) = (s for s in steps if s.stage == "train")
    cluster = Cluster(8e10)
    monkeypatch.setattr(on_ray, "OnRay", lambda *_: cluster)
    at_url = Opened(Remote(url, "s"), None, None)  # type: ignore[arg-type]
    asked = ("ray", "auto", {}, study.store, at_url, steps)
    monkeypatch.setattr(Opened, "environment", lambda self: {})

    def refused() -> None:
        with pytest.raises(UserError, match=f"needs a folder .*: {url}"):
            executor_of(*asked)  # type: ignore[arg-type]
        assert cluster.stopped
        cluster.stopped = False

    monkeypatch.setenv("EPIGONE_PROCESSES", "2")
    executor_of(*asked)  # type: ignore[arg-type]
    assert not cluster.stopped  # what is done already needs no machine
    shutil.rmtree(study.store.folder(train))
    refused()
    monkeypatch.delenv("EPIGONE_PROCESSES")
    executor_of(*asked)  # type: ignore[arg-type]
    cluster.gpu_bytes = 2e9  # the base does not fit
    refused()


def test_a_step_performed_elsewhere_comes_from_the_url(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a node of a cluster does: it sees none of the driver's folders."""
    driver, node = tmp_path / "one", tmp_path / "node"

    def on_node(task: Task) -> Record:
        assert not task.folder.startswith(str(node))
        environment = {
            "EPIGONE_STORE": f"{url}/s",
            "EPIGONE_STORE_DRIVER": "1",
        }
        move(monkeypatch, node)
        assert sees(f"{url}/s") and not sees(f"{url}/other")
        try:
            return performed(task, environment, seal)
        finally:
            move(monkeypatch, driver)

    assert run(url, Fake(on_node), here=False).failed == []
    mine = Remote(url, "s").folder(B.name)
    assert (mine / "out.txt").read_text() == "bweights of a"
    assert not (mine / "model.safetensors").exists()
    # A node that was left behind by an earlier driver puts nothing there.
    task = Task("items", "c", "0" * 64, {}, {}, {}, f"/x/steps/items/c-{'0' * 8}")
    stale = {"EPIGONE_STORE": f"{url}/s", "EPIGONE_STORE_DRIVER": "7"}
    with pytest.raises(HeldElsewhere):
        performed(task, stale, seal)
    assert not any("/c-" in name for name in Remote(url, "s").objects.find())


def test_a_failure_is_known_elsewhere(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(task: Task) -> Record:
        partial = Path(task.folder + ".partial")
        partial.mkdir(parents=True)
        (partial / FAILURE).write_text('{"error": "no good", "fault": true}')
        raise StepFailed("no good")

    assert run(url, Fake(fail)).outcomes == {A.name: "failed", B.name: "blocked"}
    move(monkeypatch, tmp_path / "two")
    failure = Store(mirrored(url, "s").root, mirror=True).failure(A)
    assert failure and failure["error"] == "no good"


def test_a_killed_put_is_repeated_and_what_has_no_record_does_not_count(
    url: str, tmp_path: Path
) -> None:
    run(url, Fake(), A)
    there = tmp_path / "bucket" / "s" / "steps" / A.name
    (there / RECORD).unlink()
    (out,) = there.glob("*/out.txt")
    out.write_text("ha")
    # As a run leaves it that dies while it puts the step there.
    shutil.rmtree(Remote(url, "s").root / "remote")
    assert run(url, fake := Fake(), A).failed == [] and fake.asked == []
    assert out.read_text() == "a" and (there / RECORD).exists()


def made(remote: Remote, text: str) -> Record:
    """A step that was made in the mirror of a machine, with a result of its own."""
    folder = remote.folder(A.name)
    task = Task("items", A.slug, A.hash, A.identity, {}, {}, str(folder))
    seal(task)
    (folder / "out.txt").write_text(text)
    told = json.loads((folder / RECORD).read_text())
    hashes = {n: sha256_file(folder / n) for n in told["outputs"]}
    fields = {k: v for k, v in told.items() if k not in ("sum", "outputs")}
    record = Record.from_json({**fields, "outputs": hashes})
    (folder / RECORD).write_text(json.dumps(record.to_json()))
    return record


@pytest.mark.parametrize("what", ["put", "create"])
def test_one_that_was_overtaken_damages_nothing(
    what: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Remote(url, "s")
    made(late, "late")
    move(monkeypatch, tmp_path / "two")
    first = Remote(url, "s")
    record = made(first, "first")
    real = getattr(late.objects, what)

    def asleep(*asked: Any) -> Any:
        # Its network is away after it has looked who runs the study.
        first.push(A.name)
        return real(*asked)

    monkeypatch.setattr(late.objects, what, asleep)
    assert late.push(A.name).outputs == record.outputs
    move(monkeypatch, tmp_path / "three")
    third = mirrored(url, "s")
    third.bring(A.name)
    assert (third.folder(A.name) / "out.txt").read_text() == "first"
    assert verify(third.folder(A.name)) == []
    assert not (late.folder(A.name) / "out.txt").exists()


def test_a_record_that_was_cut_off_is_put_there_again(url: str, tmp_path: Path) -> None:
    remote = Remote(url, "s")
    made(remote, "a")
    file = tmp_path / "bucket" / "s" / "steps" / A.name / RECORD
    create = remote.objects.create

    def torn(name: str, data: bytes) -> bool:
        file.write_bytes(data[:9])
        return create(name, data)

    remote.objects.create = torn  # type: ignore[method-assign]
    remote.push(A.name)
    assert json.loads(file.read_text())["outputs"]


def test_steps_that_were_put_beside_their_records_are_found(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(url, Fake(), A)
    there = tmp_path / "bucket" / "s" / "steps" / A.name
    for file in there.glob("*/*"):
        file.rename(there / file.name)
    move(monkeypatch, tmp_path / "two")
    Remote(url, "s").bring(A.name)
    two = mirrored(url, "s")
    two.bring_small()
    assert verify(two.folder(A.name)) == []


def test_a_step_that_was_deleted_there_is_made_again(url: str, tmp_path: Path) -> None:
    run(url, Fake())
    shutil.rmtree(tmp_path / "bucket" / "s" / "steps" / B.name)
    run(url, fake := Fake())
    assert fake.asked == ["b"]
    shutil.rmtree(tmp_path / "bucket" / "s")
    with pytest.raises(StoreError, match="nothing of the study is at the URL any more"):
        mirrored(url, "s")


def test_hostile_records_reach_no_file_outside(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(url, Fake(), A)
    file = tmp_path / "bucket" / "s" / "steps" / A.name / RECORD
    row = json.loads(file.read_text())
    for name in ("../../out.txt", "/tmp/out.txt"):
        file.write_text(json.dumps({**row, "outputs": {name: "0" * 64}}))
        move(monkeypatch, tmp_path / "two")
        monkeypatch.setattr(Objects, "_nap", lambda *_: None)
        with pytest.raises(StoreError, match="damaged"):
            mirrored(url, "s")


def test_a_dead_driver_is_taken_over_and_sees_it(url: str, tmp_path: Path) -> None:
    store, now = Objects(f"{url}/s"), [0.0]

    def pause(seconds: float) -> None:
        now[0] += seconds

    dead = Driver(store, tmp_path / "a" / "lock").__enter__()
    dead._ended.set()
    late = Driver(store, tmp_path / "b" / "lock", clock=lambda: now[0], pause=pause)
    with late:
        assert now[0] >= DEAD_SECONDS and late.number == 2
        for look in (dead.beat, dead.check):
            with pytest.raises(HeldElsewhere):
                look()
        os.close(dead._lock)
        # On this machine nobody waits for it.
        with pytest.raises(HeldElsewhere, match=f"pid {os.getpid()}"):
            Driver(store, tmp_path / "b" / "lock").__enter__()
    again = Driver(store, tmp_path / "b" / "lock", clock=lambda: now[0], pause=pause)
    again._holder = late._holder
    store.write("driver/000002.json", late._told())
    before = now[0]
    with again:
        assert now[0] == before and again.number == 3


def test_a_home_without_locks_has_one_driver_at_a_time(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert run(url, Fake(), A).failed == []
    store = Objects(f"{url}/s")
    # Its file on this machine does not tell that it is dead.
    with (
        Driver(store, tmp_path / "lock", pause=lambda _: None) as first,
        pytest.raises(HeldElsewhere, match=f"pid {os.getpid()}"),
    ):
        Driver(store, tmp_path / "lock", pause=lambda _: first.beat()).__enter__()


def test_the_driver_of_a_newer_epigone_is_refused_by_name(url: str, tmp_path: Path) -> None:
    store = Objects(f"{url}/s")
    with Driver(store, tmp_path / "lock"):
        told = store.read("driver/000001.json", json.loads)
        assert told and told["format"] == 1
    store.write("driver/000002.json", b'{"format": 2, "who": "nobody knows"}')
    with pytest.raises(NewerFormat, match=r"lease was written by a newer .*driver/000002\.json"):
        mirrored(url, "s")


def test_status_elsewhere_tells_who_runs_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(task: Task) -> Record:
        driver.beat()
        move(monkeypatch, tmp_path / "two")
        watch = Watch(mirrored(url, "s").root)
        (file,) = (watch.folder / "runners").iterdir()
        formats.append(json.loads(file.read_text())["format"])
        told.append(([r.pid for r in watch.runners()], watch.holders()))
        move(monkeypatch, tmp_path / "one")
        return seal(task)

    told: list[Any] = []
    formats: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Opened, "environment", lambda self: {})
        made = Driver.__enter__

        def enter(self: Driver) -> Driver:
            nonlocal driver
            driver = made(self)
            return driver

        driver: Driver
        patch.setattr(Driver, "__enter__", enter)
        run(url, Fake(look), A)
    assert told == [([str(os.getpid())], {A.name: "at-url"})]
    assert formats == [1]
    move(monkeypatch, tmp_path / "two")
    watch = Watch(mirrored(url, "s").root)
    assert watch.runners() == [] and watch.holders() == {}


class Faulty(LocalFileSystem):  # type: ignore[misc]
    """A disk that fails so often in each of these ways, and may lie about sizes."""

    protocol = "faulty"
    left: ClassVar[dict[str, int]] = {}
    lies = False

    @classmethod
    def fails(cls, how: str) -> bool:
        cls.left[how] = cls.left.get(how, 0) - 1
        return cls.left[how] >= 0

    def put_file(self, here: str, there: str, **kw: Any) -> None:
        data = Path(here).read_bytes()
        if self.fails("half"):
            Path(there).write_bytes(data[: len(data) // 2])
            raise OSError("connection reset")
        if self.fails("silent"):
            Path(there).write_bytes(data[: len(data) // 2])
            return
        super().put_file(here, there, **kw)

    def get_file(self, there: str, here: str, **kw: Any) -> None:
        super().get_file(there, here, **kw)
        if self.fails("truncated"):
            os.truncate(here, 1)

    def cat_file(self, path: str, *a: Any, **kw: Any) -> bytes:
        data: bytes = super().cat_file(path, *a, **kw)
        return data[:-1] if self.fails("torn") else data

    def find(self, path: str, **kw: Any) -> Any:
        if self.fails("away"):
            raise TimeoutError("nobody answers")
        return super().find(path, **kw)

    def info(self, path: str, **kw: Any) -> Any:
        row = super().info(path, **kw)
        return {**row, "size": row["size"] + 1} if self.lies else row


@pytest.fixture
def faulty(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    fsspec.register_implementation("faulty", Faulty, clobber=True)
    monkeypatch.setattr(objects_module, "_WITH_FOLDERS", frozenset(["faulty"]))
    monkeypatch.setattr(Objects, "_nap", lambda *_: None)
    monkeypatch.setattr(Faulty, "left", {})
    return url.replace("file:", "faulty:")


@pytest.mark.parametrize("how", ["half", "silent", "truncated", "torn", "away", "lies"])
def test_faults_that_pass_change_nothing(
    how: str, faulty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Faulty, "lies", how == "lies")
    Faulty.left[how] = 2
    assert run(faulty, Fake(), A).failed == []
    move(monkeypatch, tmp_path / "two")
    Faulty.left[how] = 2
    assert run(faulty, fake := Fake(), A, B).failed == [] and fake.asked == ["b"]
    there = tmp_path / "bucket" / "s" / "steps"
    for one in (A, B):
        record = json.loads((there / one.name / RECORD).read_text())
        (made_in,) = (p for p in (there / one.name).iterdir() if p.is_dir())
        found = {n: sha256_file(made_in / n) for n in record["outputs"]}
        assert found == record["outputs"]


def test_faults_that_stay_are_one_line(
    faulty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def act(task: Task) -> Record:
        Faulty.left["half"] = 10**9
        return seal(task)

    monkeypatch.setattr("epigone.runs.at_url.WORK_PATIENCE", 0.0)
    with pytest.raises(StoreError, match=r"cannot be used: faulty.*connection reset"):
        run(faulty, Fake(act), A)
    Faulty.left.clear()
    # The work is not lost: it goes there with the next run.
    assert run(faulty, fake := Fake(), A).failed == [] and fake.asked == []
    (out,) = (tmp_path / "bucket" / "s" / "steps" / A.name).glob("*/out.txt")
    out.write_text("b")
    move(monkeypatch, tmp_path / "two")
    with pytest.raises(StoreError, match=r"damaged.*out\.txt.*delete its step's folder"):
        mirrored(faulty, "s").bring_small()


def ledger(home: Path, *lines: str) -> Path:
    file = home / "l.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a") as f:
        f.writelines(line + "\n" for line in lines)
    return file


def test_no_answer_is_lost_and_none_counts_twice(url: str, tmp_path: Path) -> None:
    store = Objects(f"{url}/ledger")
    one, two = tmp_path / "1", tmp_path / "2"
    mine, theirs = Segments(store, one), Segments(store, two)
    ledger(one, "sent x", "void x", "sent x", "void x")
    mine.push()
    theirs.pull()
    # Each goes on by itself; a line that is being written waits.
    ledger(one, "came x")
    with open(ledger(two, "sent y", "void x"), "a") as f:
        f.write("came")
    mine.push()
    theirs.push()
    mine.push()
    for folder in (one, two):
        Segments(store, folder).pull()
    want = sorted(["sent x", "void x", "sent x", "void x", "came x", "sent y", "void x"])
    for folder in (one, two):
        lines = (folder / "l.jsonl").read_text().splitlines()
        assert sorted(lines) == want
        assert lines.index("sent x") < lines.index("came x")
    # A third sees all; nothing new is put there though all begin anew.
    pieces = set(store.find())
    mine.close(), theirs.close()
    for folder in (one, two, tmp_path / "3"):
        fresh = Segments(store, folder)
        fresh.pull()
        fresh.push()
        fresh.close()
    assert sorted((tmp_path / "3" / "l.jsonl").read_text().splitlines()) == want
    assert set(store.find()) == pieces


def test_a_push_killed_before_it_is_known_is_no_second_one(url: str, tmp_path: Path) -> None:
    store, home = Objects(f"{url}/ledger"), tmp_path / "1"
    ledger(home, "sent x", "came x")
    dead = Segments(store, home)
    dead.push()
    dead.close()
    ledger(home, "sent y")
    again = Segments(store, home)
    again.push()
    again.close()
    other = Segments(store, tmp_path / "2")
    other.pull()
    assert (tmp_path / "2" / "l.jsonl").read_text() == "sent x\ncame x\nsent y\n"


def looked(url: str, offline: bool = False) -> Check:
    (check,) = store_probe(url, offline).find()
    return check


def test_the_doctor_looks_at_a_store(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The folder comes with its first file, and the bucket does not.
    assert looked("s3://bucket/not-yet").found.startswith("s3://bucket/not-yet can be read")
    assert looked(s3).state == "ok"
    gone = looked("s3://none/studies")
    assert gone.state == "problem"
    assert gone.found.startswith("s3://none/studies: FileNotFoundError: ")
    assert gone.fix.startswith("check the URL, the network")
    assert looked("s3://none/studies", offline=True).state == "note"
    refused = looked("s3://key:hidden@bucket/x")
    assert (refused.state, "hidden" in f"{refused}") == ("problem", False)
    monkeypatch.setitem(sys.modules, "adlfs", None)
    assert looked("az://container/x").fix == "pip install adlfs"


def test_the_doctor_looks_at_a_study_whose_steps_are_at_a_url(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epigone.cli.doctor_machine._accelerators", list)
    (tmp_path / "x.yaml").write_text("name: x\n")
    for offline in ([], ["--offline"]):
        argv = ["epigone", "doctor", str(tmp_path / "x.yaml"), "--runs", url, *offline]
        monkeypatch.setattr(sys, "argv", argv)
        monkeypatch.setattr("epigone.cli.doctor_network.probes", list)
        with pytest.raises(SystemExit):
            main()
        told = capsys.readouterr().out
        assert f"{url} was not asked" in told if offline else f"{url} can be read" in told
        assert "disk of runs" not in told and "study file" in told


@pytest.mark.parametrize("verb", ["status", "verify"])
def test_runs_without_a_name_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["epigone", verb, "x.yaml", "--runs", ""])
    with pytest.raises(SystemExit) as end:
        main()
    told = capsys.readouterr().err
    assert (end.value.code, told.count("\n")) == (2, 1)
    assert told.startswith("epigone: --runs names nothing (")


def test_verbs_that_need_a_folder_refuse_a_url(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["epigone", "rate", "study", "x.yaml", "--runs", "s3://bucket/studies"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as end:
        main()
    told = capsys.readouterr().err
    assert end.value.code == 2 and "needs a folder, and no URL: s3://bucket/studies" in told
    assert len(told.splitlines()) == 1
