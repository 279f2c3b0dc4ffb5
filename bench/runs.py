"""Large studies: how long planning, telling the status and running steps of no work take.

    python bench/runs.py plan status
    python bench/runs.py steps --runs 3                  # --ray adds the same on Ray
    python -m venv /tmp/snake && /tmp/snake/bin/pip install snakemake
    python bench/runs.py beside --snakemake /tmp/snake/bin/snakemake

`plan` and `status` are whole processes on synthetic studies, from the start of Python on. `steps`
and `beside` run a study whose every stage is replaced, in the bench's own processes alone, by a
function that does nothing; all else is as ever: processes, records, hashes, renames, fsync.
Snakemake has a workflow of the same graph: each job writes one empty file, by the shell, or by a
Python that does nothing else. Every arm has to have done all steps. Runs are in turn, medians of
`--runs`; CPU seconds are those of all processes, peak memory that of the largest.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import epigone
from epigone.runs.store import RECORD, environment
from epigone.schema import Record
from epigone.study.step import Step

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BASES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
LLAMAS = tuple(f"huggyllama/llama-{size}" for size in ("7b", "13b", "30b", "65b"))
KNOWN = (*(f"openai-community/{name}" for name in BASES), *LLAMAS,
         "EleutherAI/pythia-1b", "EleutherAI/pythia-12b")  # fmt: skip

# In a process that finds it on its path, no stage does anything.
NOTHING = """
from dataclasses import replace
from epigone.study import step

def run(spec, inputs, out, progress):
    (out / "nothing.txt").write_bytes(b"")
    return {}

def run_corpus(spec, inputs, out, progress):
    from epigone.schema import Conversation, Message, Provenance
    from epigone.study import train_file
    turns = (Message("user", "q"), Message("assistant", "a"))
    row = Conversation("c", turns, Provenance("s", "t"), 1_000)
    train_file.write(out / train_file.NAME, [(row, [1_000], "en")] * 100)
    return {"train_tokens": 100_000, "by_terms": {}}

for name, stage in step.STAGES.items():
    own = "run_corpus" if name == "corpus" else "run"
    step.STAGES[name] = replace(stage, run=f"sitecustomize:{own}", preload=())
"""
RUN = """
import sys, epigone
sys.exit(bool(epigone.Study.load("grid.yaml").run(on=sys.argv[1]).failed))
"""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
SNAKEFILE = """
import json
needs = json.load(open("needs.json"))
rule all:
    input: [f"{step}.done" for step in needs]
rule step:
    input: lambda wildcards: [f"{step}.done" for step in needs[wildcards.step]]
    output: "{step}.done"
    shell: "COMMAND {output}"
"""


@dataclass(frozen=True, slots=True)
class Grid:
    """A synthetic study: how many of each axis, and what is measured."""

    bases: int
    corpora: int
    amounts: int
    seeds: int
    schedule: str = "constant"
    measured: bool = True

    def write(self, folder: Path, *, local: bool = False) -> Path:
        """The study's file, and the data that it names; `local` has bases that are files."""
        folder.mkdir(parents=True)
        corpora = [f"corpus-{i}" for i in range(self.corpora)]
        for name in corpora:
            (folder / f"{name}.jsonl").write_text(f'{{"{name}": "{"x" * 100_000}"}}\n')
        bases = [f"hf:{name}@{COMMIT}" for name in KNOWN[: self.bases]]
        if local:
            bases = [str(_model(folder / f"base-{i}")) for i in range(self.bases)]
        study = {
            "name": "grid",
            "teacher": {"name": "teacher", "recorded": True},
            "bases": bases,
            "tokenizer": bases[0],
            "corpora": {name: {"kind": "broad", "from": [f"./{name}.jsonl"]} for name in corpora},
            "amounts": {name: [1_000 * (i + 1) for i in range(self.amounts)] for name in corpora},
            "recipe": {"preset": "adamw", "schedule": self.schedule},
            "seeds": [*range(self.seeds)],
        }
        if self.measured:
            study["evaluate"] = {"benchmarks": ["facts"], "style": {"n": 32}}
        # JSON is YAML.
        (folder / "grid.yaml").write_text(json.dumps(study))
        return folder / "grid.yaml"

    def __str__(self) -> str:
        axes = f"{self.bases} x {self.corpora} x {self.amounts} x {self.seeds}, {self.schedule}"
        return axes + ("" if self.measured else ", nothing measured")


@dataclass(frozen=True, slots=True)
class Spent:
    """What a process and those that it started took."""

    wall: float
    cpu: float
    peak: int


