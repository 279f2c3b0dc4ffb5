"""How often a study's findings are right: simulated studies whose truth is known.

    python bench/simulated_studies.py [STUDIES] [--seeds K]

Prints error rates, power and the coverage of the 95% intervals over worlds with planted effects.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from epigone.findings import Base, Findings, Subject, Summary, analyse
from epigone.findings.gaps import POWER, tells, wilson
from epigone.schema import Family, Interval, Score

AMOUNTS = (10_000, 40_000, 160_000, 640_000)
STYLE = ("lists", "summary", "tone")
OWN, OTHERS = "own", ("one", "two")
EVERY = (OWN, *OTHERS)
_Z = NormalDist().inv_cdf


@dataclass(frozen=True)
class World:
    """What is true: levels are shares of items, effects are changes of them at every amount."""

    title: str
    # Of each base untrained, on every task.
    levels: tuple[float, ...] = (0.30, 0.38, 0.46)
    # Share of the style gap closed at each amount.
    style: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    broad: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    local: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    base_style: tuple[float, ...] = (0.15, 0.10, 0.30)
    teacher_style: tuple[float, ...] = (0.85, 0.60, 0.95)
    teacher: float = 0.80
    seeds: int = 1
    between_seeds: float = 0.0
    items: int = 200
    prompts: int = 64


@dataclass
class Study:
    """A simulated study's subjects and scores, and each model's true level."""

    world: World
    subjects: list[Subject] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    truth: dict[tuple[str, str], float] = field(default_factory=dict)


NULL = World("nothing is true", levels=(0.35, 0.35, 0.35))
PROMISE = World(
    "the false promise",
    style=(0.40, 0.55, 0.60, 0.65),
    local=(0.05, 0.10, 0.14, 0.18),
)
HELPS = World(
    "imitation helps",
    levels=(0.35, 0.36, 0.37),
    style=(0.20, 0.30, 0.40, 0.50),
    broad=(0.03, 0.07, 0.11, 0.15),
    local=(0.05, 0.10, 0.15, 0.20),
)
HARMS = World(
    "imitation harms",
    style=(-0.05, -0.09, -0.12, -0.15),
    broad=(-0.02, -0.04, -0.06, -0.08),
    local=(0.0, 0.0, 0.0, 0.0),
)
WORLDS = (NULL, PROMISE, HELPS, HARMS)
# Effects from half to twice what one base can show.
SMALL = World(
    "one base, small effects",
    levels=(0.30,),
    broad=(0.01, 0.02, 0.03, 0.04),
    local=(0.04, 0.07, 0.10, 0.13),
)


def simulate(world: World, seed: int) -> Study:
    """One study; models of one base agree more on an item than those of different bases."""
    rng = np.random.default_rng([seed, len(world.title), world.seeds])
    study = Study(world)
    names = [f"b{k}" for k in range(len(world.levels))]
    shift = {}
    for base in names:
        study.subjects.append(Subject(base, base))
        for line, supports in (("broad", ()), ("local", (OWN,))):
            for s in range(world.seeds):
                shift[base, line, s] = rng.normal(0.0, world.between_seeds)
                for a in AMOUNTS:
                    model = f"{base}-{line}-{a}-{s}"
                    study.subjects.append(Subject(model, base, line, a, s, supports=supports))
    for task in (OWN, *OTHERS):
        levels = {s.model: _capability(world, names, s, task, shift) for s in study.subjects}
        levels["teacher"] = world.teacher
        _score(study, rng, task, "acc", "capability", levels, world.items)
    for j, metric in enumerate(STYLE):
        start, end = world.base_style[j], world.teacher_style[j]
        levels = {s.model: start + (end - start) * _closed(world, s) for s in study.subjects}
        levels["teacher"] = end
        _score(study, rng, "", metric, "style", levels, world.prompts)
    return study


def _capability(
    world: World,
    names: list[str],
    s: Subject,
    task: str,
    shift: dict[tuple[str, str, int], float],
) -> float:
    level = world.levels[names.index(s.base)]
    if s.untrained:
        return level
    k = AMOUNTS.index(s.amount)
    effect = world.broad if s.corpus == "broad" else world.local if task == OWN else (0.0,) * 4
    return level + effect[k] + shift[s.base, s.corpus or "", s.seed]


def _closed(world: World, s: Subject) -> float:
    return 0.0 if s.untrained else world.style[AMOUNTS.index(s.amount)]


def _score(
    study: Study,
    rng: np.random.Generator,
    task: str,
    metric: str,
    family: Family,
    levels: dict[str, float],
    n: int,
) -> None:
    item = rng.normal(size=n)
    of_base: dict[str, NDArray[np.float64]] = {}
    base = {s.model: s.base for s in study.subjects}
    for model, level in levels.items():
        own = of_base.setdefault(base.get(model, model), rng.normal(size=n))
        x = 0.6 * item + 0.5 * own + np.sqrt(1 - 0.36 - 0.25) * rng.normal(size=n)
        right = (x < _Z(level)).astype(float)
        values = {f"{task}{i}": float(v) for i, v in enumerate(right)}
        study.scores.append(Score(metric, model, family, float(right.mean()), n, values, task=task))
        study.truth[model, task or metric] = level


def found_in(study: Study, resamples: int = 1000) -> Findings:
    """What the analysis says of a simulated study."""
    sizes = [Base(f"b{k}", 10**8 * 4**k) for k in range(len(study.world.levels))]
    return analyse(study.subjects, study.scores, "teacher", bases=sizes, resamples=resamples)


# What was claimed and what was true, then whether each interval held the truth.
Tally = dict[str, list[float]]


def judge(study: Study, found: Findings) -> Tally:
    """Claims that are true or false, and the intervals that hold what is true."""
    tally: Tally = defaultdict(list)
    mean = _Truth(study)
    false = 0
    for v in found.verdicts:
        claims = {s.kind: s.answer for s in v.sentences} | {"supported": v.supported}
        for kind, true in mean.answers(v.base).items():
            if claims[kind] in ("up", "down") and claims[kind] != true:
                false += 1
            if true in ("up", "down"):
                tally[f"found: {kind} {true}"].append(float(claims[kind] == true))
    tally["a false claim in the study"].append(float(false > 0))
    for summary in found.summaries:
        if summary.family in ("supported", "unsupported") and summary.detectable:
            power = mean.power(summary, summary.detectable)
            if power is not None:
                tally[f"power stated: {summary.family}"].append(power)
                tally[f"power seen: {summary.family}"].append(float(tells(summary.estimate)))
    for name, interval, value in mean.intervals(found):
        if interval is not None and interval.low is not None and interval.high is not None:
            tally[f"covers: {name}"].append(float(interval.low <= value <= interval.high))
    return tally


class _Truth:
    """What is true of a study's models; seeds count where there are several."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.world = study.world

    def level(self, base: str, line: str, amount: int, tasks: tuple[str, ...]) -> float:
        """Mean over tasks: of the one model trained, or of all that could have been."""
        found = []
        for s in self.study.subjects:
            if s.base == base and (s.corpus or "", s.amount) == (line, amount):
                found += [self.study.truth[s.model, t] for t in tasks]
        if amount and self.world.seeds > 1:
            k = AMOUNTS.index(amount)
            start = self.level(base, "", 0, tasks)
            own = sum(t == OWN for t in tasks) / len(tasks)
            return start + (self.world.broad[k] if line == "broad" else self.world.local[k] * own)
        return float(np.mean(found))

    def answers(self, base: str) -> dict[str, str]:
        """What the sentences should say; "unclear" where nothing is true."""
        top = AMOUNTS[-1]
        step = self.world.broad[-1] - self.world.broad[-2]
        ahead = self.next_gain(base, "broad", EVERY)
        scaling = "unclear"
        if ahead is not None:
            data = step / 2
            scaling = (
                "up" if ahead > max(data, 0) else "down" if data > max(ahead, 0) else "unclear"
            )
        change = self.level(base, "broad", top, OTHERS) - self.level(base, "", 0, OTHERS)
        own = self.level(base, "local", top, (OWN,)) - self.level(base, "", 0, (OWN,))
        return {
            "style": _sign(self.world.style[-1]),
            "capability": _sign(change),
            "supported": _sign(own),
            "scaling": scaling,
        }

    def power(self, s: Summary, detectable: float) -> float | None:
        """Chance that the interval of a true effect leaves out 0; None where there is none."""
        tasks = (OWN,) if s.family == "supported" else OTHERS if s.corpus == "local" else EVERY
        level = self.level(s.base, s.corpus, s.amount, tasks)
        effect = level - self.level(s.base, "", 0, tasks)
        # The smallest detectable effect is what is found four times in five.
        z = abs(effect) / (detectable / POWER)
        return None if effect == 0 else NormalDist().cdf(z - NormalDist().inv_cdf(0.975))

    def next_gain(self, base: str, line: str, tasks: tuple[str, ...]) -> float | None:
        """What the next base adds at the largest amount."""
        k = int(base[1:])
        if k + 1 >= len(self.world.levels):
            return None
        top = AMOUNTS[-1]
        return self.level(f"b{k + 1}", line, top, tasks) - self.level(base, line, top, tasks)

    def intervals(self, found: Findings) -> Iterator[tuple[str, Interval | None, float]]:
        """Intervals of the findings with what they should hold."""
        every = EVERY
        for s in found.summaries:
            tasks = {"supported": (OWN,), "unsupported": OTHERS, "capability": every}
            if s.family == "style":
                yield "style closed", s.estimate, self.world.style[AMOUNTS.index(s.amount)]
            elif s.family in tasks:
                own = tasks[s.family] if s.corpus == "local" else every
                start = self.level(s.base, "", 0, own)
                change = self.level(s.base, s.corpus, s.amount, own) - start
                yield f"change, {s.family}", s.estimate, change
                yield f"closed, {s.family}", s.closed, change / (self.world.teacher - start)
        x = np.log2(AMOUNTS) - np.log2(AMOUNTS).mean()
        for t in found.trends:
            if t.metric == "capability":
                y = [self.level(t.base, t.corpus, a, every) for a in AMOUNTS]
                yield "slope against amount", t.slope, float(x @ y / (x @ x))
        for z in found.sizes:
            if z.metric == "capability" and not z.corpus:
                levels = np.array(self.world.levels)
                size = 2.0 * np.arange(len(levels))
                size -= size.mean()
                yield "slope against size", z.slope, float(size @ levels / (size @ size))
        for d in found.data_or_base:
            tasks_of = (OWN,) if d.family == "supported" else every
            a, b = (self.level(d.base, d.corpus, x, tasks_of) for x in (d.previous, d.amount))
            data = (b - a) / 2
            yield "gain of doubling the data", d.data_gain, data
            ahead = self.next_gain(d.base, d.corpus, tasks_of)
            if ahead is not None:
                yield "gain of the next base", d.base_gain, ahead
                yield "base minus data", d.contrast, ahead - data
        for r in found.local_broad:
            at = self.level(r.base, "local", r.local_amount, (OWN,))
            beside = self.level(r.base, "broad", r.broad_amount, (OWN,))
            yield "local minus broad", r.difference, at - beside


