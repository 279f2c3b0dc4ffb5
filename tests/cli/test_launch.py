"""How training is done, from the command line: processes, layouts, and an end by a signal."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from epigone.cli import app, common, main
from epigone.corpus import build
from epigone.errors import UserError
from epigone.files import read_jsonl
from epigone.study.specs import CorpusSpec, DataSpec, SourceSpec
from epigone.training.launch import _forget_state
from epigone.training.layout import COMPILE, PARALLEL, PROCESSES
from epigone.training.track import TRACK

RECIPE = ["--amount", "300", "--amount", "1k", "--batch", "1", "--block", "64", "--precision",
          "fp32", "--warmup", "0.1"]  # fmt: skip


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (PROCESSES, PARALLEL, TRACK, COMPILE, "RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, talk: Path, tiny_base: Path) -> Path:
    out = tmp_path_factory.mktemp("corpus")
    spec = CorpusSpec(
        kind="broad",
        sources=(DataSpec(ref=str(talk), fingerprint="x"),),
        tokenizer=SourceSpec(ref=str(tiny_base), fingerprint="x"),
        teacher="scribe",
        held_out=4,
    )
    build([talk], spec, tiny_base / "tokenizer.json", out)
    return out


def trained_by_forks(
    base: Path,
    corpus: Path,
    out: Path,
    *options: str,
    stop_at: int | None = None,
    ranks: Sequence[dict[str, str]] = ({},),
) -> subprocess.CompletedProcess[str]:
    """The same in a process that has torch already; `stop_at` sends it SIGTERM at that step.

    One process for each of `ranks`, which is what it finds in its environment.
    """
    words = ["epigone", "train", *map(str, (base, corpus)), "-o", str(out), *RECIPE, *options]
    with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryFile("w+") as said:
        children = []
        for environment in ranks:
            if not (child := os.fork()):
                code: object = 70
                try:
                    os.environ |= environment
                    _forget_state()
                    sys.argv, sys.stdout, sys.stderr = words, told, said
                    # What a process that this one starts says is heard as well.
                    os.dup2(told.fileno(), 1)
                    os.dup2(said.fileno(), 2)
                    # Threads that this process started before are not in the fork.
                    torch.set_num_threads(1)
                    if stop_at is not None:
                        common.Teller.__call__ = stopping(stop_at)  # type: ignore[method-assign]
                    main()
                except SystemExit as ended:
                    code = ended.code
                finally:
                    told.flush()
                    said.flush()
                    os._exit(int(code or 0) if isinstance(code, int | None) else 70)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        told.seek(0)
        said.seek(0)
        return subprocess.CompletedProcess(
            words, next(filter(None, codes), 0), told.read(), said.read()
        )


# What torchrun starts: it tells what it was given, and stays until the training has ended.
RELAY = """
import json, os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
new = folder / os.environ["RANK"]
new.write_text(json.dumps(dict(os.environ)))
new.rename(new.with_suffix(".json"))
while not (folder / "done").exists():
    time.sleep(0.02)
"""


def trained_by_torchrun(
    base: Path, corpus: Path, out: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    """The same below a torchrun, without another import of all that is imported here."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "relay.py").write_text(RELAY)
        agent = subprocess.Popen([sys.executable, *TORCHRUN, folder / "relay.py", folder])
        try:
            while len(told := sorted(folder.glob("*.json"))) < 2:
                assert agent.poll() is None, "torchrun ended"
                time.sleep(0.02)
            ranks = [json.loads(file.read_text()) for file in told]
            assert [r["RANK"] for r in ranks] == ["0", "1"]
            done = trained_by_forks(base, corpus, out, *options, ranks=ranks)
        finally:
            (folder / "done").touch()
            ended = agent.wait(60)
    assert ended == 0
    return done


