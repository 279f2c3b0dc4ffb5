"""What bench/faults.py breaks: a tiny study, its teacher, a copy of its runs, and its processes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from epigone.files import SCRATCH, canonical
from epigone.runs.store import LIVE, LOG, RECORD, Damaged, outputs, read_record

ROOT = Path(__file__).parents[1]
STUDY = """\
name: tiny
teacher:
  name: teacher
  terms: openai
  endpoint:
    url: "http://127.0.0.1:{port}/v1"
    model: teacher
    key_env: A_KEY
    price: [2, 8]
    concurrency: 4
bases: [{folder}/tiny]
corpora:
  talk: {{kind: broad, from: [{folder}/talk.json], held_out: 6}}
  asked:
    kind: broad
    synthesize: {{task: answers, prompts: prompts.jsonl, turns: 1, max_tokens: 64}}
    size: 40
    held_out: 4
amounts: {{talk: [600, 2k], asked: [200]}}
recipe: {{batch: 2, block: 128, warmup: 2}}
evaluate:
  benchmarks: [facts]
  limit: 6
  style: {{n: 4, max_new_tokens: 64, metrics: [unigram, length_ratio]}}
"""
# Seconds after which a command counts as hanging for ever.
_FOR_EVER = 900.0


class Teacher:
    """An endpoint on this machine that says the same to the same, counts, and can be away.

    `way` is "there"; "500" for errors of the server; "cut" and "half" for a connection that ends
    before the answer or in the middle of it; "gone" where nothing listens.
    """

    def __init__(self, port: int, seconds: float = 0.15) -> None:
        self.way = "there"
        self.answered: Counter[str] = Counter()
        self.unheard = 0
        self._port, self._seconds = port, seconds
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self.come()

    def come(self) -> None:
        self.way = "there"
        if self._server is None:
            teacher = self

            class Handler(_Handler):
                of = teacher

            self._server = _Server(("127.0.0.1", self._port), Handler)
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def go(self, way: str) -> None:
        self.way = way
        if way == "gone" and self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer(self, body: dict[str, Any], way: str) -> bytes | None:
        """What to send; None for an error of the server."""
        time.sleep(self._seconds)
        if way == "500":
            return None
        own = hashlib.sha256(canonical(body).encode()).hexdigest()
        with self._lock:
            self.answered[canonical(body)] += 1
            self.unheard += way == "half"
        text = f"An answer, {own[:16]}. " + "It goes on. " * (int(own[:2], 16) % 9)
        choice = {"index": 0, "message": {"role": "assistant", "content": text},
                  "finish_reason": "stop"}  # fmt: skip
        usage = {"prompt_tokens": 30, "completion_tokens": 20, "total_tokens": 50}
        told = {"object": "chat.completion", "model": "teacher", "created": 1_750_000_000}
        return json.dumps({**told, "choices": [choice], "usage": usage}).encode()


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Whoever asked was killed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    of: Teacher

    def log_message(self, *_: object) -> None: ...

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        way = self.of.way
        if way in ("cut", "gone"):
            self._hang_up()
            return
        sent = self.of.answer(body, way)
        content = sent if sent is not None else b'{"error": {"message": "out of order"}}'
        with suppress(OSError):  # whoever asked may have been killed
            self.send_response(200 if sent is not None else 500)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if way == "half" else content)
        if way == "half":
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass(frozen=True)
class Whole:
    """A study's file, and its undisturbed run."""

    file: Path
    runs: Path
    name: str = "tiny"

    @property
    def steps(self) -> Path:
        return self.runs / self.name / "steps"

    def names(self) -> list[str]:
        return sorted(str(p.parent.relative_to(self.steps)) for p in self.steps.rglob(RECORD))

    def seconds(self, name: str) -> float:
        record = read_record(self.steps / name)
        assert record is not None
        return record.seconds


