"""Break a study again and again; the same command has to bring it to the same bytes.

    python bench/faults.py [--faults 500] [--kinds runner,disk,…] [--seed 0] [--work build/faults]
    python bench/faults.py --study studies/pocket.yaml --runs runs --kinds runner,worker,step

A tiny study runs once without a fault. Then copies of it, of whose steps a few are to do, are
broken at random moments, and the same command is given again until it ends well, after what a
person was told to do was done. What it leaves must be the undisturbed run's: records and files by
sha256, no unfinished folder, no process; stderr without a traceback; the teacher not asked twice
but for what was under way when the process that asked was killed, each of which the ledger tells.

Some kinds need root, for mounts and cgroups; where they cannot be, a line says so. Ended, it goes
on where it was. Seconds lost are those that a step's process had worked and that were worked again
(by how far the step had told to be, where it keeps what it has), requests lost those that were
answered twice. Exit code 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from faults_kinds import KINDS, Kind, asks, line_with, mount, ray_cluster
from faults_study import (
    Command,
    Done,
    Fault,
    Scene,
    Stuck,
    Teacher,
    Whole,
    free_port,
    make,
    moment,
    paid,
)

import epigone

_LOOK_SECONDS = 0.1
# Commands after the last fault, and commands in which a moment for a fault did not come.
_MOST_AGAIN, _MOST_TRIES = 6, 12
# What tells a person to delete a folder, and which.
_DELETE = (
    re.compile(r"delete the folder (/\S+) to make it again"),
    re.compile(r"(/\S+) has no record; delete the folder"),
    re.compile(r"(/\S+) holds another step; delete the folder"),
    re.compile(r"(/\S+)/record\.json is damaged .*; delete its folder"),
)


class Play:
    """One scene: faults of one kind until there are enough, and the same command after each."""

    def __init__(
        self, whole: Whole, teacher: Teacher, folder: Path, kind: type[Kind], rng: random.Random
    ) -> None:
        self._whole, self._teacher, self._rng = whole, teacher, rng
        self._scene = Scene(whole, folder)
        self._tmpfs = kind.tmpfs
        folder.mkdir(parents=True)
        if self._tmpfs:
            mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder))
        self._kind = kind(self._scene, teacher, rng)
        self._commands = 0
        self._more: list[str] = []
        self._pace = 1.0
        self.faults: list[Fault] = []

    def play(self, number: int) -> None:
        """Until there were so many faults; raises Stuck."""
        self._scene.copy()
        tries = 0
        while len(self.faults) < number and tries < _MOST_TRIES:
            tries += 1
            cut = [n for n in self._kind.targets() if (self._scene.steps / n).exists()]
            self._scene.cut(cut)
            if asks(cut, self._whole):
                self._scene.forget_answers()
            self._teacher.answered.clear()
            begun = len(self.faults)
            self._until_done(cut, number)
            self._check(self.faults[begun:])
            # The undisturbed run may have been on a busier machine.
            struck = len(self.faults) > begun
            tries = 0 if struck else tries
            self._pace = min(1.0, 1.5 * self._pace) if struck else self._pace / 2

    def close(self) -> None:
        self._teacher.come()
        self._kind.close()
        if self._tmpfs:
            subprocess.run(["umount", "-R", str(self._scene.folder)], check=True)
        shutil.rmtree(self._scene.folder)

    def _until_done(self, cut: list[str], number: int) -> None:
        again = 0
        while True:
            struck = len(self.faults)
            dones = self._attempt(cut, number)
            again = 0 if len(self.faults) > struck else again + 1
            told = "\n".join(done.told for done in dones)
            if "Traceback (most recent call last)" in told:
                raise Stuck("a traceback", told)
            line = self._kind.undo(told) or self._obey(told)
            self._more = []
            if "--retry-failed tries it again" in told:
                self._more = ["--retry-failed"]
                line = line_with(told, "--retry-failed tries it again")
            for fault in self.faults[struck:] or self.faults[-1:]:
                fault.line = fault.line or line
            if any(done.code == 0 for done in dones) and not line:
                return
            if again > _MOST_AGAIN:
                raise Stuck(f"still exit code {dones[0].code} after {again} times", told)

    def _attempt(self, cut: list[str], number: int) -> list[Done]:
        """The command once, with faults while there may be more."""
        kind, scene = self._kind, self._scene
        room = max(0, min(kind.at_once, number - len(self.faults)))
        if room and (what := kind.before(cut)):
            self._struck(what)
            room = 0
        commands = [self._command() for _ in range(kind.runners if room else 1)]
        seconds = sum(self._whole.seconds(n) for n in cut)
        at = (
            None
            if kind.in_step
            else time.monotonic() + 1 + moment(self._rng, seconds * self._pace + 3)
        )
        while sum(command.runs() for command in commands):
            if what := kind.noticed():
                self._struck(what)
                room = 0
            working = scene.look()
            now = time.monotonic()
            if kind.in_step and not working:
                at = None
            elif at is None:
                longest = max(self._whole.seconds(n) for n in cut)
                at = now + moment(self._rng, longest * self._pace)
            if room and at is not None and now >= at:
                if what := kind.strike(commands, working):
                    self._struck(what)
                    room -= 1
                at = None if kind.in_step else now + 0.5
            kind.tick()
            time.sleep(_LOOK_SECONDS)
        if what := kind.noticed():
            self._struck(what)
        while scene.look():
            time.sleep(_LOOK_SECONDS)  # what the killed leave behind ends by itself
        return [command.wait() for command in commands]

    def _command(self) -> Command:
        self._commands += 1
        err = self._scene.folder.with_name(f"{self._scene.folder.name}-{self._commands}.txt")
        kind = self._kind
        words = *kind.words(), *self._more
        return Command(self._whole, self._scene.runs, err, *words, cgroup=kind.cgroup())

    def _struck(self, what: str) -> None:
        self._scene.last = Fault(self._kind.name, what)
        self.faults.append(self._scene.last)

    def _obey(self, told: str) -> str:
        """Do what a line on stderr tells a person to do."""
        for line in told.splitlines():
            for pattern in _DELETE:
                if found := pattern.search(line):
                    shutil.rmtree(found[1])
                    return line.strip()
        return ""

    def _check(self, faults: list[Fault]) -> None:
        self._scene.settle()
        if differs := self._scene.differs():
            raise Stuck(f"not the undisturbed run's: {differs}", "")
        twice = sum(n - 1 for n in self._teacher.answered.values())
        came, opened = paid(self._scene.runs)
        unknown = [q for q in self._teacher.answered if came[q] != 1]
        if twice > opened or unknown or (twice and not self._kind.twice):
            raise Stuck(f"{twice} answered twice, {opened} told of, {len(unknown)} not kept", "")
        for fault in faults:
            fault.result = "told" if fault.line else "same"
        if faults:
            faults[-1].twice = twice


def scenes_of(kinds: list[str], faults: int, seed: int) -> list[tuple[str, int, int]]:
    """Kind, number and faults of each scene; more faults are more scenes after the same ones."""
    all_shares = sum(KINDS[k].share for k in kinds)
    found = []
    for name in kinds:
        most = KINDS[name].most
        scenes = max(1, math.ceil(faults * KINDS[name].share / all_shares / most))
        found += [(name, n, most) for n in range(scenes)]
    random.Random(seed).shuffle(found)
    # Ray's together: its cluster is there for them only.
    return sorted(found, key=lambda scene: scene[0].startswith("ray"))


def table(rows: list[Fault]) -> str:
    by_kind: dict[str, list[Fault]] = defaultdict(list)
    for row in rows:
        by_kind[row.kind].append(row)
    lines = [
        "| fault | faults | the same command again | after one line was obeyed | lost | seconds of "
        "work lost, median | worst | requests lost |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for kind in [*KINDS.values(), None]:
        found = rows if kind is None else by_kind.get(kind.name, [])
        if not found:
            continue
        count = {r: sum(f.result == r for f in found) for r in ("same", "told", "lost")}
        lost = [f.lost for f in found]
        seconds = f"{statistics.median(lost):.1f}", f"{max(lost):.1f}"
        name = "all" if kind is None else kind.name
        cells = name, len(found), *count.values(), *seconds, sum(f.twice for f in found)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def perform(options: argparse.Namespace, kinds: list[str]) -> list[Fault]:
    work: Path = options.work.resolve()
    kept = work / f"faults-{options.seed}.jsonl"
    if options.study is None:
        whole, teacher = make(work)
    else:
        name = epigone.Study.load(options.study).declaration.name
        whole = Whole(options.study.resolve(), options.runs.resolve(), name)
        teacher = Teacher(free_port())
    known = [json.loads(x) for x in kept.read_text().splitlines()] if kept.exists() else []
    done = {(row["scene"], row["number"]) for row in known}
    rows = [Fault(**f) for row in known if row["scene"] in kinds for f in row["faults"]]
    with ExitStack() as stack:
        cluster = False
        for name, number, most in scenes_of(kinds, options.faults, options.seed):
            if (name, number) in done:
                continue
            if name.startswith("ray") and not cluster:
                stack.enter_context(ray_cluster())
                cluster = True
            folder = work / "scenes" / f"{name}-{number}"
            for left in (work / "scenes").glob(f"{name}-{number}*"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            begun = time.monotonic()
            rng = random.Random(f"{options.seed}/{name}/{number}")
            play = Play(whole, teacher, folder, KINDS[name], rng)
            try:
                play.play(most)
            except Stuck as stuck:
                play.faults[-1:] = play.faults[-1:] or [Fault(KINDS[name].name, "none yet")]
                play.faults[-1].result, play.faults[-1].line = "lost", str(stuck.args[0])
                print(f"LOST {name}-{number} ({play.faults[-1].what}): {stuck.args[0]}")
                print("\n".join(f"    {x}" for x in stuck.args[1].splitlines()[-12:]), flush=True)
                if not options.go_on:
                    shutil.copytree(folder, folder.with_name(folder.name + "-lost"))
                    raise SystemExit(1) from None
            finally:
                play.close()
            rows += play.faults
            row = {"scene": name, "number": number, "faults": [asdict(f) for f in play.faults]}
            with open(kept, "a") as f:
                f.write(json.dumps(row) + "\n")
            took = time.monotonic() - begun
            told = f"{len(rows)} faults; {name}-{number}: {len(play.faults)} in {took:.0f} s"
            told += "".join(
                f"\n    {f.what}: {f.result}, {f.lost:.1f} s, {f.twice} requests"
                + (f"; {f.line}" if f.line else "")
                for f in play.faults
            )
            print(told, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("build/faults"))
    parser.add_argument("--study", type=Path, help="another study than the tiny one")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="its finished run")
    parser.add_argument("--go-on", action="store_true", help="after something was lost")
    options = parser.parse_args()
    if os.geteuid() == 0 and "EPIGONE_FAULTS_MOUNTS" not in os.environ:
        # Mounts of one's own go with the process, however it ends.
        own = ["unshare", "-m", "--propagation", "private"]
        if subprocess.run([*own, "true"], capture_output=True, check=False).returncode == 0:
            os.environ["EPIGONE_FAULTS_MOUNTS"] = "own"
            os.execvp(own[0], [*own, sys.executable, *sys.argv])
    kinds = []
    for name in options.kinds.split(","):
        why = KINDS[name].why_not()
        if why or (options.study and name == "teacher"):
            why = why or "only the tiny study asks a teacher of this bench's own"
            print(f"no {name}: {why}")
        else:
            kinds.append(name)
    rows = perform(options, kinds)
    print(table(rows), flush=True)
    # At a usual exit Ray ends all of the process's group, whoever started it.
    os._exit(any(row.result == "lost" for row in rows))


if __name__ == "__main__":
    main()
