"""Batches outlive the command that made them, whatever ends it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.teachers.batching import BATCH, by_batch, ledger_rows, paid, same
from tests.teachers.conftest import Running
from tests.teachers.test_collect import ask, prompt_file

from epigone.errors import EndpointError
from epigone.teachers import batch as batch_module
from epigone.teachers import batches as batches_module
from epigone.teachers.answers import Settings
from epigone.teachers.ask import Asker
from epigone.teachers.cancel import cancel_batches
from epigone.teachers.collect import ask_teacher
from epigone.teachers.ledger import Ledger
from epigone.teachers.means import purpose_of

Fakes = Callable[..., Running]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long."""
    monkeypatch.setattr(Asker, "_pause", lambda self, tried, failed: 0.0)
    monkeypatch.setattr(batch_module, "QUIET", 0.02)
    monkeypatch.setattr(batches_module, "POLL", (0.01, 0.02))


class Child:
    """A run in a process of its own, which can be killed."""

    def __init__(self, run: Callable[[], object]) -> None:
        self.id = os.fork()
        if not self.id:
            try:
                signal.signal(signal.SIGTERM, signal.default_int_handler)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                run()
            except BaseException as error:
                os._exit(9 if isinstance(error, KeyboardInterrupt) else 1)
            os._exit(0)

    def end(self, told: signal.Signals) -> int:
        os.kill(self.id, told)
        return os.waitstatus_to_exitcode(os.waitpid(self.id, 0)[1])


def until(true: Callable[[], Any]) -> None:
    while not true():
        time.sleep(0.005)


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_a_batch_outlives_its_run_and_is_collected_by_the_next(
    fake: Fakes, tmp_path: Path, told: signal.Signals
) -> None:
    server = fake(batch={"looks": 10**6})
    prompts = prompt_file(tmp_path, 30)
    child = Child(lambda: by_batch(server, prompts, tmp_path))
    until(lambda: server.batches()["calls"].get("look", 0) > 2)
    assert child.end(told) == 9
    # Live, nothing that is in the batch is asked; other things are.
    with pytest.raises(EndpointError, match=r"in a batch that is open.*batch_0000"):
        ask(server, prompts, tmp_path)
    assert sum(server.told()["billed"].values()) == 0
    server.steer(batch={})
    facts = by_batch(server, prompt_file(tmp_path, 35), tmp_path)
    paid(server, facts)
    assert [b["rows"] for b in server.batches()["batches"]] == [30, 5]


