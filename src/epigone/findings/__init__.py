"""Scores to gaps, intervals, marginal value of data and base, and the verdict. Pure: no I/O."""

from __future__ import annotations

from epigone.findings.analyse import analyse
from epigone.findings.compare import (
    Comparison,
    FamilyBeside,
    Pair,
    ScoreBeside,
    Side,
    compare,
)
from epigone.findings.fooled import Corrected, Fooled, fooled
from epigone.findings.gaps import change, detectable, gap_closed, value_interval
from epigone.findings.judged import Compared, Judged, judged
from epigone.findings.length_control import LengthControlled, length_controlled
from epigone.findings.model import (
    Base,
    DataOrBase,
    Findings,
    GapRow,
    LocalBroad,
    Missing,
    Selected,
    Sentence,
    SizeTrend,
    Subject,
    Summary,
    TeacherValue,
    Trend,
    ValueRow,
    Verdict,
)
from epigone.findings.preference import (
    Orders,
    Preference,
    PreferredButWrong,
    by_item,
    cells,
    counted,
    longer_wins,
    orders,
    preferred,
    preferred_but_wrong,
    win_scores,
)
from epigone.findings.selection import selected
from epigone.findings.shares import ratio_interval
from epigone.findings.strengths import Strength, bradley_terry

__all__ = [
    "Base",
    "Compared",
    "Comparison",
    "Corrected",
    "DataOrBase",
    "FamilyBeside",
    "Findings",
    "Fooled",
    "GapRow",
    "Judged",
    "LengthControlled",
    "LocalBroad",
    "Missing",
    "Orders",
    "Pair",
    "Preference",
    "PreferredButWrong",
    "ScoreBeside",
    "Selected",
    "Sentence",
    "Side",
    "SizeTrend",
    "Strength",
    "Subject",
    "Summary",
    "TeacherValue",
    "Trend",
    "ValueRow",
    "Verdict",
    "analyse",
    "bradley_terry",
    "by_item",
    "cells",
    "change",
    "compare",
    "counted",
    "detectable",
    "fooled",
    "gap_closed",
    "judged",
    "length_controlled",
    "longer_wins",
    "orders",
    "preferred",
    "preferred_but_wrong",
    "ratio_interval",
    "selected",
    "value_interval",
    "win_scores",
]
