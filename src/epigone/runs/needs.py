"""What a step needs of a machine: cores, GPUs, memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from epigone.models import references
from epigone.runs.estimate import Answering
from epigone.runs.plan import asks_endpoint, memory
from epigone.study.specs import FeedbackSpec, SelectSpec, TrainSpec
from epigone.study.step import Step

# Small products gain nothing from more threads: beyond so many, steps work side by side instead.
_WIDE, _NARROW = 8, 4
# Share of a GPU's memory that a model may be expected to take.
_FILLED = 0.9
# Host bytes of a step that works on a GPU, beside the weights that pass through.
_BESIDE_GPU = 3e9
# Stages that use all the cores that a step may have, though they load no model.
_BROAD = ("corpus",)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a step takes while it works, or what a machine has: cores, GPUs, bytes of memory.

    `parts` is the number of equal parts that may lie on different machines.
    """

    cpus: int
    gpus: int
    memory: float
    parts: int = 1

    def within(self, free: Needs) -> bool:
        """Whether there is as much of everything."""
        return self.cpus <= free.cpus and self.gpus <= free.gpus and self.memory <= free.memory

    def less(self, taken: Needs) -> Needs:
        """What is left of this; nothing falls below none."""
        return replace(
            self,
            cpus=max(0, self.cpus - taken.cpus),
            gpus=max(0, self.gpus - taken.gpus),
            memory=max(0.0, self.memory - taken.memory),
        )

    def more(self, given: Needs) -> Needs:
        """This and what comes back."""
        return replace(
            self,
            cpus=self.cpus + given.cpus,
            gpus=self.gpus + given.gpus,
            memory=self.memory + given.memory,
        )

    def part(self) -> Needs:
        """One of the equal parts."""
        n = self.parts
        return Needs(math.ceil(self.cpus / n), math.ceil(self.gpus / n), self.memory / n)


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that steps work on, and the bytes of each of its GPUs."""

    name: str
    has: Needs
    gpu_bytes: float = 0.0


def needs_of(
    step: Step,
    machines: Sequence[Machine],
    processes: int = 0,
    count: Callable[[str], int | None] = references.parameters,
) -> Needs:
    """What a step takes of the smallest of the machines that can do it.

    By the smallest, so that a step has as many threads wherever it works: sums of floats depend
    on their number. `processes` is how many a training run was asked to have, 0 where nobody
    asked. A step too large for every machine is cut to the largest, and has that to itself.
    Machines without cores have left. `count` is as for `plan.memory`.
    """
    takes = memory(step, count)
    machines = [m for m in machines if m.has.cpus]
    if asks_endpoint(step) or not machines:
        return Needs(0, 0, takes)  # it waits for another machine
    with_gpu = [m for m in machines if m.has.gpus]
    if with_gpu and isinstance(step.spec, Answering | TrainSpec | FeedbackSpec | SelectSpec):
        needs = _on_gpu(step, takes, with_gpu, processes)
    else:
        cores = min(m.has.cpus for m in machines)
        trains = isinstance(step.spec, TrainSpec | FeedbackSpec | SelectSpec)
        broad = trains or step.stage in _BROAD
        wide = min(cores, _WIDE) if broad else min(max(1, cores // 2), _NARROW)
        many = processes if isinstance(step.spec, TrainSpec) else 0
        needs = Needs(max(wide, many), 0, takes, max(1, many))
    return _cut(needs, machines)


def _on_gpu(step: Step, takes: float, machines: Sequence[Machine], processes: int) -> Needs:
    smallest = min(machines, key=lambda m: m.gpu_bytes)
    many = 1
    if isinstance(step.spec, TrainSpec):
        room = _FILLED * smallest.gpu_bytes
        fitting = 1 << max(0, math.ceil(math.log2(takes / room))) if room else 1
        many = processes or min(fitting, sum(m.has.gpus for m in machines))
    cores = max(1, min(m.has.cpus // m.has.gpus for m in machines))
    return Needs(min(cores, _WIDE) * many, many, (_BESIDE_GPU + takes / 4) * many, many)


def _cut(needs: Needs, machines: Sequence[Machine]) -> Needs:
    """What a step takes where there is less than it would like; its parts fit empty machines.

    More parts than there are cores or GPUs stay so, and fit nowhere.
    """
    part = needs.part()
    able = [m.has for m in machines if m.has.gpus >= part.gpus] or [m.has for m in machines]
    if needs.parts == 1:
        most = max(able, key=lambda has: (has.memory, has.cpus))
        return Needs(
            min(needs.cpus, most.cpus), min(needs.gpus, most.gpus), min(needs.memory, most.memory)
        )

    def places(cpus: int, has: Needs) -> int:
        return min(has.cpus // cpus, has.gpus // part.gpus if part.gpus else has.cpus)

    cpus = part.cpus
    while cpus > 1 and sum(places(cpus, has) for has in able) < needs.parts:
        cpus -= 1
    rooms = [(has.memory, places(cpus, has)) for has in able]
    # Whole bytes: halves and thirds of floats do not add up to the room that they were cut from.
    sizes = {math.ceil(part.memory)}
    sizes |= {int(memory // k) for memory, many in rooms for k in range(1, many + 1)}
    held = [
        size
        for size in sizes
        if 0 < size <= math.ceil(part.memory)
        and sum(min(many, int(memory // size)) for memory, many in rooms) >= needs.parts
    ]
    size = max(held, default=math.ceil(part.memory))
    return Needs(cpus * needs.parts, needs.gpus, float(size * needs.parts), needs.parts)
