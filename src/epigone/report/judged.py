"""What judges and people prefer: the rows, charts and sentences of their section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import altair as alt

from epigone.findings import Fooled, Subject
from epigone.findings.explained import FEW, NO_GAIN
from epigone.findings.judged import PEOPLE, Compared
from epigone.findings.verdict import percent, points
from epigone.raters.agreement import JudgeAgreement
from epigone.report.charts import PALETTE, config
from epigone.report.examples import keys_of
from epigone.report.text import bounds, signed, visible
from epigone.report.view import ReportView
from epigone.schema import Interval

# Links to examples of one model; the table has them all.
_LINKS = 8
_WORDS = 60
_ROW = 34
# What a chart of win rates shows of a model, with its colour and shape.
KINDS = (("as judged", PALETTE[0], "circle"), ("at equal length", PALETTE[1], "square"))


@dataclass(frozen=True, slots=True)
class Trust:
    """How far a judge, or the people, can be trusted, over all its comparisons."""

    rater: str
    people: bool
    comparisons: int
    asked: int
    missing: int
    flips: int
    both: int
    first: float | None
    longer: float | None
    beside: JudgeAgreement | None


@dataclass(frozen=True, slots=True)
class Drawn:
    """One chart: its specification and the same in words."""

    id: str
    title: str
    note: str
    summary: str
    spec: dict[str, Any]
    length: bool


@dataclass(frozen=True, slots=True)
class Example:
    """A link to one example."""

    href: str
    words: str


@dataclass(frozen=True, slots=True)
class Wrong:
    """Where a model is preferred and its answer is wrong; `more` examples have no link here."""

    compared: Compared
    fooled: Fooled | None
    examples: tuple[Example, ...]
    more: int


@dataclass(frozen=True, slots=True)
class Said:
    """A student's row of what a gain in preference goes with, and the row in words.

    `most` is where no student of its base and corpus saw more.
    """

    row: Fooled
    sentence: str
    most: bool


@dataclass(frozen=True, slots=True)
class Section:
    """Everything in the section."""

    pairs: tuple[Compared, ...]
    among: tuple[Compared, ...]
    trust: tuple[Trust, ...]
    charts: tuple[Drawn, ...]
    said: tuple[Said, ...]
    wrong: tuple[Wrong, ...]
    pending: tuple[str, ...]

    @property
    def shown(self) -> bool:
        """Whether anything was judged, or is to be."""
        return bool(self.pairs or self.among or self.pending)


def section(view: ReportView) -> Section:
    """What the section holds; it is empty where nobody judged, nor was asked to."""
    order = {s.model: k for k, s in enumerate(view.subjects)}
    with_teacher = sorted(
        (c for c in view.judged.pairs if c.preference.against == view.teacher.name),
        key=lambda c: (c.rater, order.get(c.preference.model, len(order))),
    )
    raters = list(dict.fromkeys(c.rater for c in view.judged.pairs))
    told = [s for s in view.subjects if s.model in {f.model for f in view.fooled}]
    largest = {_line(s): max(t.amount for t in told if _line(t) == _line(s)) for s in told}
    most = {s.model for s in told if s.amount == largest[_line(s)]}
    keys = keys_of(view.items)
    # Benchmarks have items of their own, which nobody compared.
    prompts = {
        i.id: Example(example(keys[id(i)]), _short(i.prompt[-1].content if i.prompt else i.id))
        for i in view.items
        if not i.source
    }
    return Section(
        tuple(with_teacher),
        tuple(c for c in view.judged.pairs if c not in with_teacher),
        tuple(_trust(view, rater) for rater in raters),
        tuple(_charts(view, with_teacher)),
        tuple(Said(row, sentence(row), row.model in most) for row in view.fooled),
        tuple(_wrong(view, c, prompts) for c in with_teacher if c.wrong and c.wrong.items),
        tuple(_pending(view)),
    )


def _line(subject: Subject) -> tuple[str, str | None]:
    return subject.base, subject.corpus


def named(rater: str) -> str:
    """A judge by its name, and the people."""
    return "People" if rater == PEOPLE else rater


def bare(value: float | None) -> str:
    """A difference of shares in points, where the unit stands above it."""
    return points(value).removesuffix(" points")


def sentence(row: Fooled) -> str:
    """What one student's row says, in plain words."""
    gain, share = row.gain, row.explained
    if gain.value is None:
        return "It was not compared with the teacher on the same prompts as its base."
    moved = "more" if gain.value > 0 else "less"
    size = points(abs(gain.value), signed=False)
    told = f"It beats the teacher {size} {moved} often than its base{_span(gain, points)}"
    if gain.value == 0:
        told = f"It beats the teacher as often as its base{_span(gain, points)}"
    if share.value is None:
        return f"{told}. {_why_not(share.note)}"
    of = "gain" if gain.value > 0 else "loss"
    what = f"that {of} goes with style and length"
    best, span = percent(share.value), _span(share, percent)
    if share.low is not None and share.high is not None and share.low <= 0 and share.high >= 1:
        verdict = f"How much of {what} cannot be told{span}."
    elif share.value >= 1:
        verdict = f"All of {what}: an estimate of {best}{span}."
    elif share.value <= 0:
        verdict = f"None of {what}: an estimate of {best}{span}."
    else:
        verdict = f"About {best} of {what}{span}."
    beside = row.corrected
    if beside is not None and beside.by_correctness.value is not None:
        verdict += (
            f" Where answers are known to be right or wrong, {percent(beside.by_correctness.value)}"
            f" goes with being right{_span(beside.by_correctness, percent)}."
        )
    notes = [n for n in share.note.split("; ") if n]
    return " ".join([f"{told}.", verdict, *(f"{n[0].upper()}{n[1:]}." for n in notes)])


