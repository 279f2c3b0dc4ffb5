"""Summaries, slopes, and what data and bases buy, as rows of CSV files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from epigone.findings import Findings
from epigone.schema import Interval

Table = tuple[Sequence[str], Iterable[Sequence[object]]]
_NOTHING = Interval(None, None, None, 0)


def findings_tables(findings: Findings) -> dict[str, Table]:
    """Header and rows of each table, by its file name."""
    return {
        "summaries.csv": (
            [
                *("base", "corpus", "amount", "feedback", "seeds", "family", "parts"),
                *(*interval_names("estimate"), *interval_names("closed")),
                *("lower_bound", "detectable", "p", "holm_p"),
            ],
            _summaries(findings),
        ),
        "trends.csv": (
            [
                *("base", "corpus", "family", "task", "metric", "amounts"),
                *(*interval_names("slope"), "shape", "levels_off_probability"),
                *(*interval_names("half"), *interval_names("needed"), "why"),
                *(*interval_names("at_twice"), *interval_names("at_ten_times")),
            ],
            _trends(findings),
        ),
        "sizes.csv": (
            [
                *("corpus", "amount", "family", "task", "metric", "by", "bases"),
                *interval_names("slope"),
            ],
            (
                [s.corpus, s.amount, s.family, s.task, s.metric, s.by, " ".join(s.bases),
                 *interval_cells(s.slope)]
                for s in findings.sizes
            ),
        ),
        "bases.csv": (
            ["base", "parameters", "loss"],
            ([b.name, b.parameters, b.loss] for b in findings.bases),
        ),
        "data_or_base.csv": (
            [
                *("base", "corpus", "family", "tasks", "from_amount", "to_amount"),
                *(*interval_names("data_gain"), "other", "other_is_trained"),
                *(*interval_names("base_gain"), *interval_names("base_minus_data")),
                *("base_better", "base_better_per_hour", "data_hours", "base_hours"),
                *("data_dollars", "p", "holm_p"),
            ],
            _choices(findings),
        ),
        "local_broad.csv": (
            [
                *("base", "task", "metric", "local", "local_amount", "broad", "broad_amount"),
                *("untrained", "broad_value", "local_value", "teacher", "teacher_source"),
                *interval_names("broad_change"),
                *(*interval_names("local_change"), *interval_names("local_minus_broad")),
            ],
            _local_broad(findings),
        ),
    }  # fmt: skip


def _summaries(findings: Findings) -> Iterator[Sequence[object]]:
    for s in findings.summaries:
        yield [
            *(s.base, s.corpus, s.amount, s.feedback, " ".join(map(str, s.seeds)), s.family),
            *(" ".join(s.parts), *interval_cells(s.estimate), *interval_cells(s.closed)),
            *(s.lower_bound, s.detectable, s.p, s.adjusted),
        ]


def _trends(findings: Findings) -> Iterator[Sequence[object]]:
    for t in findings.trends:
        twice, ten = (*(i for _, i in t.predicted), _NOTHING, _NOTHING)[:2]
        yield [
            *(t.base, t.corpus, t.family, t.task, t.metric, " ".join(map(str, t.amounts))),
            *(*interval_cells(t.slope), t.shape, t.saturating),
            *(*interval_cells(t.half or _NOTHING), *interval_cells(t.needed or _NOTHING), t.why),
            *(*interval_cells(twice), *interval_cells(ten)),
        ]


def _choices(findings: Findings) -> Iterator[Sequence[object]]:
    for c in findings.data_or_base:
        yield [
            *(c.base, c.corpus, c.family, " ".join(c.tasks), c.previous, c.amount),
            *(*interval_cells(c.data_gain), c.other, c.trained if c.other else ""),
            *interval_cells(c.base_gain or _NOTHING),
            *interval_cells(c.contrast or _NOTHING),
            *(c.base_better, c.base_better_per_hour, c.data_hours, c.base_hours),
            *(c.data_dollars, c.p, c.adjusted),
        ]


def _local_broad(findings: Findings) -> Iterator[Sequence[object]]:
    for r in findings.local_broad:
        yield [
            *(r.base, r.task, r.metric, r.local, r.local_amount, r.broad, r.broad_amount),
            *(r.base_value, r.broad_value, r.local_value, r.teacher.value, r.teacher.source),
            *(*interval_cells(r.broad_change), *interval_cells(r.local_change)),
            *interval_cells(r.difference),
        ]


def interval_names(name: str) -> list[str]:
    """Columns of an interval."""
    return [name, f"{name}_low", f"{name}_high", f"{name}_n", f"{name}_note"]


def interval_cells(interval: Interval) -> list[object]:
    """The cells of these columns."""
    return [interval.value, interval.low, interval.high, interval.n, interval.note]
