from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from epigone.errors import HeldElsewhere, NewerFormat
from epigone.runs import lease
from epigone.runs.lease import Runner, Watch

STEP = "train/tiny-0badcafe"
HOLD = """
import sys, time
from pathlib import Path
from epigone.runs.lease import Runner
with Runner(Path(sys.argv[1]), sys.argv[2]) as runner:
    print(runner.take("train/tiny-0badcafe"), flush=True)
    time.sleep(600)
"""


def other(root: Path, study: str = "s") -> subprocess.Popen[str]:
    """A runner in a process of its own that has taken the step."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root), study], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


class Clock:
    """Seconds that pass when somebody says so."""

    def __init__(self) -> None:
        self.now = 5.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, this machine is another one, which sees nobody's locks."""

    def move() -> None:
        monkeypatch.setattr(lease, "_boot", lambda: "another machine")
        monkeypatch.setattr(lease, "_held", lambda file: False if file.exists() else None)

    return move


def test_a_step_has_one_runner_and_is_free_after_it(tmp_path: Path) -> None:
    with Runner(tmp_path, "s") as first, Runner(tmp_path, "s") as second:
        assert first.take(STEP)
        assert not second.take(STEP)
        assert not first.take(STEP)
        assert second.take("train/another-0badcafe")
        assert second.holders() == {STEP: first.id, "train/another-0badcafe": second.id}
        first.free(STEP)
        assert second.take(STEP)
        assert first.holder(STEP) == second.id


def test_what_a_runner_had_is_free_when_it_ends(tmp_path: Path) -> None:
    def break_off() -> None:
        with Runner(tmp_path, "s") as runner:
            assert runner.take(STEP)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert Watch(tmp_path).holders() == {}
    assert Watch(tmp_path).runners() == []
    assert [*(tmp_path / lease.FOLDER / "runners").iterdir()] == []


def test_of_many_that_want_it_at_once_one_gets_each_step(tmp_path: Path) -> None:
    steps = [f"train/s{n}-0badcafe" for n in range(20)]
    context = multiprocessing.get_context("fork")
    barrier, got = context.Barrier(4), context.SimpleQueue()

    def want() -> None:
        with Runner(tmp_path, "s") as runner:
            barrier.wait()
            taken = [s for s in steps if runner.take(s)]
            barrier.wait()
            got.put(taken)

    racers = [context.Process(target=want) for _ in range(4)]
    for racer in racers:
        racer.start()
    taken = [step for _ in racers for step in got.get()]
    for racer in racers:
        racer.join()
    assert sorted(taken) == sorted(steps)


def test_a_runner_killed_on_this_machine_is_dead_at_once(tmp_path: Path) -> None:
    process = other(tmp_path)
    with Runner(tmp_path, "s") as runner:
        (holder,) = (r for r in runner.runners() if r.id != runner.id)
        assert (holder.pid, holder.host) == (str(process.pid), socket.gethostname())
        assert not runner.take(STEP)
        kill(process)
        assert [r.id for r in runner.runners()] == [runner.id]
        assert runner.take(STEP)


def test_one_that_was_killed_before_this_one_began_is_dead_at_once(tmp_path: Path) -> None:
    kill(other(tmp_path))
    for _ in range(2):
        with Runner(tmp_path, "s") as runner:
            assert runner.take(STEP)
    with Runner(tmp_path, "s") as runner:
        left = [p.stem for p in (tmp_path / lease.FOLDER / "runners").iterdir()]
        assert left == [runner.id]


def test_a_stopped_runner_of_this_machine_is_not_dead(tmp_path: Path) -> None:
    process = other(tmp_path)
    clock = Clock()
    try:
        os.kill(process.pid, signal.SIGSTOP)
        with Runner(tmp_path, "s", clock) as runner:
            assert not runner.take(STEP)
            clock.now += 10 * lease.DEAD_SECONDS
            assert not runner.take(STEP)
    finally:
        kill(process)


@pytest.mark.parametrize("skew", [-7200, 0, 7200])
def test_another_machines_runner_is_dead_when_its_beat_stays_still(
    tmp_path: Path, elsewhere: Callable[[], None], skew: int
) -> None:
    clock = Clock()
    with Runner(tmp_path, "s") as far:
        assert far.take(STEP)
        file = tmp_path / lease.FOLDER / "runners" / f"{far.id}.json"
        elsewhere()
        with Runner(tmp_path, "s", clock) as runner:
            for beat in range(5):
                # Its machine's clock is hours off; that it changes is what counts.
                os.utime(file, (1_000_000_000 + skew + beat,) * 2)
                assert not runner.take(STEP)
                clock.now += lease.DEAD_SECONDS - 1
            clock.now += lease.DEAD_SECONDS
            assert runner.take(STEP)
            assert far.lost() == [STEP]
            assert not lease.ours(far.lease(STEP))
            far.free(STEP)
            assert Watch(tmp_path).holder(STEP) == runner.id


