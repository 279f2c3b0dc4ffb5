"""Two studies side by side: the cells that both have, and how far their scores are apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from epigone.findings.bank import Bank
from epigone.findings.families import MEANS
from epigone.findings.gaps import paired_change, value_interval
from epigone.findings.grid import Key, counts, name_of
from epigone.findings.model import FamilyName, Subject, Summary, Verdict
from epigone.findings.panel import Column, Panel
from epigone.findings.resample import RESAMPLES, restrict, usable
from epigone.schema import Direction, Family, Interval, Score

# What these families measure depends on what the teacher answered.
_BESIDE_THE_TEACHER: tuple[Family, ...] = ("style", "preference")


@dataclass(frozen=True, slots=True)
class Side:
    """One of two studies: who is who, what they scored, and what was found.

    `answers` are the teacher's, by item; `conditions` say how a task was measured, by its name or
    what stands before a colon in it ("" for style): scores of other conditions are not compared.
    """

    subjects: Sequence[Subject]
    scores: Sequence[Score]
    summaries: Sequence[Summary] = ()
    verdicts: Sequence[Verdict] = ()
    teacher: str = ""
    answers: Mapping[str, str] = field(default_factory=dict)
    conditions: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pair:
    """One cell, or base, of two studies; the amounts differ where neither has the other's."""

    first: Subject
    second: Subject


@dataclass(frozen=True, slots=True)
class ScoreBeside:
    """One metric of a pair: each side's value on all its items, and second minus first.

    The difference is paired, on the items that both have; `why` says why there is none. `pair` is
    None for the teachers.
    """

    pair: Pair | None
    task: str
    metric: str
    family: Family
    better: Direction
    first: Interval
    second: Interval
    difference: Interval
    why: str = ""