def ranks_of(processes: int) -> list[dict[str, str]]:
    """What torchrun tells the processes that it starts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    count = str(processes)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    return [shared | {"RANK": str(n), "LOCAL_RANK": str(n)} for n in range(processes)]


def stopping(step: int) -> Callable[..., None]:
    def tell(self: object, done: float, total: float, note: str = "") -> None:
        if note.startswith("loss") and done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return tell


@pytest.fixture(scope="module")
def alone(
    tiny_base: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("alone") / "s"
    done = trained_by_forks(tiny_base, corpus, out)
    assert done.returncode == 0, done.stderr
    # Folders alone go to stdout, for another command to take.
    students = [str(out / "amount-300"), str(out / "amount-1000")]
    assert done.stdout.splitlines() == students
    return out, done.stderr


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "record.json").read_text())
    return found


def test_what_training_did_is_told_after_it(alone: tuple[Path, str]) -> None:
    out, said = alone
    facts = record(out)["facts"]
    told = dict(line.split(maxsplit=1) for line in said.splitlines() if " " in line)
    assert told["Supervised"].startswith(f"{facts['supervised']:,} tokens")
    assert told["Steps"].startswith(f"{facts['steps']:,}, {facts['warmup_steps']} of them")
    assert f"{100 * facts['efficiency']:.1f}%" in told["Packing"]
    assert f"{facts['chunks_of_long_exchanges']:,} pieces of exchanges" in told["Cut"]


# A port of the machine's own choosing, and one of ours for the run under it.
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.parametrize(
    ("trained", "options"),
    [(trained_by_forks, ["--processes", "2"]), (trained_by_torchrun, ["--parallel", "tensor=2"])],
)
def test_two_processes_learn_what_one_does(
    trained: Callable[..., subprocess.CompletedProcess[str]],
    options: list[str],
    alone: tuple[Path, str],
    tiny_base: Path,
    corpus: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "s"
    done = trained(tiny_base, corpus, out, *options)
    assert done.returncode == 0, done.stderr
    layout = "replicate=1,shard=1,tensor=2" if "--parallel" in options else "replicate=1,shard=2"
    assert record(out)["facts"]["layout"].startswith(layout)
    one, two = (list(read_jsonl(folder / "metrics.jsonl")) for folder in (alone[0], out))
    assert len(one) == len(two) > 8
    for a, b in zip(one, two, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
        assert b["gradient_norm"] == pytest.approx(a["gradient_norm"], rel=1e-4)
    # Only the first process speaks.
    assert done.stderr.count("Supervised") == 1
    if trained is trained_by_torchrun:
        # There is nothing to do any more, and no process waits for another for ever.
        again = trained_by_forks(tiny_base, corpus, out, *options, ranks=ranks_of(2))
        assert again.returncode == 0, again.stderr
        assert again.stdout == done.stdout


def test_a_training_ended_by_sigterm_goes_on_where_it_was(
    alone: tuple[Path, str], tiny_base: Path, corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "s"
    ended = trained_by_forks(tiny_base, corpus, out, stop_at=7)
    assert ended.returncode == 143, ended.stderr
    assert ended.stderr.splitlines()[-1] == (
        "epigone: stopped by SIGTERM; run the same command again to continue"
    )
    assert "Traceback" not in ended.stderr
    assert not out.exists()
    assert not (tmp_path / "s.partial" / "failure.json").exists()
    again = trained_by_forks(tiny_base, corpus, out)
    assert again.returncode == 0, again.stderr
    assert record(out)["facts"]["resumed_at_step"] == 7
    assert "Continued   at step 7" in again.stderr
    assert record(out)["outputs"] == record(alone[0])["outputs"]


@pytest.mark.parametrize(
    ("options", "environment", "what"),
    [
        (["--track", "wandbb"], {}, "unknown tracker: wandbb (did you mean 'wandb'?)"),
        (["--processes", "0"], {}, "--processes"),
        (["--processes", "4", "--parallel", "shard=3"], {}, "does not multiply to 4 processes"),
        (["--processes", "2", "--parallel", "shards=2"], {}, "no such layout: shards=2"),
        (["--processes", "2", "--parallel", "tensor=\u00b2"], {}, "no such layout"),
        ([], {PARALLEL: "tensor=2", PROCESSES: "3"}, "does not multiply to 3 processes"),
        ([], {PROCESSES: "many"}, "--processes"),
        (["--processes", "2"], {"WORLD_SIZE": "4", "RANK": "0"}, "a launcher has started 4"),
        ([], {"WORLD_SIZE": "x"}, "$WORLD_SIZE is no whole number: x"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "run"])
def test_mistakes_are_refused_before_any_work(
    verb: str,
    options: list[str],
    environment: dict[str, str],
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if verb == "run" and environment.get("RANK"):
        what = "a study is run by one process"
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    words = ["train", "b", "c", "-o", "out", "--amount", "8k"] if verb == "train" else ["run", "s"]
    result = CliRunner().invoke(app, [*words, *options])
    if isinstance(result.exception, UserError):
        assert what in str(result.exception)
        assert "\n" not in str(result.exception)
    else:
        # The parser's own, which the command line tells in one line.
        assert result.exit_code == 2
        assert what in result.output
    assert not list(tmp_path.iterdir())


def test_options_are_the_environments_names(monkeypatch: pytest.MonkeyPatch) -> None:
    from epigone.cli.launch import choose

    choose(4, "tensor=2", None, True)
    assert {n: os.environ.get(n) for n in (PROCESSES, PARALLEL, TRACK, COMPILE)} == {
        PROCESSES: "4", PARALLEL: "tensor=2", TRACK: None, COMPILE: "1",
    }  # fmt: skip


def test_the_checks_do_not_import_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from epigone.cli.launch import choose; choose(4, 'shard=2', '', False);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