def test_a_batch_that_a_kill_left_in_doubt_is_found_among_others(
    fake: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = fake(latency=0.4)
    prompts = prompt_file(tmp_path, 20)
    child = Child(lambda: by_batch(server, prompts, tmp_path))
    until(lambda: server.batches()["batches"])
    assert child.end(signal.SIGKILL) == -signal.SIGKILL
    assert [r["state"] for r in ledger_rows(tmp_path) if r["kind"] == "batch"] == ["uploaded"]
    server.steer(latency=0)
    monkeypatch.setattr(batch_module, "ROWS", 2)
    (tmp_path / "other").mkdir()
    ask(server, prompt_file(tmp_path / "other", 14), tmp_path / "other", means=BATCH,
        system="Another one.")  # fmt: skip
    assert len(server.batches()["batches"]) == 8
    facts = by_batch(server, prompts, tmp_path)
    told = server.batches()
    assert len(told["batches"]) == 8
    assert set(told["submitted"].values()) == {1}
    assert facts["may_cost_more"] == "0"


def test_a_file_of_which_no_batch_was_made_costs_nothing(fake: Fakes, tmp_path: Path) -> None:
    server = fake(latency=0.4)
    prompts = prompt_file(tmp_path, 20)
    child = Child(lambda: by_batch(server, prompts, tmp_path))
    until(lambda: server.batches()["calls"].get("upload"))
    assert child.end(signal.SIGKILL) == -signal.SIGKILL
    server.steer(latency=0)
    ledger = Ledger(next((tmp_path / "ledger").glob("*.jsonl")))
    assert (ledger.open, ledger.batches) == (0, {})
    ledger.close()
    paid(server, by_batch(server, prompts, tmp_path))
    assert set(server.batches()["submitted"].values()) == {1}


def test_what_another_folder_asked_for_is_waited_for_and_is_its_cost(
    fake: Fakes, tmp_path: Path
) -> None:
    server = fake(batch={"looks": 10**6})
    prompts = prompt_file(tmp_path, 20)
    child = Child(lambda: by_batch(server, prompts, tmp_path))
    until(lambda: server.batches()["calls"].get("look"))
    child.end(signal.SIGKILL)
    server.steer(batch={})
    means = replace(BATCH, ledgers=tmp_path / "ledger", budget=Decimal(0))
    facts = ask_teacher(prompts, tmp_path / "b" / "out", server.ref, Settings(max_tokens=64),
                        means=means)  # fmt: skip
    assert (facts["cost"], facts["may_cost_more"], facts["written"]) == ("0", "0", 20)
    facts = by_batch(server, prompts, tmp_path, means=replace(BATCH, budget=Decimal(5)))
    assert facts["known"] == 20
    same(tmp_path, tmp_path / "b")
    assert len(server.batches()["batches"]) == 1


def test_cancelling_keeps_what_is_finished(
    fake: Fakes, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    server = fake(batch={"looks": 10**6, "finished": 0.4})
    prompts = prompt_file(tmp_path, 30)
    child = Child(lambda: by_batch(server, prompts, tmp_path))
    until(lambda: server.batches()["calls"].get("look"))
    child.end(signal.SIGKILL)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "ledger").symlink_to(tmp_path / "ledger")
    done = cli("teacher", "cancel", "--endpoint", server.ref, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "batch_0000" in done.stdout and "12 of 30" in done.stdout
    done = cli("teacher", "cancel", "--endpoint", server.ref, cwd=tmp_path)
    assert "none was open" in done.stdout
    server.steer(batch={})
    done = cli("teacher", "ask", prompts, "--endpoint", server.ref, "-o", "out", "--max-tokens",
               "64", "--price", "2,8", "--budget", "1", "--batch", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "(price as given (batch))" in done.stdout
    assert set(server.batches()["submitted"].values()) == {1, 2}
    assert set(server.told()["billed"].values()) == {1}
    costs = [Decimal(row["cost"]) for row in ledger_rows(tmp_path) if row["kind"] == "came"]
    assert float(sum(costs)) == pytest.approx(server.told()["cost"], abs=1e-12)


def test_killed_at_any_moment(fake: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "ROWS", 20)
    prompts = prompt_file(tmp_path, 160)
    ask(fake(), prompts, tmp_path / "live")
    by_batch(fake(), prompts, tmp_path / "quiet")
    server = fake(latency=0.02, batch={"looks": 3})
    rng, kills = random.Random(3), 0
    for _ in range(12):
        child = Child(lambda: by_batch(server, prompts, tmp_path))
        time.sleep(rng.uniform(0.02, 0.3))
        kills += child.end(signal.SIGKILL) == -signal.SIGKILL
    by_batch(server, prompts, tmp_path)
    assert kills >= 8
    same(tmp_path, tmp_path / "live")
    same(tmp_path, tmp_path / "quiet")
    assert set(server.batches()["submitted"].values()) == {1}
    told = server.told()
    found = ledger_rows(tmp_path)
    came = [row for row in found if row["kind"] == "came"]
    assert len({row["key"] for row in came}) == len(came) == 160
    assert float(sum(Decimal(row["cost"]) for row in came)) == pytest.approx(told["cost"])
    ledger = Ledger(next((tmp_path / "ledger").glob("*.jsonl")), purpose_of(tmp_path / "out"))
    assert (ledger.open, ledger.batches) == (0, {})
    assert float(ledger.spent) == pytest.approx(told["cost"], abs=1e-12)
    ledger.close()


def test_a_batch_that_is_no_more_is_given_up_by_cancelling(fake: Fakes, tmp_path: Path) -> None:
    server = fake(batch={"looks": 10**6})
    prompts = prompt_file(tmp_path, 10)
    child = Child(lambda: by_batch(server, prompts, tmp_path))
    until(lambda: server.batches()["calls"].get("look"))
    child.end(signal.SIGKILL)
    httpx.post(server.url.replace("/v1", "/forget-files"), content="batch_")
    with pytest.raises(EndpointError, match=r"knows no batch batch_0000: .*404") as raised:
        by_batch(server, prompts, tmp_path)
    assert "(end it with epigone teacher cancel)" in str(raised.value)
    facts = cancel_batches(server.ref, tmp_path / "ledger")
    assert (facts["batches"], facts["answers"], facts["requests"]) == (["batch_0000"], 0, 10)
    server.steer(batch={})
    facts = by_batch(server, prompts, tmp_path)
    assert facts["written"] == 10
    assert Decimal(facts["may_cost_more"]) > 0


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_an_end_while_a_batch_is_waited_for_is_one_line(
    fake: Fakes, tmp_path: Path, told: signal.Signals
) -> None:
    server = fake(batch={"looks": 10**6})
    words = ["teacher", "ask", prompt_file(tmp_path, 30), "--endpoint", server.ref, "-o", "out",
             "--batch", "--price", "2,8"]  # fmt: skip
    asking = subprocess.Popen(
        [sys.executable, "-m", "epigone", *map(str, words)], cwd=tmp_path, text=True,
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        # What a shell starts in the background is deaf to ^C, and so would be what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    until(lambda: server.batches()["batches"])
    asking.send_signal(told)
    _, errors = asking.communicate(timeout=120)
    assert asking.returncode == 130 or asking.returncode == 143
    assert "Traceback" not in errors and "never retrieved" not in errors
    assert len(errors.splitlines()) == 1