def _why_not(note: str) -> str:
    if note == NO_GAIN:
        return "That cannot be told from no gain, so there is nothing to explain."
    if note == FEW:
        return f"That is {FEW}: too few to say what it goes with."
    return f"What it goes with is not known: {note}."


def _span(interval: Interval, show: Any) -> str:
    told = bounds(interval, show).replace(" points to ", " to ")
    return f" (95% interval {told})" if told else ""


def _trust(view: ReportView, rater: str) -> Trust:
    own = [c for c in view.judged.pairs if c.rater == rater]

    def mean(values: Sequence[tuple[float | None, int]]) -> float | None:
        known = [(v, n) for v, n in values if v is not None]
        total = sum(n for _, n in known)
        return sum(v * n for v, n in known) / total if total else None

    return Trust(
        rater,
        rater == PEOPLE,
        sum(c.preference.win_rate.n for c in own),
        sum(c.preference.asked for c in own),
        sum(c.preference.missing for c in own),
        sum(c.orders.flips for c in own),
        sum(c.orders.both for c in own),
        mean([(c.orders.first, c.orders.shown) for c in own]),
        mean([(c.longer, c.longer_n) for c in own]),
        next((j for j in view.agreed.judges if j.judge == rater), None),
    )


def _pending(view: ReportView) -> list[str]:
    steps = [s for s in view.steps if s.stage == "judge"]
    left = sum(s.state != "done" for s in steps)
    found = [f"{left} of {len(steps)} of the judge's steps are not done."] if left else []
    return [*found, *([view.rating] if view.rating else [])]


def _wrong(view: ReportView, compared: Compared, prompts: Mapping[str, Example]) -> Wrong:
    items = compared.wrong.items if compared.wrong else ()
    who = compared.rater, compared.preference.model
    return Wrong(
        compared,
        next((f for f in view.fooled if (f.rater, f.model) == who), None),
        tuple(prompts.get(i, Example(example(i), _short(i))) for i in items[:_LINKS]),
        max(0, len(items) - _LINKS),
    )


def example(item: str) -> str:
    """The address of one item among the page's examples."""
    return f"#example={quote(visible(item), safe='')}"


def _short(text: str) -> str:
    text = " ".join(visible(text).split())
    return f"{text[:_WORDS].rstrip()}\N{HORIZONTAL ELLIPSIS}" if len(text) > _WORDS else text


