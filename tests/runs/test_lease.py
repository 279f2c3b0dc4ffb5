from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from epigone.errors import HeldElsewhere
from epigone.runs import lease

HOLD = """
import sys, time
from pathlib import Path
from epigone.runs import lease
with lease.hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def other(root: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    process = other(tmp_path)
    try:
        with pytest.raises(HeldElsewhere) as caught, lease.hold(tmp_path):
            pass
        assert f"pid {process.pid}" in str(caught.value)
        assert socket.gethostname() in str(caught.value)
        assert "since 20" in str(caught.value)
        holder = lease.holder(tmp_path)
        assert holder is not None
        assert holder["pid"] == str(process.pid)
    finally:
        process.kill()
        process.wait()


def test_a_lease_left_by_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    process = other(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert str(process.pid) in (tmp_path / "lease.json").read_text()
    with lease.hold(tmp_path):
        assert str(os.getpid()) in (tmp_path / "lease.json").read_text()


def test_it_is_free_after_the_block_even_on_errors(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), lease.hold(tmp_path):
        raise RuntimeError
    assert lease.holder(tmp_path) is None
    with lease.hold(tmp_path):
        pass


def test_a_look_does_not_keep_a_run_from_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lease.json").touch()
    with open(tmp_path / "lease.json") as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        monkeypatch.setattr(lease.time, "sleep", lambda _: fcntl.flock(look, fcntl.LOCK_UN))
        with lease.hold(tmp_path):
            assert str(os.getpid()) in (tmp_path / "lease.json").read_text()


def test_the_name_of_a_holder_that_has_just_begun_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(tmp_path / "lease.json", "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)

        def name_itself(_: float) -> None:
            f.write('{"host": "h", "pid": 7, "since": "2024-01-01"}')
            f.flush()

        monkeypatch.setattr(lease.time, "sleep", name_itself)
        with pytest.raises(HeldElsewhere, match="host h, pid 7"), lease.hold(tmp_path):
            pass


def test_a_holder_without_a_name_is_waited_for_about_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(lease.time, "sleep", pauses.append)
    with open(tmp_path / "lease.json", "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        with pytest.raises(HeldElsewhere, match="host unknown"), lease.hold(tmp_path):
            pass
    assert 0.5 < sum(pauses) <= 1


def test_nobody_holds_what_is_not_there(tmp_path: Path) -> None:
    assert lease.holder(tmp_path / "absent") is None
