from __future__ import annotations

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


def test_nobody_holds_what_is_not_there(tmp_path: Path) -> None:
    assert lease.holder(tmp_path / "absent") is None
