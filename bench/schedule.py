"""The paper's grid on 1, 8 and 64 GPUs, simulated: how long it takes, what trunks and order save.

    python bench/schedule.py
    python bench/schedule.py studies/false-promise.yaml --gpu H200 --gpus 8 64 --processes 8

No step runs. The order is that of `epigone.runs.schedule`, asked as a run asks it; what a step
needs is told by `epigone.runs.needs`, and how long it takes by the arithmetic of docs/cost.md,
whose share of the peak (`--mfu`) is assumed. GPUs come in machines of up to eight. A training run
on n GPUs takes an nth of the time; a step takes five seconds beside its operations; files and
networks cost nothing. A training run that does not fit into all the GPUs there are is counted as if
it did, and named.

`first come` takes the steps in the order of the study. `apart` trains every amount by itself. The
bound is the larger of two: all GPU-hours by the GPUs, and the longest chain of steps.
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import epigone
from epigone.models import references
from epigone.runs.estimate import Answering, amounts_of, answers_of, base_of, gpus_needed
from epigone.runs.needs import Machine, Needs, needs_of
from epigone.runs.plan import work
from epigone.runs.resolve import World
from epigone.runs.schedule import Schedule, ways
from epigone.study import cost
from epigone.study.cost import MACHINES, Gpu
from epigone.study.specs import CorpusSpec, TrainSpec
from epigone.study.step import Step
from epigone.study.steps import Expansion, expand

GPUS = {"A100": cost.A100, "H200": cost.H200}
NODE, CORES, MEMORY = 8, 16, 200e9
START_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Ran:
    """How a simulated run went: seconds, and seconds in which a GPU worked."""

    makespan: float
    busy: float
    begun: Mapping[str, float]


def machines_of(gpu: Gpu, count: int) -> list[Machine]:
    """Machines that have `count` GPUs together, each with its part of cores and memory."""
    sizes = [min(NODE, count - at) for at in range(0, count, NODE)]
    return [
        Machine(f"m{i}", Needs(n * CORES, n, n * MEMORY), gpu.memory) for i, n in enumerate(sizes)
    ]


def seconds_of(step: Step, gpu: Gpu, gpus: int) -> float:
    """Seconds that a step takes on GPUs of a kind."""
    spec = step.spec
    if isinstance(spec, TrainSpec):
        corpus = step.inputs["corpus"].spec
        kind = corpus.kind if isinstance(corpus, CorpusSpec) else "broad"
        shape = references.shape(spec.base.ref)
        share, answer = cost.SUPERVISED[kind], cost.ANSWER[kind]
        flops = cost.training(shape, spec.recipe, amounts_of(step), share, answer).flops
        return START_SECONDS + cost.flop_seconds(flops, gpu) / max(1, gpus)
    if isinstance(spec, Answering) and spec.model.kind != "teacher":
        shape = references.shape(base_of(step, spec.model).ref)
        assert shape is not None, f"the size of {spec.model.name} is not known"
        return START_SECONDS + cost.answer_seconds(shape, gpu, *answers_of(spec))
    return work(step)


def simulated(
    steps: Sequence[Step],
    machines: Sequence[Machine],
    seconds: Callable[[Step], float],
    needs: Callable[[Step], Needs],
    urgent: Callable[[Step], float],
) -> Ran:
    """A run of all steps; `urgent` are the seconds that the schedule is told of each."""
    asked = [s.name for s in steps]
    schedule = Schedule(steps, done=(), asked=asked, seconds=urgent, needs=needs)
    free = [m.has for m in machines]
    working: list[tuple[float, int, Step, list[int]]] = []
    begun: dict[str, float] = {}
    now = busy = 0.0
    while schedule.left or working:
        while placed := schedule.place(free, [step for _, _, step, _ in working]):
            step, places = placed
            schedule.begin(step)
            begun[step.name] = now
            busy += seconds(step) * needs(step).gpus
            for at in places:
                free[at] = free[at].less(needs(step).part())
            heapq.heappush(working, (now + seconds(step), len(begun), step, places))
        if not working:
            raise SystemExit(f"nothing fits of {len(schedule.left)} steps")
        now, _, step, places = heapq.heappop(working)
        schedule.finish(step)
        for at in places:
            free[at] = free[at].more(needs(step).part())
    early = [s.name for s in steps for i in s.inputs.values() if begun[s.name] < begun[i.name]]
    assert not early, f"begun before what they need: {early}"
    return Ran(now, busy, begun)


def expansion(file: Path, seeds: int, *, apart: bool) -> Expansion:
    """The study's steps; `apart` with a run for each amount, `seeds` of them where it is not 0."""
    declared = epigone.Study.load(file).declaration
    if seeds:
        declared = declared.model_copy(update={"seeds": [*range(seeds)]})
    if apart:
        # A cosine knows no trunk, and costs the same.
        own = declared.recipe.model_copy(update={"schedule": "cosine"})
        declared = declared.model_copy(update={"recipe": own})
    return expand(declared, World(online=False, folder=file.parent))


