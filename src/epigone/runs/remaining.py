"""How long what is left will take: of a plan, and of a run as it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

from epigone.models import references
from epigone.runs.needs import Machine, Needs, needs_of
from epigone.runs.plan import Planned
from epigone.runs.schedule import ways
from epigone.study.step import Step
from epigone.training.layout import processes_asked


def expected(planned: Sequence[Planned], machines: Sequence[Machine]) -> float:
    """Seconds until all is done on the machines, were they never idle but for the longest chain."""
    seconds = {p.step.name: p.seconds for p in planned}
    longest = max(ways([p.step for p in planned], lambda s: seconds[s.name]).values(), default=0.0)
    cpus, gpus = sum(m.has.cpus for m in machines), sum(m.has.gpus for m in machines)
    busy, processes, count = [0.0, 0.0], processes_asked() or 0, cache(references.parameters)
    for p in planned:
        if p.seconds:
            needs = needs_of(p.step, machines, processes, count)
            busy[0] += p.seconds * needs.cpus / cpus
            busy[1] += p.seconds * needs.gpus / max(1, gpus)
    return max(*busy, longest)


class Remaining:
    """What a run's steps are expected to take, and by how far that was true so far."""

    def __init__(self, owed: Mapping[str, float]) -> None:
        """Of each step that is to do, by name, the seconds that it is expected to work."""
        self._owed = dict(owed)
        # In seconds of all machines together; summed once, for there may be thousands.
        self._shares: dict[str, float] = {}
        self._sum = 0.0
        self._machines: Sequence[Machine] = ()
        self._worked = self._thought = 0.0

    def __len__(self) -> int:
        """How many steps are left."""
        return len(self._owed)

    def learn(self, step: Step, seconds: float) -> None:
        """A step has worked so long."""
        self._worked += seconds
        self._thought += self._owed[step.name]

    def settle(self, step: Step) -> None:
        """A step is not left any more, whatever became of it."""
        self._owed.pop(step.name, None)
        self._sum -= self._shares.pop(step.name, 0.0)

    def seconds(
        self, machines: Sequence[Machine], steps: Iterable[Step], needs: Callable[[Step], Needs]
    ) -> float:
        """Seconds until the `steps` that are left are done on the machines."""
        if machines != self._machines:
            self._machines = machines
            cpus, gpus = sum(m.has.cpus for m in machines), sum(m.has.gpus for m in machines)
            for step in steps:
                asked = needs(step)
                share = max(asked.cpus / max(1, cpus), asked.gpus / max(1, gpus))
                self._shares[step.name] = self._owed[step.name] * share
            self._sum = sum(self._shares.values())
        true = self._worked / self._thought if self._thought else 1.0
        return max(0.0, self._sum) * true
