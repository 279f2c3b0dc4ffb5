from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from epigone import cli as verbs
from epigone.api import Study
from epigone.files import write_json
from epigone.runs.lease import Runner
from epigone.runs.store import FAILURE, LIVE, LOG

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).parents[2]


def one_line(stderr: str) -> str:
    """The only line of stderr."""
    lines = stderr.strip().splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("epigone: ")
    return lines[0]


def test_a_runs_folder_that_cannot_be_made(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = cli("run", ROOT / "studies/pocket.yaml", "--runs", "file/runs", cwd=tmp_path)
    assert done.returncode == 2
    assert f"not a directory: {tmp_path}/file/runs" in one_line(done.stderr)


def test_an_output_that_cannot_be_written(cli: Cli, tmp_path: Path, talk: Path) -> None:
    (tmp_path / "file").touch()
    done = cli("corpus", "build", talk, "-o", "file/corpus", cwd=tmp_path)
    assert done.returncode == 2
    assert f"not a directory: {tmp_path}/file/corpus" in one_line(done.stderr)


def test_a_rate_out_of_range(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "train.parquet").touch()
    (tmp_path / "config.json").write_text("{}")
    done = cli(
        "train", "smollm2-135m-instruct", ".", "-o", "s", "--amount", "8k", "--lr", "0",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert one_line(done.stderr) == "epigone: lr: input should be greater than 0: 0.0"


INTERRUPTED = """
import sys
from importlib.abc import MetaPathFinder

class Interrupts(MetaPathFinder):
    def find_spec(self, name, *_):
        if name == "epigone.study":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupts())
from epigone.__main__ import main
main()
"""


def test_an_interrupt_while_it_loads() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False
    )
    assert done.returncode == 130
    assert one_line(done.stderr).startswith("epigone: interrupted; run the same command again")


ROOM = " (make room, then run the same command again)"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_on_a_full_disk(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "epigone", "--version"],
            stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert one_line(done.stderr) == f"epigone: no space left on device{ROOM}"


@pytest.mark.parametrize(
    ("number", "path", "code"),
    [
        (errno.EACCES, "/named/out/steps", 2),
        (errno.EACCES, "/named", 2),
        (errno.ENOENT, "/named/.out.7.tmp", 2),
        (errno.ENOENT, "/elsewhere/lib.so", 1),
        (errno.ENOSPC, "/named/out/steps", 1),
        (errno.EIO, None, 1),
    ],
)
def test_only_a_named_path_is_the_users_mistake(
    number: int,
    path: str | None,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(**_: object) -> None:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(verbs, "app", fail)
    monkeypatch.setattr(verbs.signal, "signal", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["epigone", "style", "--out=/named/out"])
    with pytest.raises(SystemExit) as ended:
        verbs.main()
    assert ended.value.code == code
    line = one_line(capsys.readouterr().err)
    room = ROOM if number == errno.ENOSPC else ""
    assert path is None or line.endswith(f": {path}{room}")
    assert os.strerror(number).lower() in line.lower()


@pytest.mark.parametrize("name", ["2024", "true", "1e3", "null", "2024-01-01"])
def test_a_new_study_has_a_text_for_a_name(cli: Cli, tmp_path: Path, name: str) -> None:
    assert cli("new", name, cwd=tmp_path).returncode == 0
    assert yaml.safe_load((tmp_path / name / "study.yaml").read_text())["name"] == name
    assert Study.load(tmp_path / name).declaration.name == name


def test_new_may_write_into_a_folder_that_is_there(cli: Cli, tmp_path: Path) -> None:
    assert "must not exist" not in cli("new", "--help", cwd=tmp_path).stdout
    (tmp_path / "mine").mkdir()
    assert cli("new", "mine", cwd=tmp_path).returncode == 0


def test_status_shows_every_step_that_runs(cli: Cli, tmp_path: Path) -> None:
    assert cli("new", "mine", cwd=tmp_path).returncode == 0
    study = Study.load(tmp_path / "mine", runs=tmp_path / "runs")
    first, second, stale = study.expansion().steps[:3]

    def running() -> set[str]:
        steps = json.loads(cli("status", "mine", "--json", cwd=tmp_path).stdout)["steps"]
        return {s["step"] for s in steps if s["state"] == "running"}

    with Runner(study.root, "") as runner:
        for step in (first, second, stale):
            file = study.store.partial(step) / LIVE
            file.parent.mkdir(parents=True)
            file.write_text('{"done": 1, "total": 4, "note": ""}')
            assert runner.take(step.name)
        runner.free(stale.name)  # as one that a run left which was killed
        assert running() == {first.name, second.name}
        shown = cli("status", "mine", cwd=tmp_path).stdout
        assert sum(line.split()[0] == "running" for line in shown.splitlines() if line) == 2
        assert f"pid {os.getpid()} on " in shown
    assert running() == set()


def test_an_address_without_ray_is_refused_before_any_work(cli: Cli, tmp_path: Path) -> None:
    assert cli("new", "mine", cwd=tmp_path).returncode == 0
    done = cli("run", "mine", "--address", "127.0.0.1:1", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2, "epigone: an address is Ray's: 127.0.0.1:1 (add --on ray)\n",
    )  # fmt: skip
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("cache list", "unknown verb: list (did you mean 'ls'?)"),
        ("teacher srve", "unknown verb: srve (did you mean 'serve'?)"),
        ("run x --on rai", "Invalid value for '--on': 'rai' is not one of 'local', 'ray'"),
        ("run x --timeout 0", "Invalid value for '--timeout': '0': input should be greater"),
        ("run x --timeout=-3", "Invalid value for '--timeout': '-3': input should be greater"),
    ],
)
def test_a_word_that_cannot_be_is_told_with_what_can(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    words: str, line: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["epigone", *words.split()])
    with pytest.raises(SystemExit) as ended:
        verbs.main()
    assert ended.value.code == 2
    assert one_line(capsys.readouterr().err).startswith(f"epigone: {line}")


def test_a_stage_alone_tells_what_its_steps_wait_for(cli: Cli, tmp_path: Path) -> None:
    assert cli("new", "mine", cwd=tmp_path).returncode == 0
    done = cli("run", "mine", "--only", "train", cwd=tmp_path)
    assert done.returncode == 2
    line = one_line(done.stderr)
    assert "of the steps of train wait for others that are not done: train/" in line
    assert line.endswith("(run without --only, or --only corpus before)")


def test_a_failed_step_is_shown_with_its_traceback(cli: Cli, tmp_path: Path) -> None:
    assert cli("new", "mine", cwd=tmp_path).returncode == 0
    study = Study.load(tmp_path / "mine", runs=tmp_path / "runs")
    step = study.expansion().steps[0]
    assert "the step is to do" in one_line(cli("show", "mine", step.name, cwd=tmp_path).stderr)
    failed = {"error": "KeyError: 'a'", "fault": True, "traceback": "Traceback:\n\x1b[31mx\n"}
    write_json(study.store.partial(step) / FAILURE, failed)
    assert json.loads(cli("show", "mine", step.name, "--json", cwd=tmp_path).stdout) == failed
    shown = cli("show", "mine", step.name, cwd=tmp_path)
    assert shown.stdout.splitlines() == [
        "Traceback:",
        " [31mx",
        f"{step.name} failed: KeyError: 'a'",
        f"log: {study.store.partial(step) / LOG}",
        "epigone run --retry-failed tries it again",
    ]
