"""Slopes in words: what a doubling of the data gives, and what it would take."""

from __future__ import annotations

from collections.abc import Callable

from epigone.findings import SizeTrend, Trend
from epigone.findings.scaling import BEYOND, FARTHEST, MATCHED, NOT_ABOVE, NOT_BELOW, NOT_TOWARD
from epigone.findings.verdict import points, tokens
from epigone.report.text import bounds, signed
from epigone.schema import Direction, Interval

_SHAPES = {
    "saturating": "levels off",
    "straight": "goes on straight",
    "unclear": "levels off: cannot tell",
    "too few amounts": "",
}


def shown_in(family: str) -> Callable[[float | None], str]:
    """How differences of a family's metrics are written: shares in points."""
    return points if family in ("capability", "supported", "unsupported") else signed


def trend_words(trend: Trend, better: Direction = "higher") -> str:
    """A trend as one sentence without its line's name."""
    show = shown_in(trend.family)
    if trend.slope.value is None:
        return f"no slope: {trend.slope.note or 'not known'}"
    parts = [_valued(trend.slope, show)]
    if better == "zero":
        parts += [NOT_TOWARD] if trend.why == NOT_TOWARD else []
    elif trend.slope.low is not None and not _rises(trend.slope, better):
        parts.append(NOT_ABOVE if better == "higher" else NOT_BELOW)
    shape = _SHAPES[trend.shape]
    if trend.half is not None and trend.half.value is not None:
        shape += f", half of the gain by {tokens(round(trend.half.value))} tokens"
    need = trend.needed
    parts += [shape] if shape else []
    if need is not None and need.value is not None:
        times = need.value / trend.amounts[-1]
        parts.append(
            f"at this slope {tokens(round(need.value))} tokens would match the teacher, "
            f"{times:.1f} times all there is ({_span(need)})"
        )
    elif trend.why in (MATCHED, BEYOND):
        told = "matching the teacher would take " if trend.why == BEYOND else ""
        parts.append(told + trend.why)
    return "; ".join(parts)


def _rises(slope: Interval, better: Direction) -> bool:
    """Whether a slope is toward the better for certain."""
    if slope.low is None or slope.high is None:
        return False
    return slope.low > 0 if better == "higher" else slope.high < 0


def _span(need: Interval) -> str:
    if need.low is None:
        return "no interval"
    if need.high is None:
        return f"95% interval {tokens(round(need.low))} to more than {FARTHEST} times that amount"
    return f"95% interval {tokens(round(need.low))} to {tokens(round(need.high))}"


def size_words(trend: SizeTrend) -> str:
    """A slope against size as one sentence without its line's name."""
    show = shown_in(trend.family)
    if trend.slope.value is None:
        return f"no slope: {trend.slope.note or 'not known'}"
    per = "" if trend.by == "parameters" else " for 0.1 bits a byte less loss"
    return f"{_valued(trend.slope, show)}{per}"


def _valued(interval: Interval, show: Callable[[float | None], str]) -> str:
    between = bounds(interval, show).replace(" points", "")
    told = between or f"no interval: {interval.note or 'not known'}"
    return f"{show(interval.value)} [{told}]"
