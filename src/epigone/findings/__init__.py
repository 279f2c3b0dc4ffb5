"""Scores to gaps, intervals, marginal value of data and base, and the verdict. Pure: no I/O."""

from __future__ import annotations

from epigone.findings.analyse import analyse
from epigone.findings.gaps import change, detectable, gap_closed, value_interval
from epigone.findings.model import (
    Findings,
    GapRow,
    Missing,
    Scaling,
    Selected,
    Sentence,
    Subject,
    Summary,
    TeacherValue,
    ValueRow,
    Verdict,
)
from epigone.findings.selection import selected

__all__ = [
    "Findings",
    "GapRow",
    "Missing",
    "Scaling",
    "Selected",
    "Sentence",
    "Subject",
    "Summary",
    "TeacherValue",
    "ValueRow",
    "Verdict",
    "analyse",
    "change",
    "detectable",
    "gap_closed",
    "selected",
    "value_interval",
]
