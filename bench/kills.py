"""Kill a study again and again with SIGKILL, then compare its bytes with an uninterrupted run.

    epigone run studies/pocket.yaml --runs whole
    python bench/kills.py studies/pocket.yaml --reference whole --runs killed --kills 10

Each kill comes after a random time and hits the runner, a worker, or a step's own process.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import epigone


def family(pid: int) -> Iterator[int]:
    """A process and everything that descends from it, from /proc."""
    yield pid
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        if parent == pid:
            yield from family(int(entry.name))


def hashes(study: epigone.Study) -> dict[str, dict[str, str]]:
    """Every output's sha256 by step."""
    found = {}
    for planned in study.plan():
        if planned.record is not None:
            found[planned.step.name] = dict(planned.record.outputs)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("study", type=Path)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--between", type=float, nargs=2, default=(20.0, 140.0))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    command = [sys.executable, "-m", "epigone", "run", str(options.study)]
    kills = attempts = 0
    begun = time.monotonic()
    while True:
        attempts += 1
        process = subprocess.Popen([*command, "--runs", str(options.runs)], stderr=sys.stderr)
        until = time.monotonic() + rng.uniform(*options.between)
        # A killed step or worker does not end the run, so that one attempt can take several kills.
        while process.poll() is None:
            time.sleep(0.1)
            if kills == options.kills or time.monotonic() < until:
                continue
            victim = rng.choice(list(family(process.pid)))
            what = "runner" if victim == process.pid else "worker or step"
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                kills += 1
                minutes = (time.monotonic() - begun) / 60
                print(f"kill {kills}: {what} {victim} at {minutes:.1f} min", flush=True)
            until = time.monotonic() + rng.uniform(*options.between)
        code = process.wait()
        if code == 0:
            break
    whole = epigone.Study.load(options.study, runs=options.reference)
    killed = epigone.Study.load(options.study, runs=options.runs)
    a, b = hashes(whole), hashes(killed)
    assert a and a.keys() == b.keys(), "the studies have different steps"
    differ = [name for name in a if a[name] != b[name]]
    left = list(killed.root.rglob("*.partial"))
    files = sum(map(len, a.values()))
    minutes = (time.monotonic() - begun) / 60
    print(f"{kills} kills, {attempts} attempts, {minutes:.1f} min; {len(a)} steps, {files} files")
    for name in sorted(a):
        for file, sha in a[name].items():
            if name.startswith("train/") and file.endswith(".safetensors"):
                same = "equal" if b[name].get(file) == sha else "DIFFERS"
                print(f"{name}/{file} {sha[:16]} {same}")
    print(f"steps that differ: {differ or 'none'}; unfinished folders left: {left or 'none'}")
    if kills < options.kills:
        print(
            f"too few kills: {kills} of {options.kills}; the study is shorter than the time between"
        )
    sys.exit(bool(differ or left or kills < options.kills))


if __name__ == "__main__":
    main()