# What a process held before it became another program counts as its peak, so a small one starts it.
LAUNCH = """
import json, os, sys, time
begun = time.perf_counter()
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(child, 0)
wall = time.perf_counter() - begun
found = [wall, used.ru_utime + used.ru_stime, used.ru_maxrss, os.waitstatus_to_exitcode(status)]
open(sys.argv[1], "w").write(json.dumps(found))
"""


def spent(command: Sequence[str], folder: Path, log: Path, more: Mapping[str, str]) -> Spent:
    """Run a command in a folder; its output goes to `log`. The bench ends where it fails."""
    told = folder / "spent.json"
    launch = [sys.executable, "-I", "-S", "-c", LAUNCH, str(told), *command]
    with open(log, "wb") as out:
        subprocess.run(
            launch, cwd=folder, stdout=out, stderr=subprocess.STDOUT,
            env={**os.environ, **more}, check=True,
        )  # fmt: skip
    wall, cpu, peak, code = json.loads(told.read_text())
    if code:
        raise SystemExit(f"{command} ended with {code}:\n{log.read_text()[-2000:]}")
    return Spent(wall, cpu, peak)


def told(name: str, runs: Sequence[Spent], *more: object) -> None:
    """One row of a table: medians, and the range of the wall clock."""
    walls = [r.wall for r in runs]
    cells = (
        name,
        f"{statistics.median(walls):.2f} ({min(walls):.2f}-{max(walls):.2f})",
        f"{statistics.median(r.cpu for r in runs):.2f}",
        f"{max(r.peak for r in runs) / 1024:.0f}",
        *more,
    )
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def head(*columns: str) -> None:
    print("\n| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|", flush=True)


def planning(home: Path, options: argparse.Namespace) -> None:
    head("epigone plan", "seconds (range)", "CPU s", "peak MB", "cells", "steps")
    grids = (
        Grid(10, 5, 20, 10, measured=False),
        Grid(10, 5, 20, 10),
        Grid(10, 5, 20, 10, "cosine"),
    )
    for grid in (*grids, Grid(10, 5, 2, 10)):
        folder = home / f"plan-{grid}"
        file = grid.write(folder)
        expansion = epigone.Study.load(file, runs=folder / "runs").expansion()
        size = (f"{len(expansion.cells()):,}", f"{len(expansion.steps):,}")
        forms = (("", []), (", --json", ["--json"]), (", --why", ["--why"]))
        for form, more in forms if grid == grids[1] else forms[:1]:
            found = [epigone_(["plan", str(file), *more], folder) for _ in range(options.runs)]
            told(f"{grid}{form}", found, *size)


def telling(home: Path, options: argparse.Namespace) -> None:
    head("of 10,000 steps", "seconds (range)", "CPU s", "peak MB", "steps", "done")
    grid = Grid(10, 1, 33, 10)
    for share in (0.0, 0.5, 1.0):
        folder = home / f"status-{share}"
        file = grid.write(folder)
        study = epigone.Study.load(file, runs=folder / "runs")
        steps = study.expansion().steps
        done = steps[: round(share * len(steps))]
        for step in done:
            finish(study.store.folder(step), step)
        for verb in ("status", "plan"):
            found = [epigone_([verb, str(file)], folder) for _ in range(options.runs)]
            told(f"{verb}, {share:.0%} done", found, f"{len(steps):,}", f"{len(done):,}")
    # Another number of prompts: every answer and its style would be made again, and it is said why.
    file.write_text(file.read_text().replace('"n": 32', '"n": 31'))
    found = [epigone_(["plan", str(file), "--why"], folder) for _ in range(options.runs)]
    told("plan --why, after a change of the style prompts", found, f"{len(steps):,}", "")


def finish(folder: Path, step: Step) -> None:
    """A step's folder as if it was done, with a record of the usual size."""
    files = dict.fromkeys(("samples.jsonl", "scores.json"), "0" * 64)
    inputs = dict(step.identity["inputs"])
    when = "2026-01-01T00:00:00+00:00"
    facts = {"train_tokens": 100_000, "supervised_share": 0.8, "packed": True}
    record = Record(
        step.stage, step.slug, step.hash, step.identity, inputs, files, facts, when, when,
        1.0, 1 << 30, environment(),
    )  # fmt: skip
    folder.mkdir(parents=True)
    (folder / RECORD).write_text(json.dumps(record.to_json(), indent=2))


