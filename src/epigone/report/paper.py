"""Tables 1 and 2 of the paper in a study's numbers, with the paper's beside them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from epigone.findings import GapRow, ValueRow
from epigone.findings.resample import PUBLISHED
from epigone.findings.verdict import percent, points, tokens
from epigone.report.text import bounds, number, signed
from epigone.report.view import ReportView
from epigone.study.publications import paper
from epigone.study.published import Published, PublishedFile

NQ = ("nq_open", "exact_match")
# The rows of table 2, and in what ours is another measure than the paper's.
STYLE: Mapping[tuple[str, str], str] = {
    ("", "list"): "what is a list is told by rules of ours, which need not be the paper's",
    ("", "summary"): "what is a summary is told by rules of ours, which need not be the paper's",
    ("", "unigram"): "ours is 200 |A and B| / (|A| + |B|) of words; the paper's is not defined",
    ("", "length"): "ours counts words; the paper's table names no unit",
    ("judge", "tone"): "another judge and another wording than the paper's GPT-4",
}
OF_NQ = "asked with three fixed examples and marked by rules of ours, which need not be the paper's"
_MIX, _LOCAL = "sharegpt-mix", "nq-synthetic"


@dataclass(frozen=True, slots=True)
class Cell:
    """A number as it is shown, and lines below it; without a number a hole."""

    value: str = ""
    below: tuple[str, ...] = ()
    reported: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A row's name and cells; `paper` where its numbers are the paper's."""

    name: str
    cells: tuple[Cell, ...]
    paper: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the paper: a row a base or a metric; `own` columns are the study's.

    The others are the paper's and stand behind them. `reported` is whether none was measured.
    """

    title: str
    first: str
    heads: tuple[str, ...]
    own: int
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    reported: bool = False


class _Scores:
    """A study's values of one metric, by model; seeds are averaged."""

    def __init__(self, view: ReportView, key: tuple[str, str]) -> None:
        def of(row: ValueRow | GapRow) -> bool:
            return (row.task, row.metric) == key

        self.values = [r for r in view.findings.values if of(r) and r.value.value is not None]
        self.gaps = [r for r in view.findings.gaps if of(r)]
        self.measured = any(r.method != PUBLISHED for r in self.values if r.subject)
        shares = key[1] not in ("unigram", "length")
        self.told: Callable[[float | None], str] = _percent if shares else number
        self.show = _tenths if shares and self.measured else self.told
        self.change = points if shares else signed

    def untrained(self, base: str) -> Cell:
        return self._cell(
            [r for r in self.values if r.subject and r.subject.base == base and r.subject.untrained]
        )

    def amounts(self, base: str, line: str) -> list[int]:
        own = (r.subject for r in self.values if r.subject is not None)
        return sorted({
            s.amount for s in own
            if (s.base, s.corpus) == (base, line) and s.amount and not s.feedback
        })  # fmt: skip

    def student(self, base: str, line: str, amount: int, *, told: bool = False) -> Cell:
        """A student's value; with `told`, its change and the share of the gap below it."""

        def of(row: ValueRow | GapRow) -> bool:
            s = row.subject
            return s is not None and not s.feedback and (s.base, s.corpus, s.amount) == (
                base, line, amount
            )  # fmt: skip

        cell = self._cell([r for r in self.values if of(r)])
        below = self._gap([g for g in self.gaps if of(g)]) if told else ()
        return Cell(cell.value, below, cell.reported)

    def largest(self, base: str, line: str) -> Cell:
        """The student of the largest amount, which is told below it."""
        amounts = self.amounts(base, line)
        if not amounts:
            return Cell()
        cell = self.student(base, line, amounts[-1], told=True)
        return Cell(cell.value, (f"{tokens(amounts[-1])} tokens", *cell.below), cell.reported)

    def teacher(self, base: str) -> Cell:
        known = [g.teacher for g in self.gaps if g.subject.base == base]
        known = known or [g.teacher for g in self.gaps]
        if not known or known[0].value is None or known[0].source == "ceiling":
            return Cell()
        reported = known[0].source == "reported"
        return Cell((self.told if reported else self.show)(known[0].value), (), reported)

    def _cell(self, rows: Sequence[ValueRow]) -> Cell:
        if not rows:
            return Cell()
        known = [r.value.value for r in rows if r.value.value is not None]
        if not known:
            return Cell()
        reported = all(r.method == PUBLISHED for r in rows)
        return Cell((self.told if reported else self.show)(fmean(known)), (), reported)

    def _gap(self, rows: Sequence[GapRow]) -> tuple[str, ...]:
        changes = [g.change for g in rows if g.change.value is not None]
        shares = [g.closed.value for g in rows if g.closed.value is not None]
        moved = [c.value for c in changes if c.value is not None]
        told = [self.change(fmean(moved))] if moved else []
        if len(changes) > 1:
            told.append(f"mean of {len(changes)} seeds")
        elif between := "".join(bounds(c, self.change) for c in changes):
            told.append(f"[{between.replace(' points to ', ' to ').removesuffix(' points')}]")
        told += [f"{percent(fmean(shares))} of the gap"] if shares else []
        return tuple(told)