@dataclass(frozen=True, slots=True)
class FamilyBeside:
    """One family of metrics of a pair's line and amount, seeds averaged, as each study sums it up.

    The difference, in which up is good, is of the means over the tasks that both have.
    """

    pair: Pair
    family: FamilyName
    first: Summary | None
    second: Summary | None
    difference: Interval


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two studies side by side; differences are second minus first.

    `remarks` are what a reader must know before any difference is believed.
    """

    pairs: tuple[Pair, ...]
    only_first: tuple[Subject, ...]
    only_second: tuple[Subject, ...]
    scores: tuple[ScoreBeside, ...]
    families: tuple[FamilyBeside, ...]
    verdicts: tuple[tuple[str, Verdict | None, Verdict | None], ...]
    remarks: tuple[str, ...]


# The same metric on both sides, on the items that can be compared, or why there are none.
_Met = tuple[Score, Score] | str


def compare(first: Side, second: Side, seed: int = 0, resamples: int = RESAMPLES) -> Comparison:
    """What two studies have in common, and by how much the second scores more than the first.

    Cells pair by base, line, amount, seed and feedback. Of a line whose amounts differ, the largest
    of each side pair as well. Intervals cover the choice of items, those of families seeds too.
    """
    pairs, only_first, only_second = _pairs(first.subjects, second.subjects)
    tables = _Tables(first, second)
    everyone = [(p, p.first.model, p.second.model) for p in pairs]
    met = {(a, b): dict(tables.met(a, b)) for _, a, b in everyone}
    teachers = (first.teacher, second.teacher)
    met[teachers] = dict(tables.met(*teachers))
    common = [s for m in met.values() for both in m.values() if isinstance(both, tuple)
              for s in both]  # fmt: skip
    bank = Bank(common, seed, resamples)
    rows = [
        row
        for pair, a, b in [*everyone, (None, *teachers)]
        for row in _scores(pair, tables.of(a, b), met[a, b], bank)
    ]
    return Comparison(
        tuple(pairs),
        tuple(only_first),
        tuple(only_second),
        tuple(rows),
        tuple(_families(first, second, pairs, met, bank)),
        tuple(_verdicts(first.verdicts, second.verdicts)),
        tuple(_remarks(pairs, met)),
    )


def _pairs(
    first: Sequence[Subject], second: Sequence[Subject]
) -> tuple[list[Pair], list[Subject], list[Subject]]:
    """Subjects that both studies have, then those that only the first or only the second has."""
    left = {_cell(s): s for s in first}
    right = {_cell(s): s for s in second}
    pairs = [Pair(s, right[key]) for key, s in left.items() if key in right]
    alone = [{k: s for k, s in own.items() if k not in other}
             for own, other in ((left, right), (right, left))]  # fmt: skip
    largest = [{_line(s): s for s in sorted(own.values(), key=lambda s: s.amount) if s.amount}
               for own in alone]  # fmt: skip
    for line, one in largest[0].items():
        if (other := largest[1].get(line)) is not None:
            pairs.append(Pair(one, other))
            del alone[0][_cell(one)], alone[1][_cell(other)]
    order = {_cell(s): i for i, s in enumerate(first)}
    pairs.sort(key=lambda p: order[_cell(p.first)])
    return pairs, [*alone[0].values()], [*alone[1].values()]


def _cell(s: Subject) -> tuple[object, ...]:
    return *_line(s), s.amount


def _line(s: Subject) -> tuple[object, ...]:
    return s.base, s.corpus or "", s.seed, s.feedback


class _Tables:
    """The scores of both sides by model and metric."""

    def __init__(self, first: Side, second: Side) -> None:
        self._sides = first, second
        self._scores: list[dict[str, dict[Key, Score]]] = []
        for side in self._sides:
            found: dict[str, dict[Key, Score]] = defaultdict(dict)
            for score in side.scores:
                found[score.model][score.task, score.metric] = score
            self._scores.append(found)

    def of(self, first: str, second: str) -> tuple[dict[Key, Score], dict[Key, Score]]:
        """The scores of a model of each side."""
        return self._scores[0].get(first, {}), self._scores[1].get(second, {})

    def met(self, first: str, second: str) -> Iterator[tuple[Key, _Met]]:
        """Every metric that both of two models have."""
        one, other = self.of(first, second)
        for key in sorted(one.keys() & other.keys()):
            yield key, self._comparable(one[key], other[key])

    def _comparable(self, a: Score, b: Score) -> _Met:
        how = [_condition(side.conditions, a.task) for side in self._sides]
        if other := [k for k in sorted(how[0].keys() | how[1].keys())
                     if how[0].get(k) != how[1].get(k)]:  # fmt: skip
            told = ", ".join(_told(k, how[0].get(k), how[1].get(k)) for k in other)
            return f"measured in another way: {told}"
        if a.version != b.version:
            return f"version {a.version} of the metric against version {b.version}"
        if a.method != b.method:
            return (
                f"come by in another way: {a.method or 'as usual'} against {b.method or 'as usual'}"
            )
        items = usable(a) & usable(b)
        if not items:
            return "no items in common" if a.values and b.values else "no values of the items"
        if a.family in _BESIDE_THE_TEACHER:
            answers = [side.answers for side in self._sides]
            items = {i for i in items if answers[0].get(i) == answers[1].get(i)}
            if not items:
                return "the teachers' answers differ, so it is measured against other things"
        if len(items) == len(a.values) == len(b.values):
            return a, b
        return restrict(a, sorted(items)), restrict(b, sorted(items))


def _condition(conditions: Mapping[str, Mapping[str, object]], task: str) -> Mapping[str, object]:
    """How a task was measured, by its name or what stands before one of its colons."""
    while ":" in task and task not in conditions:
        task = task.rpartition(":")[0]
    return conditions.get(task, {})


def _told(name: str, first: object, second: object) -> str:
    texts = ["not set" if v is None else str(v) for v in (first, second)]
    if any(len(t) > 40 for t in texts):
        return name
    return f"{name} {texts[0]} against {texts[1]}"


def _scores(
    pair: Pair | None,
    tables: tuple[dict[Key, Score], dict[Key, Score]],
    met: Mapping[Key, _Met],
    bank: Bank,
) -> Iterator[ScoreBeside]:
    for key in sorted(tables[0].keys() | tables[1].keys()):
        one, other = (t.get(key) for t in tables)
        some = one or other
        assert some is not None
        both = met.get(key, "measured in one of the two only")
        difference, why = _nothing(""), ""
        if isinstance(both, str):
            why = both
        else:
            difference = paired_change(*both, bank)[0]
            if difference.value is not None and all(
                both[0].values[i] == both[1].values[i] for i in both[0].values
            ):
                # Identical on every item: there is no spread to resample, and nothing unknown.
                difference = Interval(0.0, 0.0, 0.0, difference.n, "the same on every item")
            why = difference.note if difference.value is None else ""
        values = [
            _nothing("") if s is None else value_interval(s, bank.seed, bank.resamples)
            for s in (one, other)
        ]
        yield ScoreBeside(
            pair, some.task, some.metric, some.family, some.better, values[0], values[1],
            difference, why,
        )  # fmt: skip


def _families(
    first: Side,
    second: Side,
    pairs: Sequence[Pair],
    met: Mapping[tuple[str, str], Mapping[Key, _Met]],
    bank: Bank,
) -> Iterator[FamilyBeside]:
    groups: dict[tuple[object, ...], list[Pair]] = defaultdict(list)
    for p in pairs:
        if not p.first.untrained:
            cell = p.first.base, p.first.corpus, p.first.amount, p.second.amount, p.first.feedback
            groups[cell].append(p)
    names: tuple[FamilyName, ...] = ("style", *MEANS)
    for own in groups.values():
        pair = own[0]
        known = {
            f: (_summary(first, pair.first, f), _summary(second, pair.second, f)) for f in names
        }
        if not any(known["supported"]):
            del known["unsupported"]  # the same as capability
        for family, (one, other) in known.items():
            if one is not None or other is not None:
                yield FamilyBeside(pair, family, one, other, _mean(own, family, met, bank))


def _summary(side: Side, s: Subject, family: FamilyName) -> Summary | None:
    cell = s.base, s.corpus or "", s.amount, s.feedback, family
    return next(
        (x for x in side.summaries if (x.base, x.corpus, x.amount, x.feedback, x.family) == cell),
        None,
    )


def _mean(
    pairs: Sequence[Pair],
    family: FamilyName,
    met: Mapping[tuple[str, str], Mapping[Key, _Met]],
    bank: Bank,
) -> Interval:
    """Second minus first of the mean over the tasks that both have, seeds averaged."""
    if family == "style":
        return _nothing("style has no mean in a unit; see its metrics")
    supports = pairs[0].first.supports
    tables: list[dict[int, dict[str, Score]]] = [{}, {}]
    for p in pairs:
        both = {
            name_of(k): m
            for k, m in met[p.first.model, p.second.model].items()
            if isinstance(m, tuple) and counts(m[0], family, supports)
        }
        for side in (0, 1):
            tables[side][p.first.seed] = {name: m[side] for name, m in both.items()}
    columns = [Column(t, line) for t, line in zip(tables, ("first", "second"), strict=True)]
    return Panel(columns, bank).contrast([-1.0, 1.0]).interval


def _verdicts(
    first: Sequence[Verdict], second: Sequence[Verdict]
) -> Iterator[tuple[str, Verdict | None, Verdict | None]]:
    left, right = ({v.base: v for v in own} for own in (first, second))
    for base in dict.fromkeys([*left, *right]):
        yield base, left.get(base), right.get(base)


def _remarks(
    pairs: Sequence[Pair], met: Mapping[tuple[str, str], Mapping[Key, _Met]]
) -> Iterator[str]:
    if not any(not p.first.untrained for p in pairs):
        yield "The two have no student in common: no base and corpus of the same names."
    for p in pairs:
        moved = [
            name_of(key)
            for key, m in met[p.first.model, p.second.model].items()
            if p.first.untrained and isinstance(m, tuple)
            and any(m[0].values[i] != m[1].values[i] for i in m[0].values)
        ]  # fmt: skip
        if moved:
            yield (
                f"{p.first.base} as it came does not score the same in both ({', '.join(moved)}): "
                "its weights, the software or the machine differ, and so may all scores."
            )


def _nothing(why: str) -> Interval:
    return Interval(None, None, None, 0, why)
