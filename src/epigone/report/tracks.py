"""Positions of the verdict's interval bars, in percent of their width."""

from __future__ import annotations

from dataclasses import dataclass

from epigone.schema import Interval

_EDGE = 2.0  # percent kept free at each end, so that marks and labels are not cut


@dataclass(frozen=True, slots=True)
class Track:
    """An interval on a horizontal scale; positions are percentages, None where unknown."""

    dot: float | None
    low: float | None
    high: float | None
    marks: tuple[tuple[float, str], ...]


def style_track(interval: Interval, end: str) -> Track:
    """The share closed, on a scale that holds untrained (0) and the teacher (1)."""
    known = [v for v in (interval.value, interval.low, interval.high) if v is not None]
    low, high = min([0.0, *known]), max([1.0, *known])
    # One wild share must not squeeze the scale that everybody reads.
    low, high = max(low, -0.75), min(high, 1.75)
    return _track(interval, low, high, ((0.0, "untrained"), (1.0, end)))


def change_track(interval: Interval, reach: float) -> Track:
    """A change on a scale that is symmetric around none and holds `reach`."""
    return _track(interval, -reach, reach, ((0.0, "no change"),))


def reach_of(*intervals: Interval | None) -> float:
    """The half-width of a symmetric scale that holds all of the intervals: 5 points or more."""
    bounds = [v for i in intervals if i for v in (i.value, i.low, i.high) if v is not None]
    return max([0.05, *(abs(b) for b in bounds)])


def _track(
    interval: Interval, low: float, high: float, marks: tuple[tuple[float, str], ...]
) -> Track:
    def place(value: float | None) -> float | None:
        if value is None:
            return None
        inside = min(max((value - low) / (high - low), 0.0), 1.0)
        return round(_EDGE + inside * (100 - 2 * _EDGE), 2)

    return Track(
        place(interval.value),
        place(interval.low),
        place(interval.high),
        tuple((place(v) or 0.0, label) for v, label in marks),
    )