def test_a_lease_whose_maker_died_over_it_is_taken_after_a_while(tmp_path: Path) -> None:
    clock = Clock()
    with Runner(tmp_path, "s", clock) as runner:
        (tmp_path / lease.FOLDER / STEP).mkdir(parents=True)
        (tmp_path / lease.FOLDER / STEP / "000001").touch()
        assert not runner.take(STEP)
        clock.now += lease.DEAD_SECONDS
        assert runner.take(STEP)


def test_a_lease_is_not_ours_after_the_step_was_done_by_another(tmp_path: Path) -> None:
    with Runner(tmp_path, "s") as runner:
        assert runner.take(STEP)
        file = runner.lease(STEP)
        assert lease.ours(file)
        runner.done(STEP)
        assert not lease.ours(file)
        assert not file.parent.exists()


def test_another_study_in_the_same_folder_is_refused_while_one_runs(tmp_path: Path) -> None:
    process = other(tmp_path, "as it was")
    try:
        with pytest.raises(HeldElsewhere, match=f"pid {process.pid}"), Runner(tmp_path, "changed"):
            pass
        assert len(Watch(tmp_path).runners()) == 1
    finally:
        kill(process)
    with Runner(tmp_path, "changed") as runner:
        assert runner.runners() == [runner._own]


def test_another_study_left_by_a_dead_machine_is_waited_for(
    tmp_path: Path, elsewhere: Callable[[], None]
) -> None:
    file = tmp_path / lease.FOLDER / "runners" / "0123.json"
    file.parent.mkdir(parents=True)
    told = {"id": "0123", "host": "gone", "pid": "7", "since": "1970", "boot": "b", "study": "old"}
    file.write_text(json.dumps(told))
    elsewhere()
    clock = Clock()

    def pass_time(seconds: float) -> None:
        clock.now += seconds

    with Runner(tmp_path, "new", clock, pass_time):
        assert clock.now >= lease.DEAD_SECONDS
        assert not file.exists()  # nobody waits for it again

    file.write_text(json.dumps(told))

    def beats(seconds: float) -> None:
        clock.now += seconds
        os.utime(file, (clock.now, clock.now))

    with pytest.raises(HeldElsewhere, match="host gone, pid 7"):
        Runner(tmp_path, "newer", clock, beats).__enter__()


def test_nobody_works_where_nothing_is(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "absent")
    assert (watch.runners(), watch.holders(), watch.holder(STEP)) == ([], {}, "")


def test_a_runners_file_that_says_nothing_is_still_a_runner(tmp_path: Path) -> None:
    with Runner(tmp_path, "s") as runner:
        file = tmp_path / lease.FOLDER / "runners" / f"{runner.id}.json"
        file.write_text("{")
        assert [str(r) for r in Watch(tmp_path).runners()] == [
            "host unknown, pid unknown, since unknown"
        ]


def test_a_runner_of_a_newer_epigone_is_refused_by_name(tmp_path: Path) -> None:
    with Runner(tmp_path, "s") as runner:
        file = tmp_path / lease.FOLDER / "runners" / f"{runner.id}.json"
        file.write_text(json.dumps({"format": 9}))
        with pytest.raises(NewerFormat, match=r"a study.s lease .* in format 9"):
            Watch(tmp_path).runners()


def test_it_works_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lease.fcntl, "flock", refuse)
    clock = Clock()
    with Runner(tmp_path, "s") as first, Runner(tmp_path, "s", clock) as second:
        assert first.take(STEP)
        assert not second.take(STEP)
        clock.now += lease.DEAD_SECONDS
        assert second.take(STEP)


def test_a_step_that_another_runner_is_done_with_meanwhile_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def late(path: Path, *more: int) -> int:
        if path.parent == tmp_path / lease.FOLDER / STEP:
            path.parent.rmdir()
        return real(path, *more)

    with Runner(tmp_path, "s") as runner:
        monkeypatch.setattr(os, "open", late)
        assert not runner.take(STEP)
        monkeypatch.undo()
        assert runner.take(STEP)


def test_a_disk_that_is_away_takes_no_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(path: Path) -> list[str]:
        raise OSError(errno.ESTALE, "stale file handle")

    with Runner(tmp_path, "s") as runner:
        assert runner.take(STEP)
        monkeypatch.setattr(os, "listdir", away)
        assert (lease.ours(runner.lease(STEP)), runner.lost()) == (True, [])