def _sign(value: float) -> str:
    return "up" if value > 1e-9 else "down" if value < -1e-9 else "unclear"


def one(world: World, seed: int) -> Tally:
    study = simulate(world, seed)
    return judge(study, found_in(study))


def tallied(world: World, studies: int, processes: int) -> Tally:
    total: Tally = defaultdict(list)
    with ProcessPoolExecutor(processes) as pool:
        for tally in pool.map(partial(one, world), range(studies), chunksize=8):
            for name, marks in tally.items():
                total[name] += marks
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("studies", nargs="?", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    worlds = [*WORLDS, SMALL, *(replace(w, title=f"{w.title}, 3 seeds", seeds=3, between_seeds=0.03)
                         for w in (NULL, PROMISE))]  # fmt: skip
    for world in worlds:
        begun = time.monotonic()
        total = tallied(world, asked.studies, asked.processes)
        print(f"\n### {world.title}: {asked.studies} studies, {time.monotonic() - begun:.0f} s\n")
        print("| | share | 95% interval | of |\n| --- | --- | --- | --- |")
        for name, marks in sorted(total.items()):
            low, high = wilson(sum(marks), len(marks))
            print(f"| {name} | {np.mean(marks):.1%} | {low:.1%} to {high:.1%} | {len(marks):,} |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