def running(home: Path, options: argparse.Namespace) -> None:
    head("steps that do nothing", "seconds (range)", "CPU s", "peak MB", "steps", "ms a step")
    arms = ("local", "ray") if options.ray else ("local",)
    found: dict[str, dict[int, list[Spent]]] = {arm: {} for arm in arms}
    few, many = Grid(1, 1, 1, 1), Grid(2, 2, 4, 4)
    for turn in range(options.runs):
        for grid in (few, many):
            for arm in arms:
                took, steps = no_ops(home / f"steps-{arm}-{turn}-{grid.seeds}", grid, arm)
                found[arm].setdefault(steps, []).append(took)
    for arm, sizes in found.items():
        (low, small), (high, large) = sorted(sizes.items())
        told(f"{arm}, few", small, low, "")
        # What the start of the processes takes is in both.
        each = (_wall(large) - _wall(small)) / (high - low)
        told(arm, large, high, f"{1000 * each:.0f}")


def beside(home: Path, options: argparse.Namespace) -> None:
    if options.snakemake is None:
        raise SystemExit("--snakemake names its executable")
    cores = str(os.cpu_count())
    study = epigone.Study.load(Grid(2, 2, 4, 4).write(home / "shape", local=True))
    steps = study.expansion().steps
    arms: dict[str, Callable[[Path], Spent]] = {
        "epigone": lambda folder: no_ops(folder, Grid(2, 2, 4, 4), "local")[0],
        "snakemake, shell": lambda folder: snake(folder, steps, "touch", options.snakemake, cores),
        "snakemake, python": lambda folder: snake(
            folder, steps, f"{sys.executable} -c pass && touch", options.snakemake, cores
        ),
    }
    found: dict[str, list[Spent]] = {arm: [] for arm in arms}
    for turn in range(options.runs):
        for arm, run in arms.items():
            found[arm].append(run(home / f"{arm}-{turn}"))
    ours = found["epigone"]
    head(f"{len(steps)} steps, {cores} cores", "seconds (range)", "CPU s", "peak MB", "ours: ratio")
    for arm, runs in found.items():
        ratios = [theirs.wall / own.wall for theirs, own in zip(runs, ours, strict=True)]
        span = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        told(arm, runs, "" if arm == "epigone" else span)


def no_ops(folder: Path, grid: Grid, on: str) -> tuple[Spent, int]:
    """All steps of a study that do nothing, from the start of Python on, and how many they were.

    By the call that `epigone run` makes: a report cannot be built of nothing.
    """
    file = grid.write(folder, local=True)
    (folder / "sitecustomize.py").write_text(NOTHING)
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    command = [sys.executable, "-c", RUN, on]
    took = spent(command, folder, folder / "log.txt", {**QUIET, "PYTHONPATH": path})
    planned = epigone.Study.load(file, runs=folder / "runs").plan()
    if any(p.state != "done" for p in planned):
        raise SystemExit(f"not all of {len(planned)} steps were done in {folder}")
    return took, len(planned)


def snake(folder: Path, steps: Sequence[Step], command: str, snakemake: Path, cores: str) -> Spent:
    """Snakemake on a workflow of the same graph."""
    folder.mkdir()
    names = {step.name: f"step-{at}" for at, step in enumerate(steps)}
    needs = {names[s.name]: sorted(names[i.name] for i in s.inputs.values()) for s in steps}
    (folder / "needs.json").write_text(json.dumps(needs))
    (folder / "Snakefile").write_text(SNAKEFILE.replace("COMMAND", command))
    asked = [str(snakemake.absolute()), "--cores", cores, "--quiet", "all"]
    took = spent(asked, folder, folder / "log.txt", {})
    done = len([*folder.glob("step-*.done")])
    if done != len(steps):
        raise SystemExit(f"snakemake did {done} of {len(steps)} steps")
    return took


def epigone_(arguments: Sequence[str], folder: Path) -> Spent:
    return spent([sys.executable, "-m", "epigone", *arguments], folder, folder / "log.txt", {})


def _wall(runs: Sequence[Spent]) -> float:
    return statistics.median(r.wall for r in runs)


def _model(folder: Path) -> Path:
    """A model's folder as far as anything looks that does not load it."""
    folder.mkdir()
    config = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 8}
    (folder / "config.json").write_text(json.dumps(config | {"name": folder.name}))
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (folder / "model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + bytes(8)
    )
    (folder / "tokenizer.json").write_text("{}")
    return folder


BENCHES = {"plan": planning, "status": telling, "steps": running, "beside": beside}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("only", nargs="*", choices=[[], *BENCHES], help="all but 'beside' without")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--ray", action="store_true", help="no-op steps on Ray as well")
    parser.add_argument("--snakemake", type=Path)
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="bench-runs-"))
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    try:
        for name in options.only or ("plan", "status", "steps"):
            BENCHES[name](home, options)
    finally:
        shutil.rmtree(home)
    print(f"\nload after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