def tables(view: ReportView) -> list[Table]:
    """Table 1 for every benchmark, table 2 for every base and line of broad students."""
    facts = paper()
    return [*_tables1(view, facts), *_tables2(view, facts)]


def _tables1(view: ReportView, facts: PublishedFile) -> Iterable[Table]:
    primary = {(s.task, s.metric) for s in view.scores if s.family == "capability" and s.primary}
    keys = dict.fromkeys((r.task, r.metric) for r in view.findings.values)
    bases = list(dict.fromkeys(s.base for s in view.subjects))
    for key in (k for k in keys if k in primary):
        own = _Scores(view, key)
        lines = [
            line
            for line in sorted(view.kinds, key=lambda line: view.kinds[line] != "broad")
            if any(own.amounts(base, line) for base in bases)
        ]
        rows = []
        for base in bases:
            cells = (own.untrained(base), *(own.largest(base, line) for line in lines))
            if any(c.value for c in cells):
                rows.append(Row(base, (*cells, own.teacher(base))))
        if not lines:
            continue
        heads = [f"{line} ({view.kinds[line]})" for line in lines]
        beside = key == NQ and own.measured
        if beside:
            heads, rows = _with_paper(heads, rows, [view.kinds[line] for line in lines], own, facts)
        kinds = {view.kinds[line] for line in lines}
        which = "broad beside local" if beside or len(kinds) > 1 else kinds.pop()
        yield Table(
            title=f"Table 1: {_title(view, *key)}, {which} imitation",
            first="Base",
            heads=("Untrained", *heads, view.teacher.name),
            own=len(heads) + 2,
            rows=tuple(rows),
            notes=(
                *((f"{_title(view, *key)}: {OF_NQ}",) if beside else ()),
                *_told_with(view, [key]),
            ),
            reported=not own.measured,
        )


def _with_paper(
    heads: list[str], rows: list[Row], kinds: list[str], own: _Scores, facts: PublishedFile
) -> tuple[list[str], list[Row]]:
    """The paper's bases as rows, its two corpora in the first columns of their kinds."""
    heads, kinds = list(heads), list(kinds)
    for name, kind in ((_MIX, "broad"), (_LOCAL, "local")):
        if kind not in kinds:
            heads.append(f"{name} ({kind})")
            kinds.append(kind)
            rows = [Row(r.name, (*r.cells[:-1], Cell(), r.cells[-1]), r.paper) for r in rows]
    told = [r for r in facts.rows if r.metric == "/".join(NQ)]
    teacher = next(Cell(own.told(r.value)) for r in told if r.teacher)
    for base in dict.fromkeys(r.base for r in told if r.base):
        by = {r.corpus: Cell(own.told(r.value), (r.corpus,)) for r in told if r.base == base}
        by[""] = Cell(by[""].value)
        cells = [Cell() for _ in heads]
        for name, kind in ((_MIX, "broad"), (_LOCAL, "local")):
            cells[kinds.index(kind)] = by[name]
        rows.append(Row(base, (by[""], *cells, teacher), paper=True))
    return heads, rows


