from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

from epigone import NO_TELEMETRY
from epigone.cli import doctor_machine, doctor_network, doctor_study

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
TEXT = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()


def test_its_commands_exist_with_their_options(cli: Cli, tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    lines = [line.partition(" 2>")[0] for line in "".join(blocks).splitlines()]
    assert len(lines) == 9
    for line in lines:
        words = [word for word in shlex.split(line)[1:] if word != "--verbose"]
        verb = words[:2] if words[0] == "cache" else words[:1]
        told = cli(*verb, "--help", cwd=tmp_path)
        assert told.returncode == 0
        for option in (word for word in shlex.split(line) if word.startswith("-")):
            assert option in told.stdout


def test_the_lines_that_it_shows_are_the_doctors() -> None:
    torch = {"gpus": [], "cuda": None, "hip": None, "mps": False}
    (gpu,) = doctor_machine.gpus(torch, [["NVIDIA L4", "23034", "570.86.15"]], "")
    assert f"  note     GPU 0          {gpu.found}\n" in TEXT
    assert f"fix: {gpu.fix}\n" in TEXT
    assert f"not installed: {doctor_machine.GIVES['pdf']}\n" in TEXT
    assert doctor_study.SECTION in TEXT and doctor_network.SECONDS < 10


def test_every_library_is_named_whose_telemetry_is_off() -> None:
    named = {"HF": "Hugging", "RAY": "Ray", "VLLM": "vLLM", "MLFLOW": "MLflow", "DO": "Telemetry"}
    assert {name.partition("_")[0] for name in NO_TELEMETRY} == set(named)
    for name in named.values():
        assert name in TEXT
