"""The rules that turn numbers into sentences; there are no others.

1. Style: the interval of the mean share closed at the largest amount lies above 0 (moved toward
   the teacher), below 0 (moved away), or holds 0 (cannot tell).
2. Capability: the interval of the mean change at the largest amount, likewise.
3. More data or a better base: the interval of (best other base untrained minus this base
   untrained) minus (gain of the last step of data) lies above 0 with the other base itself ahead
   (better base), below 0 with a gain of data (more data), otherwise cannot tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from epigone.findings.gaps import tells
from epigone.findings.model import Answer, Scaling, Sentence, Summary
from epigone.schema import Interval

_NOTHING = Interval(None, None, None, 0)


def answer(base: str, style: Summary | None, capability: Summary | None) -> str:
    """The style and capability rules' answers in one sentence."""
    moved = style.style_closed if style else _NOTHING
    change = capability.capability_change if capability else _NOTHING
    if moved.value is None and change.value is None:
        return f"Nothing can be said about {base} yet."
    pairs = ((style, moved), (capability, change))
    amounts = [s.amount for s, i in pairs if s and i.value is not None]
    later = f"after {tokens(amounts[-1])} tokens " if amounts[-1] != amounts[0] else ""
    closed = f"{percent(moved.value)} of the gap closed, {_between(moved, percent)}"
    least = "; a lower bound" if style and style.style_is_lower_bound else ""
    how = {
        "up": f"moved toward the teacher in style ({closed}{least})",
        "down": f"moved away from the teacher in style ({closed})",
        "unclear": f"did not measurably move toward the teacher in style ({closed})",
        "missing": "closed an unknown share of the style gap",
    }[_answer(moved)]
    what = {
        "up": f"its capability rose by {_points(change)}",
        "down": f"its capability fell by {_points(change)}",
        "unclear": f"its capability did not measurably change ({_points(change)})",
        "missing": "its change in capability is not known",
    }[_answer(change)]
    alike = (_answer(moved), _answer(change)) in (("up", "up"), ("down", "down"))
    link = "and" if alike else "while"
    first = style if style and moved.value is not None else capability
    return f"After {_training(first)}, {base} {how}, {link} {later}{what}."


def latest(summaries: Sequence[Summary], family: Literal["style", "capability"]) -> Summary | None:
    """The summary that a family's sentence is about: of the largest amount with a number for it.

    The largest amount's where none has a number; None where there is no summary.
    """

    def measured(s: Summary) -> bool:
        interval = s.style_closed if family == "style" else s.capability_change
        return interval.value is not None

    return max(summaries, key=lambda s: (measured(s), s.amount), default=None)


def style(base: str, summary: Summary | None) -> Sentence:
    """Rule 1."""
    if summary is None or summary.style_closed.value is None:
        why = "not measured yet" if summary is None else summary.style_closed.note
        text = f"Whether the style of {base} moved toward the teacher cannot be told: {why}."
        return Sentence("style", "missing", "Style: cannot tell", text)
    interval = summary.style_closed
    answer = _answer(interval)
    shown = f"{percent(interval.value)} ({_between(interval, percent)})"
    least = ""
    if summary.style_is_lower_bound and answer == "up":
        # What a second answer of the teacher would score, a smaller gap to close, is not known.
        least = "; a lower bound, since the gap is taken up to identical answers"
    over = f"the mean of {', '.join(summary.style_metrics)}"
    if interval.note:
        over += f" ({interval.note})"
    text, headline = {
        "up": (
            f"{_what(summary)} moved the style of {base} toward the teacher: {shown} of the gap "
            f"closed with {_with(summary)}, {over}{least}.",
            "Style moved toward the teacher",
        ),
        "down": (
            f"{_what(summary)} did not move the style of {base} toward the teacher but away from "
            f"it: {shown} of the gap closed with {_with(summary)}, {over}.",
            "Style moved away from the teacher",
        ),
        "unclear": (
            f"Whether the style of {base} moved toward the teacher cannot be told: {shown} of "
            f"the gap closed with {_with(summary)}, {over}.",
            "Style: cannot tell",
        ),
    }[answer]
    return Sentence("style", answer, headline, text, interval)


def capability(base: str, summary: Summary | None) -> Sentence:
    """Rule 2."""
    if summary is None or summary.capability_change.value is None:
        why = "not measured yet" if summary is None else summary.capability_change.note
        text = f"Whether the capability of {base} changed cannot be told: {why}."
        return Sentence("capability", "missing", "Capability: cannot tell", text)
    interval = summary.capability_change
    answer = _answer(interval)
    size = summary.capability_detectable
    sees = "" if size is None else f"; this study can see changes of {points(size, False)} or more"
    shown = f"{points(interval.value)} ({_between(interval, points)}){sees}"
    after = f"with {_with(summary)}"
    text, headline = {
        "up": (f"Its capability rose {after}: {shown}.", "Capability rose"),
        "down": (f"Its capability fell {after}: {shown}.", "Capability fell"),
        "unclear": (
            f"Its change in capability {after} cannot be told from none: {shown}.",
            "Capability: no measurable change",
        ),
    }[answer]
    return Sentence("capability", answer, headline, text, interval)