def row(grid: Expansion, gpu: Gpu, count: int, processes: int, *, first_come: bool) -> list[str]:
    """One simulated run as cells of a table."""
    machines = machines_of(gpu, count)

    @cache
    def by_name(name: str) -> tuple[Needs, float]:
        step = named[name]
        needs = needs_of(step, machines, min(processes, count))
        return needs, seconds_of(step, gpu, needs.gpus)

    named = {step.name: step for step in grid.steps}

    def needs(step: Step) -> Needs:
        return by_name(step.name)[0]

    def seconds(step: Step) -> float:
        return by_name(step.name)[1]

    urgent = (lambda step: 0.0) if first_come else seconds
    ran = simulated(grid.steps, machines, seconds, needs, urgent)
    bound = max(ran.busy / count, max(ways(grid.steps, seconds).values()))
    return [
        f"{ran.makespan / 3600:.1f}",
        f"{ran.busy / ran.makespan / count:.0%}",
        f"{ran.busy / 3600:.1f}",
        f"{bound / 3600:.1f}",
        f"{ran.makespan / bound:.2f}",
    ]


def unfit(grid: Expansion, gpu: Gpu, count: int) -> list[str]:
    """Bases whose training takes more GPUs than there are."""
    machine = replace(MACHINES[0], gpu=gpu, count=count)
    found: dict[str, int | None] = {}
    for step in grid.steps:
        if isinstance(step.spec, TrainSpec):
            shape = references.shape(step.spec.base.ref)
            assert shape is not None
            found[step.spec.base.name] = gpus_needed(shape, step.spec, machine)[1]
    return [f"{name} ({n} GPUs)" for name, n in found.items() if n is None or n > count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("study", type=Path, nargs="?", default=Path("studies/false-promise.yaml"))
    parser.add_argument("--gpu", choices=GPUS, default="A100")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--processes", type=int, default=0, help="GPUs of a training run")
    parser.add_argument("--seeds", type=int, default=0, help="in place of the study's own")
    parser.add_argument("--mfu", type=float, default=cost.MFU)
    asked = parser.parse_args()
    cost.MFU = asked.mfu
    gpu = GPUS[asked.gpu]
    grids = {"trunks": expansion(asked.study, asked.seeds, apart=False)}
    grids["apart"] = expansion(asked.study, asked.seeds, apart=True)
    sizes = ", ".join(f"{len(grid.steps)} steps with {name}" for name, grid in grids.items())
    print(f"{asked.study}: {len(grids['trunks'].cells())} students; {sizes}; {gpu.name}\n")
    print("| GPUs | students | order | hours | GPUs busy | GPU-hours | bound | of the bound |")
    print("| --- " * 8 + "|")
    for count in asked.gpus:
        for name, grid in grids.items():
            for first_come in (False, True):
                order = "first come" if first_come else "longest way"
                cells = row(grid, gpu, count, asked.processes, first_come=first_come)
                print("| " + " | ".join([str(count), name, order, *cells]) + " |", flush=True)
    for count in asked.gpus:
        if found := ", ".join(unfit(grids["trunks"], gpu, count)):
            print(f"\ntoo large to train on {count}, counted as if they were not: {found}")


if __name__ == "__main__":
    main()
