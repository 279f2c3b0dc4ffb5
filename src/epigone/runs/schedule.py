"""Which step begins next, and where: the longest way to the end first; no process, no file."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain

from epigone.runs.needs import Needs
from epigone.study.step import Step

# Data that cannot be used must be told before other work is done.
_FIRST = ("items", "ask", "corpus")
# What is made of data on this machine is soon made; nothing else begins before.
_SOON = ("items", "corpus")


def ways(steps: Sequence[Step], seconds: Callable[[Step], float]) -> dict[str, float]:
    """Seconds from each step's begin to the end of the longest chain of steps that hangs on it.

    `steps` come after their inputs. Longest first by this number is the rule of Graham (1969) for
    chains ("highest level first"): a trunk stands before its leaves and before any other leaf.
    """
    longest: dict[str, float] = defaultdict(float)
    for step in reversed(steps):
        longest[step.name] += seconds(step)
        for needed in step.inputs.values():
            longest[needed.name] = max(longest[needed.name], longest[step.name])
    return dict(longest)


class Schedule:
    """The steps of a run that are left: what is ready, in the order of its urgency."""

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        done: Collection[str],
        asked: Collection[str],
        seconds: Callable[[Step], float],
        needs: Callable[[Step], Needs],
        claims: Callable[[Step], str] = lambda step: "",
    ) -> None:
        """Of `steps`, in an order in which they can run, those `asked` for are to be done.

        `claims` names what only one step at a time may use, as an endpoint; "" for nothing.
        """
        self._needs = needs
        self._claims = {s.name: claim for s in steps if (claim := claims(s))}
        way = ways(steps, seconds)
        self._urgency = {
            s.name: (s.stage not in _FIRST, -way[s.name], at) for at, s in enumerate(steps)
        }
        self._done = set(done)
        self._left = {s.name: s for s in steps if s.name in asked and s.name not in self._done}
        self._data = {name: s for name, s in self._left.items() if s.stage in _SOON}
        self._waits: dict[str, set[str]] = {}
        self._heirs: dict[str, list[Step]] = defaultdict(list)
        # By urgency; those that claim something ask another machine, and need no core of these.
        self._ready: list[Step] = []
        self._asking: list[Step] = []
        for step in self._left.values():
            open_inputs = {i.name for i in step.inputs.values()} - self._done
            self._waits[step.name] = open_inputs
            for name in open_inputs:
                self._heirs[name].append(step)
            if not open_inputs:
                self._enter(step)

    @property
    def left(self) -> list[Step]:
        """Steps that have not begun."""
        return [*self._left.values()]

    @property
    def ready(self) -> list[Step]:
        """Steps that have not begun and whose inputs are done."""
        return [*self._asking, *self._ready]

    def place(
        self,
        free: Sequence[Needs],
        running: Iterable[Step] = (),
        but: Collection[str] = (),
        whole: Sequence[Needs] = (),
    ) -> tuple[Step, list[int]] | None:
        """The step to begin, and the machine of each of its parts; None where nothing fits.

        `free` is what each machine has left, `whole` what it has when nothing works; `but` are
        steps to pass over. What an urgent step waits for is kept for it, on a machine that can do
        it, else small ones would keep a large one waiting for ever.
        """
        if not free:
            return None
        rooms, whole = [*free], whole or free
        claimed = {self._claims[s.name] for s in running if s.name in self._claims}
        first = self._data_first()
        refused: set[Needs] = set()
        for step in chain(self._asking, self._ready):
            claim = self._claims.get(step.name)
            if claim is None and not any(room.cpus for room in rooms):
                return None
            if step.name in but or claim in claimed:
                continue
            if first and step.stage not in _FIRST:
                continue
            needs = self._needs(step)
            if needs in refused:
                continue
            if (machines := fit(needs, rooms)) is not None:
                return step, machines
            refused.add(needs)
            _keep(needs, rooms, whole)
        return None

    def begin(self, step: Step) -> None:
        """A step works now, here or elsewhere."""
        del self._left[step.name]
        self._withdraw(step)

    def _data_first(self) -> bool:
        """Whether there is data to make for which nothing else has to be done before."""
        return any(
            all(i.name in self._done or i.name in self._data for i in s.inputs.values())
            for s in self._data.values()
        )

    def leave(self, step: Step) -> None:
        """A step is not to be done at all."""
        del self._left[step.name]
        self._data.pop(step.name, None)
        self._withdraw(step)

    def give_back(self, step: Step) -> None:
        """A step that had begun did not end; it is ready again."""
        self._left[step.name] = step
        self._enter(step)

    def finish(self, step: Step) -> None:
        """A step is done; what waited for it alone is ready."""
        self._done.add(step.name)
        self._data.pop(step.name, None)
        for heir in self._heirs.pop(step.name, ()):
            waits = self._waits[heir.name]
            waits.discard(step.name)
            if not waits and heir.name in self._left:
                self._enter(heir)

    def drop(self, step: Step) -> list[Step]:
        """A step failed: all that hangs on it leaves."""
        dropped: list[Step] = []
        missing = [step]
        for by in missing:
            self._data.pop(by.name, None)
            for heir in self._heirs.pop(by.name, ()):
                if self._left.pop(heir.name, None) is not None:
                    dropped.append(heir)
                    missing.append(heir)
        return dropped

    def _enter(self, step: Step) -> None:
        insort(self._line(step), step, key=lambda s: self._urgency[s.name])

    def _withdraw(self, step: Step) -> None:
        line, urgency = self._line(step), self._urgency[step.name]
        at = bisect_left(line, urgency, key=lambda s: self._urgency[s.name])
        if at < len(line) and line[at].name == step.name:
            del line[at]

    def _line(self, step: Step) -> list[Step]:
        return self._asking if step.name in self._claims else self._ready


def fit(needs: Needs, rooms: Sequence[Needs]) -> list[int] | None:
    """The machine of each part, the fullest that still has room first; None: they do not fit."""
    part, found = needs.part(), []
    left = [*rooms]
    for _ in range(needs.parts):
        able = [at for at, room in enumerate(left) if part.within(room)]
        if not able:
            return None
        # GPUs stay whole on as few machines as can be, for steps that want several.
        at = min(able, key=lambda i: (left[i].gpus, left[i].cpus))
        left[at] = left[at].less(part)
        found.append(at)
    return found


def _keep(needs: Needs, rooms: list[Needs], whole: Sequence[Needs]) -> None:
    """Keep for a step that waits the room on which it will work, whatever of it is free."""
    part = needs.part()
    able = [i for i, all_of_it in enumerate(whole) if part.within(all_of_it)]
    for _ in range(needs.parts if able else 0):
        at = max(able, key=lambda i: (rooms[i].gpus, rooms[i].cpus, rooms[i].memory))
        rooms[at] = rooms[at].less(part)