def scaling(base: str, found: Scaling | None) -> Sentence:
    """Rule 3."""
    if found is None or found.data_gain.value is None:
        text = (
            f"Whether more data or a better base would buy more than {base} has: not measured yet."
        )
        return Sentence("scaling", "missing", "More data or a better base: cannot tell", text)
    step = (
        f"the last step of data ({tokens(found.previous)} to {tokens(found.amount)} tokens) gave "
        f"{points(found.data_gain.value)} ({_between(found.data_gain, points)})"
    )
    difference, contrast = found.base_difference, found.contrast
    if difference is None or contrast is None or difference.value is None:
        text = f"More data or a better base: {step}; no other base was measured to compare with."
        return Sentence("scaling", "missing", "Better base: not measured", text, found.data_gain)
    other = (
        f"{found.other}, untrained, scores {points(difference.value)} against {base}, untrained "
        f"({_between(difference, points)})"
    )
    answer: Answer = "unclear"
    lead, headline = "Whether more data or a better base buys more cannot be told", "cannot tell"
    if _answer(contrast) == "up" and _answer(difference) == "up":
        answer, lead, headline = "up", "A better base buys more than more data", "a better base"
    elif _answer(contrast) == "down" and _answer(found.data_gain) == "up":
        answer, lead, headline = "down", "More data buys more than the other base", "more data"
    elif _answer(difference) == "down" and _answer(found.data_gain) != "up":
        lead = f"{base} is already the better base, and more data shows no gain"
        headline = "neither seen to help"
    text = f"{lead}: {step}, while {other}."
    return Sentence("scaling", answer, f"More data or a better base: {headline}", text, contrast)


def no_scaling(base: str) -> Sentence:
    """Rule 3 where feedback came last: it is no step of data."""
    text = (
        f"Whether more data or a better base would buy more than {base} has is told by its "
        "students without feedback."
    )
    return Sentence("scaling", "missing", "Better base: see without feedback", text)


def unfinished(missing: int, students: int, amount: int, largest: int) -> str:
    """What the verdict does not yet rest on, as one sentence; empty where all is there."""
    parts = []
    if amount < largest:
        parts.append(f"the largest amount measured is {tokens(amount)} of {tokens(largest)} tokens")
    if missing:
        parts.append(f"{missing} of {students} students lack scores")
    return f"Not finished: {' and '.join(parts)}." if parts else ""


def _with(summary: Summary) -> str:
    """What a student was given."""
    if not summary.amount:
        return "feedback alone"
    return f"{tokens(summary.amount)} tokens" + (" and feedback" if summary.feedback else "")


def _training(summary: Summary | None) -> str:
    given = _with(summary) if summary else "training"
    return given.replace(" tokens", " tokens of imitation", 1)


def _what(summary: Summary) -> str:
    if not summary.feedback:
        return "Imitation"
    return "Imitation and feedback" if summary.amount else "Feedback"


def _answer(interval: Interval) -> Answer:
    if interval.value is None:
        return "missing"
    if not tells(interval):
        return "unclear"
    return "up" if interval.value > 0 else "down"


def _points(interval: Interval) -> str:
    # "fell by" already carries the sign; the bounds keep theirs.
    value = interval.value or 0.0
    shown = points(abs(value), False) if tells(interval) else points(value)
    return f"{shown}, {_between(interval, points)}"


def percent(value: float | None) -> str:
    """A share as a percentage with no decimals and a true minus sign."""
    return "not known" if value is None else _sign(f"{100 * value:.0f}%")


def points(value: float | None, signed: bool = True) -> str:
    """A difference of shares in points with one decimal."""
    if value is None:
        return "not known"
    return _sign(f"{100 * value:+.1f} points" if signed else f"{100 * value:.1f} points")


def tokens(amount: int) -> str:
    """An amount of tokens, short: 8k, 1.5M, or untrained's 0."""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if amount >= size:
            return f"{amount / size:.1f}".removesuffix(".0") + unit
    return str(amount)


def _sign(text: str) -> str:
    return (
        text.replace("-", "\N{MINUS SIGN}")
        if float(text.split()[0].rstrip("%"))
        else (text.lstrip("+-"))
    )


def _between(interval: Interval, show: Callable[[float | None], str]) -> str:
    if interval.low is None or interval.high is None:
        return "no interval: " + (interval.note or "too few items")
    low = show(interval.low).removesuffix(" points")
    return f"95% interval {low} to {show(interval.high)}"