def make(work: Path) -> tuple[Whole, Teacher]:
    """The study in `work`, run once without any fault unless that was done before."""
    folder = work / "study"
    file = folder / "port"
    if not file.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        sys.path.insert(0, str(ROOT))
        from tests import conftest

        conftest._write_talk(folder)
        conftest._write_tiny_base(folder)
        lines = [
            json.dumps({"prompt": a.format(s)}) for a in conftest.ASKS for s in conftest.SUBJECTS
        ]
        (folder / "prompts.jsonl").write_text("\n".join(lines))
        port = free_port()
        (folder / "study.yaml").write_text(STUDY.format(folder=folder, port=port))
        file.write_text(str(port))
    whole = Whole(folder / "study.yaml", folder / "whole")
    teacher = Teacher(int(file.read_text()))
    done = Command(whole, whole.runs, folder / "told.txt").wait()
    if done.code:
        raise SystemExit(f"the study without any fault failed:\n{done.told}")
    seconds = sum(map(whole.seconds, whole.names()))
    print(f"{len(whole.names())} steps, {seconds:.0f} s of work undisturbed", flush=True)
    assert set(teacher.answered.values()) <= {1}
    return whole, teacher


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    told: str


class Command:
    """`epigone run` of the study in a process, and a process group, of its own."""

    def __init__(
        self, whole: Whole, runs: Path, err: Path, *more: str, cgroup: Path | None = None
    ) -> None:
        words = [sys.executable, "-m", "epigone", "run", str(whole.file)]
        words += ["--runs", str(runs), *more]
        if cgroup is not None:
            words = ["sh", "-c", f'echo $$ > "{cgroup}/cgroup.procs"; exec "$@"', "sh", *words]
        self._err = err
        with open(err, "wb") as told, open(err.with_suffix(".out"), "wb") as out:
            self.process = subprocess.Popen(
                words, stdout=out, stderr=told, start_new_session=True, cwd=whole.file.parent,
                env={**os.environ, "A_KEY": "sk-any", "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        self.begun = time.monotonic()

    @property
    def pid(self) -> int:
        return self.process.pid

    def runs(self) -> bool:
        if time.monotonic() - self.begun > _FOR_EVER:
            raise Stuck(f"no end after {_FOR_EVER:.0f} s", self.said())
        return self.process.poll() is None

    def wait(self) -> Done:
        code = self.process.wait(_FOR_EVER)
        return Done(code, self.said())

    def said(self) -> str:
        return self._err.read_text(errors="replace")


class Stuck(Exception):
    """A study that the same command, and what its line asks for, does not bring to its end."""


def parents() -> dict[int, int]:
    """The parent of every process."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with suppress(OSError, IndexError):
                stat = Path(entry.path, "stat").read_text()
                found[int(entry.name)] = int(stat.rsplit(")", 1)[1].split()[1])
    return found


def below(pid: int) -> list[int]:
    """All that descends from a process."""
    of = parents()
    found, last = [], {pid}
    while last := {p for p, parent in of.items() if parent in last}:
        found += sorted(last)
    return found


def cmdline(pid: int) -> str:
    try:
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    except OSError:
        return ""


@dataclass
class Fault:
    """A fault, and what came of it; `lost` are seconds of work, `twice` requests."""

    kind: str
    what: str
    result: str = ""
    line: str = ""
    lost: float = 0.0
    twice: int = 0


@dataclass
class Work:
    """A step's process: how long it has worked, how far it told to be, and what ended it."""

    step: str
    born: float
    seen: float
    done: float = 0.0
    keeps: bool = False
    by: Fault | None = None

    @property
    def seconds(self) -> float:
        return self.seen - self.born


@dataclass
class Scene:
    """A copy of the undisturbed run, some of whose steps are to do."""

    whole: Whole
    folder: Path
    working: dict[int, Work] = field(default_factory=dict)
    # Work that ended without a finished step, until it is known how much of it was kept.
    ended: list[Work] = field(default_factory=list)
    # The last fault: what ends from now on ends by it.
    last: Fault | None = None

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def steps(self) -> Path:
        return self.runs / self.whole.name / "steps"

    def copy(self) -> None:
        for name in (self.whole.name, "ledger"):
            if (self.whole.runs / name).is_dir():
                shutil.copytree(self.whole.runs / name, self.runs / name)

    def cut(self, names: list[str]) -> None:
        """Have steps to do."""
        for name in names:
            shutil.rmtree(self.steps / name)

    def forget_answers(self) -> None:
        shutil.rmtree(self.runs / "ledger", ignore_errors=True)

    def look(self) -> list[int]:
        """Follow the processes of steps; those that work now are returned."""
        now = time.time()
        alive = dict(self._processes())
        for pid, step in alive.items():
            if pid not in self.working:
                self.working[pid] = Work(step, _born(pid), now)
        for pid, work in [*self.working.items()]:
            partial = self.steps / f"{work.step}.partial"
            if pid in alive:
                work.seen = now
                work.done = max(work.done, _told(partial, work.born))
                work.keeps = work.keeps or any(
                    p.name not in ("asked", "seconds") for p in (partial / SCRATCH).glob("*")
                )
                self._settle(work.step, now)
                continue
            del self.working[pid]
            if not (self.steps / work.step / RECORD).exists():
                work.by = self.last
                self.ended.append(work)
        return list(alive)

    def _settle(self, step: str, now: float) -> None:
        """Of what ended, that is lost which the step does not begin with again."""
        again = [w for w in self.working.values() if w.step == step]
        for work in [w for w in self.ended if w.step == step]:
            began = max((w.done for w in again), default=0.0)
            if began or not work.keeps:
                self.ended.remove(work)
                _lose(work, min(1.0, began / work.done) if work.keeps and work.done else 0.0)

    def settle(self) -> None:
        """What was not seen to be kept is lost."""
        while self.ended:
            _lose(self.ended.pop(), 0.0)

    def _processes(self) -> Iterator[tuple[int, str]]:
        start = f"{self.steps}/"
        for entry in os.scandir("/proc"):
            if entry.name.isdecimal():
                with suppress(OSError):
                    log = os.readlink(f"/proc/{entry.name}/fd/1")
                    if log.startswith(start) and log.endswith(f".partial/{LOG}"):
                        name = log[len(start) : -len(f".partial/{LOG}")]
                        yield int(entry.name), name

    def differs(self) -> list[str]:
        """Steps whose records or files are not those of the undisturbed run, and what is left."""
        wrong = []
        for name in self.whole.names():
            ours, theirs = self.steps / name, read_record(self.whole.steps / name)
            assert theirs is not None
            try:
                record = read_record(ours)
            except Damaged as error:
                wrong.append(str(error))
                continue
            if record is None or record.outputs != theirs.outputs or record.hash != theirs.hash:
                wrong.append(f"{name}: another record")
            elif outputs(ours) != theirs.outputs:
                wrong.append(f"{name}: other files than its record's")
        wrong += [f"left: {p.name}" for p in self.runs.rglob("*.partial")]
        if len(list(self.steps.glob("*/*"))) != len(self.whole.names()):
            wrong.append("more steps than there are")
        return wrong


def _lose(work: Work, kept: float) -> None:
    if work.by is not None:
        work.by.lost += work.seconds * (1 - kept)


def _born(pid: int) -> float:
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
        up = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, IndexError):
        return time.time()
    return time.time() - up + ticks / os.sysconf("SC_CLK_TCK")


def _told(partial: Path, since: float) -> float:
    try:
        if (partial / LIVE).stat().st_mtime < since:
            return 0.0
        return float(json.loads((partial / LIVE).read_text())["done"])
    except (OSError, ValueError):
        return 0.0


def end(pid: int, how: signal.Signals = signal.SIGKILL) -> bool:
    """Signal a process; False where it has gone."""
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        return False
    return True


def paid(runs: Path) -> tuple[Counter[str], int]:
    """Of each request, how often the ledger has its answer; and how many lines have no answer."""
    came: Counter[str] = Counter()
    opened = 0
    for file in (runs / "ledger").glob("*.jsonl"):
        for line in file.read_bytes().splitlines():
            with suppress(ValueError):
                row = json.loads(line)["row"]
                opened += {"sent": 1, "came": -1, "void": -1, "lost": 0}.get(row["kind"], 0)
                if row["kind"] == "came":
                    came[canonical(row["request"])] += 1
    return came, opened


def moment(rng: random.Random, seconds: float) -> float:
    """A moment of some work, half of them in its first third."""
    return rng.uniform(0, 1.2 * seconds) * rng.choice((1 / 3, 1))
