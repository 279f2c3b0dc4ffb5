"""A pool of pairs that grows: a teacher is shown some and asked for more of the kind."""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from epigone.corpus.contamination import Index
from epigone.errors import EndpointError
from epigone.models.received import Answer
from epigone.schema import Message, Progress
from epigone.teachers.answers import Settings, left_of, pace, request_of, wrong
from epigone.teachers.ask import Asker, NotHad, Refused
from epigone.teachers.pairs import Pair, Pool, Unpaired
from epigone.teachers.task import Task
from epigone.teachers.wire import Request

# So many requests in a row without a pair that is new, and the teacher has no more to give.
BARREN = 50
_NARROWEST, _WIDEST = 4, 64


@dataclass(frozen=True, slots=True)
class Growth:
    """How a pool grows: to `size` pairs, `shown` at random for each request for `each` more.

    The draws are `seed`'s. All of it, and the order of the requests, decides the result; how many
    are asked at once does not.
    """

    size: int
    shown: int = 5
    each: int = 5
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """A pair that was accepted, and the answer it stood in."""

    pair: Pair
    model: str
    created: int


@dataclass(slots=True)
class Synthesis:
    """What was accepted, in its order, and what was not: number of the request, reason, text."""

    made: list[Made] = field(default_factory=list)
    rejected: list[tuple[int, str, str]] = field(default_factory=list)
    requests: int = 0
    # Whether the teacher gave nothing new at the end.
    dry: bool = False


async def synthesize(
    asker: Asker,
    task: Task,
    growth: Growth,
    settings: Settings,
    avoid: Index,
    progress: Progress,
) -> Synthesis:
    """Grow a pool from the task's seeds; `avoid` holds what must not be in it.

    Requests go out in rounds, each drawn from what was accepted before it, so that a run that goes
    on after a kill asks the same again, of which the ledger knows the answers. Raises EndpointError
    where nothing more can be asked.
    """
    grown = _Grown(task, Pool(avoid))
    started = time.monotonic()

    def told(*_: object) -> None:
        made = len(grown.found.made)
        note = pace(asker, time.monotonic() - started, made, growth.size)
        progress(made, growth.size, note)

    asker.watch = told
    while len(grown.found.made) < growth.size and not grown.found.dry:
        first = grown.found.requests
        width = _width(grown, growth)
        requests = [
            _request(asker, task, grown.pairs, growth, settings, first + i) for i in range(width)
        ]
        try:
            answers = await _round(asker, requests, told)
        except EndpointError as error:
            raise left_of(
                error, f"{len(grown.found.made):,} of {growth.size:,} examples are there"
            ) from None
        for number, answer in enumerate(answers, first):
            grown.take(number, answer, growth.size)
        told()
    return grown.found


async def _round(
    asker: Asker, requests: Sequence[Request], told: Callable[..., None]
) -> list[Answer | Refused]:
    """What all of them are answered; a round without one of them would go on otherwise."""
    # Not gather, which at the first error leaves the others alone.
    asked = [asyncio.ensure_future(asker.ask(request)) for request in requests]
    for task in asked:
        task.add_done_callback(told)
    try:
        await asyncio.wait(asked)
    finally:
        for task in asked:
            task.cancel()
    for task in asked:
        if (error := task.exception()) and not isinstance(error, NotHad):
            raise error
    missing = [str(error) for task in asked if (error := task.exception())]
    if missing:
        raise EndpointError(
            f"{len(missing)} answers could not be had",
            value=missing[0],
            fix="all that came is kept; run the same command again",
        )
    return [task.result() for task in asked]


def _width(grown: _Grown, growth: Growth) -> int:
    """Requests of the next round: few while there is little to draw from, and none to spare."""
    wide = max(_NARROWEST, min(_WIDEST, len(grown.pairs) // growth.shown))
    done, asked = len(grown.found.made), grown.found.requests
    yielded = max(done / asked, 1.0) if asked else float(growth.each)
    return min(wide, max(1, math.ceil((growth.size - done) / yielded)))


def _request(
    asker: Asker,
    task: Task,
    pairs: Sequence[Pair],
    growth: Growth,
    settings: Settings,
    number: int,
) -> Request:
    told = hashlib.sha256(f"{growth.seed}:{number}".encode()).digest()
    draw = random.Random(int.from_bytes(told[:8], "little"))
    shown = draw.sample(pairs, min(growth.shown, len(pairs)))
    text = task.request(shown, growth.each)
    # A chat model is asked; the pairs of an answer cut short are pairs all the same.
    own = replace(settings, completions=False, schema=None)
    return request_of(asker.endpoint, [Message("user", text)], own, number)


class _Grown:
    """A pool, and what came of the requests so far."""

    def __init__(self, task: Task, pool: Pool) -> None:
        self.found = Synthesis()
        self.pairs = list(task.seeds)
        self._task, self._pool = task, pool
        self._barren = 0
        for pair in task.seeds:
            pool.add(pair)

    def take(self, number: int, answer: Answer | Refused, size: int) -> None:
        """Accept what is new in an answer, up to `size` in all."""
        if len(self.found.made) == size:
            # Asked together with the one that completed the pool.
            self.found.requests += 1
            return
        before = len(self.found.made)
        self.found.requests += 1
        if isinstance(answer, Refused):
            self._reject(number, f"{answer.reason}: {answer.why}", "")
        elif fault := wrong(answer, cut=True):
            self._reject(number, fault, answer.refusal or answer.text)
        else:
            self._read(number, answer, size)
        self._barren = 0 if len(self.found.made) > before else self._barren + 1
        self.found.dry = self._barren >= BARREN

    def _read(self, number: int, answer: Answer, size: int) -> None:
        parsed = [*self._task.labels.parse(answer.text)]
        # The last pair of an answer that was cut may be cut as well.
        cut = parsed.pop() if wrong(answer, cut=False) else None
        for pair in parsed:
            if len(self.found.made) == size:
                return
            if isinstance(pair, Unpaired):
                self._reject(number, pair.why, pair.text)
            elif fault := self._task.check(pair) or self._pool.refuse(pair):
                self._reject(number, fault, self._task.labels.shown([pair]))
            else:
                self._pool.add(pair)
                self.pairs.append(pair)
                self.found.made.append(Made(pair, answer.model, answer.created))
        if cut is not None:
            text = cut.text if isinstance(cut, Unpaired) else self._task.labels.shown([cut])
            self._reject(number, "cut at its longest", text)

    def _reject(self, number: int, reason: str, text: str) -> None:
        self.found.rejected.append((number, reason, text[:500]))