def _charts(view: ReportView, pairs: Sequence[Compared]) -> list[Drawn]:
    found = []
    for k, rater in enumerate(dict.fromkeys(c.rater for c in pairs)):
        own = [c for c in pairs if c.rater == rater]
        rows = [(c.preference.model, [c.preference.win_rate, c.controlled.win_rate]) for c in own]
        spec, words = _forest(
            rows,
            [name for name, _, _ in KINDS],
            percent,
            (0.5, "as good as the teacher"),
            share=True,
        )
        title = f"Win rate against the teacher: {named(rater)}"
        found.append(Drawn(f"judged-{k}", title, "a tie is half a win", words, spec, True))
        strengths = [s for who, s in view.judged.strengths if who == rater]
        of = [(s.model, [s.strength]) for s in strengths if s.model != view.teacher.name]
        if len(of) > 1:
            spec, words = _forest(of, ("strength",), signed, (0.0, "the teacher"))
            title = f"Strength: {named(rater)}"
            note = "log-odds of winning against the teacher, from all comparisons"
            found.append(Drawn(f"strength-{k}", title, note, words, spec, False))
    return found


def _forest(
    rows: Sequence[tuple[str, Sequence[Interval]]],
    kinds: Sequence[str],
    show: Any,
    mark: tuple[float, str],
    share: bool = False,
) -> tuple[dict[str, Any], str]:
    """A row a model with its intervals, the names above them: names beside a chart would take half
    of a phone's screen."""
    height = _ROW * len(rows)
    y = alt.Y("row:Q", axis=None, scale=alt.Scale(domain=[0, len(rows)], reverse=True, nice=False))
    ends = [v for _, own in rows for i in own for v in (i.value, i.low, i.high) if v is not None]
    domain = [0, 1] if share else [min(-1.0, *ends), max(1.0, *ends)]
    scale = alt.Scale(domain=domain, nice=not share)
    axis = alt.Axis(format=".0%") if share else alt.Axis()
    x = alt.X("value:Q", title=None, scale=scale, axis=axis)
    at, label = mark
    middle = alt.Chart(alt.InlineData([{"value": at, "label": label}]))
    names = [{"row": k + 0.42, "name": visible(name)} for k, (name, _) in enumerate(rows)]
    layers: list[Any] = [
        middle.mark_rule(color="currentColor", strokeDash=[5, 4], opacity=0.6).encode(
            x=x, tooltip=alt.Tooltip("label:N", title="Line")
        ),
        alt.Chart(alt.InlineData(names))
        .mark_text(color="currentColor", align="left", baseline="bottom", opacity=0.85)
        .encode(x=alt.value(0), y=y, text="name:N"),
    ]
    words = []
    for n, kind in enumerate(kinds):
        points_of = []
        for k, (name, intervals) in enumerate(rows):
            i = intervals[n]
            if i.value is not None:
                points_of.append(
                    {
                        "row": k + 0.62 + 0.2 * n,
                        "value": i.value,
                        "low": i.low,
                        "high": i.high,
                        "model": visible(name),
                        "kind": kind,
                        "shown": show(i.value),
                        "interval": bounds(i, show) or "none",
                        "items": i.n,
                    }
                )
        layers += _points(points_of, *KINDS[n][1:], x, y)
        told = "; ".join(f"{p['model']} {p['shown']}, interval {p['interval']}" for p in points_of)
        words.append(f"{kind}: {told or 'not known'}")
    spec: dict[str, Any] = (
        alt.layer(*layers).properties(width="container", height=height).to_dict(validate=False)
    )
    spec.pop("$schema")
    spec["config"] = config()
    return spec, ". ".join(words)


def _points(
    rows: Sequence[dict[str, Any]], colour: str, shape: str, x: alt.X, y: alt.Y
) -> list[Any]:
    tip = [
        alt.Tooltip(f"{field}:N", title=title)
        for field, title in (
            ("model", "Model"),
            ("kind", "What"),
            ("shown", "Value"),
            ("interval", "95% interval"),
            ("items", "Items"),
        )
    ]
    layers = []
    if bars := [r for r in rows if r["low"] is not None and r["high"] is not None]:
        rule = alt.Chart(alt.InlineData(bars)).mark_rule(color=colour, strokeWidth=2, opacity=0.5)
        layers.append(rule.encode(x=alt.X("low:Q", title=None), x2="high:Q", y=y))
    if rows:
        dot = alt.Chart(alt.InlineData(list(rows))).mark_point(
            color=colour, fill=colour, shape=shape, size=58, opacity=1
        )
        layers.append(dot.encode(x=x, y=y, tooltip=tip))
    return layers
