"""The report's numbers and texts as CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple
from pathlib import Path

from epigone.files import write_text
from epigone.findings import Subject
from epigone.report.findings_tables import findings_tables
from epigone.report.findings_tables import interval_cells as _cells
from epigone.report.findings_tables import interval_names as _interval_names
from epigone.report.text import csv_cell
from epigone.report.view import ReportView
from epigone.schema import Interval

_SUBJECT = ["base", "corpus", "amount", "seed"]
_SAMPLE = ["source", "item", "role", "model", "stop", "note", "text"]


def write_tables(view: ReportView, folder: Path) -> list[str]:
    """Write the tables into `folder`; their file names are returned.

    Text that a spreadsheet would take for a formula starts with an apostrophe.
    """
    tables: dict[str, tuple[Sequence[str], Iterable[Sequence[object]]]] = {
        "scores.csv": (
            [
                *("model", *_SUBJECT, "task", "metric", "family", "better"),
                *(*_interval_names("value"), "method"),
            ],
            _scores(view),
        ),
        "gaps.csv": (
            [
                *("model", *_SUBJECT, "task", "metric", "family", "better"),
                *("untrained", "student", "teacher", "teacher_source", "teacher_method"),
                *(*_interval_names("change"), "detectable", *_interval_names("closed")),
            ],
            _gaps(view),
        ),
        **findings_tables(view.findings),
        "selection.csv": (
            [
                *("base", "chosen", "random", "amount", "seed", "task", "metric", "better"),
                *("random_value", "value", *_interval_names("change")),
            ],
            _selection(view),
        ),
        "reported.csv": (
            ["model", "task", "metric", "reported", "measured", "source", "note"],
            (astuple(r) for r in view.beside),
        ),
        "preference.csv": (_PREFERENCE, _preferences(view)),
        "strength.csv": (
            ["rater", "model", *_interval_names("strength")],
            ([rater, s.model, *_cells(s.strength)] for rater, s in view.judged.strengths),
        ),
        "fooled.csv": (_FOOLED, _fooled(view)),
        "wrong.csv": (["rater", "model", "against", "item", "the_other"], _wrong(view)),
        "samples.csv": (_SAMPLE, _samples(view)),
        "training.csv": (
            [
                *("base", "corpus", "seed", "run", "branch", "step", "supervised_seen"),
                *("loss", "lr", "gradient_norm", "kl"),
            ],
            _training(view),
        ),
        "steps.csv": (
            ["stage", "name", "state", "seconds", "dollars", "hash", "note"],
            _steps(view),
        ),
    }
    for name, (header, rows) in tables.items():
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([csv_cell(c) for c in row] for row in rows)
        write_text(folder / name, text.getvalue())
    return list(tables)


def _steps(view: ReportView) -> Iterator[Sequence[object]]:
    for s in view.steps:
        yield [s.stage, s.name, s.state, s.seconds, s.dollars, s.hash, s.note]


def _scores(view: ReportView) -> Iterator[Sequence[object]]:
    for r in view.findings.values:
        who = [r.model, *_subject(r.subject)]
        yield [*who, r.task, r.metric, r.family, r.better, *_cells(r.value), r.method]


def _gaps(view: ReportView) -> Iterator[Sequence[object]]:
    for r in view.findings.gaps:
        yield [
            r.subject.model,
            *_subject(r.subject),
            r.task,
            r.metric,
            r.family,
            r.better,
            r.base,
            r.student,
            r.teacher.value,
            r.teacher.source,
            r.teacher.method,
            *_cells(r.change),
            r.detectable,
            *_cells(r.closed),
        ]


def _selection(view: ReportView) -> Iterator[Sequence[object]]:
    for r in view.selected:
        yield [
            *(r.subject.base, r.subject.corpus, r.at_random.corpus, r.subject.amount),
            *(r.subject.seed, r.task, r.metric, r.better, r.random_value, r.value),
            *_cells(r.change),
        ]


def _preferences(view: ReportView) -> Iterator[Sequence[object]]:
    unknown = Interval(None, None, None, 0)
    for c in view.judged.pairs:
        p, o = c.preference, c.orders
        yield [
            *(c.rater, p.model, p.against, *_cells(p.win_rate), *_cells(c.controlled.win_rate)),
            *_cells(p.equal_or_better),
            *(p.raters, p.asked, p.missing, p.same, o.flips, o.both, o.first, c.longer, c.longer_n),
            *_cells(c.controlled.slope),
            *_cells(c.wrong.share if c.wrong else unknown),
            *((len(c.wrong.other_right), len(c.wrong.other_wrong)) if c.wrong else ("", "")),
        ]


def _fooled(view: ReportView) -> Iterator[Sequence[object]]:
    unknown = Interval(None, None, None, 0)
    for f in view.fooled:
        c = f.corrected
        beside = (c.gain, c.explained, c.by_correctness, c.correctness) if c else [unknown] * 4
        told = (f.gain, f.explained, f.left, f.without, f.held, f.style, f.length, *beside)
        yield [
            *(f.rater, f.base, f.model),
            *(cell for interval in told for cell in _cells(interval)),
            *(" ".join(f.metrics), len(f.wrong), f.styled, f.compared),
        ]


def _wrong(view: ReportView) -> Iterator[Sequence[object]]:
    for c in view.judged.pairs:
        if c.wrong is None:
            continue
        for item in c.wrong.items:
            right, wrong = item in c.wrong.other_right, item in c.wrong.other_wrong
            other = "right" if right else "wrong" if wrong else ""
            yield [c.rater, c.preference.model, c.preference.against, item, other]


def _samples(view: ReportView) -> Iterator[Sequence[object]]:
    for item in view.items:
        named = [item.source or "held-out", item.id]
        for message in item.prompt:
            yield [*named, f"prompt: {message.role}", "", "", "", message.content]
        if item.reference:
            yield [*named, "reference", "", "", "", item.reference]
        if item.answer is not None:
            yield [*named, "teacher", view.teacher.name, "", "", item.answer]
        for o in item.outputs:
            yield [*named, "output", o.model, o.stop, o.note, o.text]


def _training(view: ReportView) -> Iterator[Sequence[object]]:
    for t in view.trunks:
        for curve in t.curves:
            for p in curve.points:
                yield [
                    *(t.base, t.line, t.seed, t.name, curve.branch, p.last, p.seen),
                    *(p.loss, p.lr, p.gradient_norm, p.kl),
                ]


def _subject(subject: Subject | None) -> list[object]:
    if subject is None:
        return [""] * len(_SUBJECT)
    return [subject.base, subject.corpus or "", subject.amount, subject.seed]


_PREFERENCE = [
    *("rater", "model", "against", *_interval_names("win_rate")),
    *_interval_names("length_controlled"),
    *_interval_names("equal_or_better"),
    *("raters", "ratings", "missing", "same_text", "flips", "both_orders", "first_place_share"),
    *("longer_wins", "longer_n", *_interval_names("length_slope")),
    *_interval_names("preferred_but_wrong"),
    *("wrong_while_the_other_is_right", "wrong_as_the_other_is"),
]
_FOOLED = [
    *("rater", "base", "model"),
    *(
        cell
        for name in (
            *("gain", "explained", "left", "log_odds_without", "log_odds_held", "style", "length"),
            *("known_gain", "known_explained", "by_correctness", "correctness"),
        )
        for cell in _interval_names(name)
    ),
    *("style_metrics", "preferred_but_wrong", "wrong_with_more_style", "wrong_with_known_style"),
]