def _tables2(view: ReportView, facts: PublishedFile) -> Iterable[Table]:
    told: set[tuple[str, str]] = set()
    for base in dict.fromkeys(s.base for s in view.subjects):
        for line in (name for name, kind in view.kinds.items() if kind == "broad"):
            by = {key: _Scores(view, key) for key in STYLE}
            amounts = sorted({a for own in by.values() for a in own.amounts(base, line)})
            if not amounts:
                continue
            used = {key: own for key, own in by.items() if own.amounts(base, line)}
            beside = any(own.measured for own in used.values())
            rows = []
            for key, own in used.items():
                last = own.amounts(base, line)[-1]
                cells = [own.untrained(base)]
                cells += [own.student(base, line, a, told=a == last) for a in amounts]
                cells.append(own.teacher(base))
                if beside:
                    cells += _papers(key, own, facts.rows)
                rows.append(Row(_title(view, *key), tuple(cells)))
            heads = ["Untrained", *(f"{tokens(a)} tokens" for a in amounts)]
            heads.append("Teacher, second answers")
            yield Table(
                title=f"Table 2: style of {base} on {line} beside the teacher's",
                first="Metric",
                heads=(*heads, *(_heads(facts.rows) if beside else ())),
                own=len(heads),
                rows=tuple(rows),
                notes=(
                    # Once: what our measures are does not differ by base.
                    *(f"{_title(view, *key)}: {STYLE[key]}" for key in used
                      if beside and key not in told),
                    *_told_with(view, used),
                ),
                reported=not beside,
            )  # fmt: skip
            told |= set(used) if beside else set()


def _told_with(view: ReportView, keys: Collection[tuple[str, str]]) -> list[str]:
    """What is told with reported numbers that stand in a table, once each."""
    used = [b for b in view.beside if (b.task, b.metric) in keys and b.measured is None and b.note]
    by: dict[str, list[str]] = {}
    for b in used:
        by.setdefault(b.note, []).append(b.model)
    return [f"{', '.join(dict.fromkeys(models))}: {note}" for note, models in by.items()]


def _style_rows(rows: Iterable[Published], metric: str) -> list[Published]:
    own = [r for r in rows if r.metric == metric]
    return [*sorted((r for r in own if r.base), key=lambda r: r.amount or 0),
            *(r for r in own if r.teacher)]  # fmt: skip


def _papers(key: tuple[str, str], own: _Scores, rows: Iterable[Published]) -> list[Cell]:
    return [Cell(own.told(r.value)) for r in _style_rows(rows, "/".join(filter(None, key)))]


def _heads(rows: Iterable[Published]) -> list[str]:
    own = _style_rows(rows, "list")
    return ["LLaMA" if not r.amount else f"{tokens(r.amount)} tokens" for r in own if r.base] + [
        "ChatGPT, second"
    ]


def _percent(value: float | None) -> str:
    """A share as a percentage of at most one decimal."""
    if value is None:
        return percent(value)
    shown = f"{100 * value:.1f}".removesuffix(".0")
    return shown.replace("-", "\N{MINUS SIGN}") + "%"


def _tenths(value: float | None) -> str:
    """A measured share as a percentage of one decimal."""
    return percent(value) if value is None else points(value, False).replace(" points", "%")


def _title(view: ReportView, task: str, metric: str) -> str:
    known = view.metrics.get(f"{task}/{metric}") or view.metrics.get(metric)
    return known.title if known else f"{task}: {metric.replace('_', ' ')}"
