"""The rules that turn numbers into sentences; there are no others.

A sentence claims something where the test behind it has p < 0.05 after Holm's correction over all
the tests behind all sentences of the study, so that the chance of one false claim in the whole
study is at most 5%. Each base has up to four such tests, at the largest measured amounts:

1. Style: the mean share closed by its broad corpus (its local one where there is no broad one) is
   above 0 (moved toward the teacher) or below it (moved away); otherwise cannot tell.
2. Capability: the mean change on tasks that the broad corpus has no examples of; and on those that
   the local corpus has examples of. Each rose, fell, or cannot be told from none.
3. More data or a better base: (gain from the next base) minus (gain from doubling the data) is
   above 0 with the next base itself ahead (a better base), below 0 with a gain of the data (more
   data), otherwise cannot tell; what is ahead and gains nothing for certain is said not to.

Of several broad or local lines of students the first in the study speaks, one without feedback
before one with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from epigone.findings.gaps import tells
from epigone.findings.model import (
    Answer,
    DataOrBase,
    FamilyName,
    Sentence,
    Summary,
    Verdict,
)
from epigone.schema import Interval

LEVEL = 0.05
_NOTHING = Interval(None, None, None, 0)


def verdict(
    base: str,
    broad: str,
    local: str,
    summaries: Sequence[Summary],
    choice: DataOrBase | None,
    note: str = "",
) -> Verdict:
    """Three sentences on a base; `summaries` are its own, after Holm's correction."""
    style_of = latest(summaries, broad or local, "style")
    wide = latest(summaries, broad, "unsupported") if broad else None
    narrow = latest(summaries, local, "supported") if local else None
    return Verdict(
        base,
        broad,
        local,
        answer(base, style_of, wide, narrow),
        (
            style(base, style_of),
            capability(base, wide, narrow, "" if broad else local),
            scaling(base, choice),
        ),
        told(narrow.estimate, narrow.adjusted) if narrow else "missing",
        note,
    )


def told(interval: Interval, adjusted: float | None) -> Answer:
    """What a test says of an estimate."""
    if interval.value is None:
        return "missing"
    if adjusted is None or adjusted >= LEVEL or not tells(interval):
        return "unclear"
    return "up" if interval.value > 0 else "down"


def latest(summaries: Sequence[Summary], corpus: str, family: FamilyName) -> Summary | None:
    """The summary that a sentence is about: of the largest amount with a number for the family.

    The largest amount's where none has a number; None where there is no summary.
    """
    own = [s for s in summaries if (s.corpus, s.family) == (corpus, family)]
    return max(own, key=lambda s: (s.estimate.value is not None, s.amount), default=None)


def answer(base: str, style: Summary | None, wide: Summary | None, narrow: Summary | None) -> str:
    """The answers of rules 1 and 2 in one sentence."""
    known = [s for s in (style, wide, narrow) if s is not None and s.estimate.value is not None]
    if not known:
        return f"Nothing can be said about {base} yet."
    parts = []
    if style in known and style is not None:
        shown = f"{percent(style.estimate.value)} of the gap closed"
        shown += f", {_between(style.estimate, percent)}"
        if style.lower_bound and (style.estimate.value or 0.0) > 0:
            shown += "; a lower bound"
        how = {
            "up": f"{base} moved toward the teacher in style",
            "down": f"{base} moved away from the teacher in style",
        }.get(_answer(style), f"whether {base} moved toward the teacher in style cannot be told")
        parts.append(f"{_given(style)}, {how} ({shown})")
    other = "on other tasks " if narrow in known and wide in known else ""
    for summary, where in ((wide, other), (narrow, f"on {_tasks(narrow)} ")):
        if summary is None or summary not in known:
            continue
        whose = "its capability" if parts else f"{_given(summary)}, the capability of {base}"
        after = ""
        if parts and (summary.corpus, summary.amount) != (known[0].corpus, known[0].amount):
            after = f" with {_given(summary)}"
        parts.append(f"{_moved(summary, f'{whose} {where}'.rstrip())}{after}")
    return f"After {', '.join(parts[:-1])}{', and ' if parts[1:] else ''}{parts[-1]}."


def style(base: str, summary: Summary | None) -> Sentence:
    """Rule 1."""
    if summary is None or summary.estimate.value is None:
        why = "not measured yet" if summary is None else summary.estimate.note
        text = f"Whether the style of {base} moved toward the teacher cannot be told: {why}."
        return Sentence("style", "missing", "Style: cannot tell", text, "plane")
    interval = summary.estimate
    found = _answer(summary)
    shown = f"{percent(interval.value)} ({_between(interval, percent)})"
    least = ""
    if summary.lower_bound and found == "up":
        # What a second answer of the teacher would score, a smaller gap to close, is not known.
        least = "; a lower bound, since the gap is taken up to identical answers"
    over = f"the mean of {listed(summary.parts)}"
    if interval.note and _bounded(interval):
        over += f" ({interval.note})"
    given = f"with {_given(summary)}"
    text, headline = {
        "up": (
            f"{_what(summary)} moved the style of {base} toward the teacher: {shown} of the gap "
            f"closed {given}, {over}{least}.",
            "Style moved toward the teacher",
        ),
        "down": (
            f"{_what(summary)} did not move the style of {base} toward the teacher but away from "
            f"it: {shown} of the gap closed {given}, {over}.",
            "Style moved away from the teacher",
        ),
        "unclear": (
            f"Whether the style of {base} moved toward the teacher cannot be told: {shown} of "
            f"the gap closed {given}, {over}{_corrected(summary)}.",
            "Style: cannot tell",
        ),
    }[found]
    return Sentence("style", found, headline, text, "plane", interval)


def capability(
    base: str, wide: Summary | None, narrow: Summary | None, local: str = ""
) -> Sentence:
    """Rule 2; the answer is of the broad half where there is one."""
    halves = [s for s in (wide, narrow) if s is not None]
    main = next((s for s in halves if s.estimate.value is not None), None)
    if main is None:
        why = f"the task that {local} is for is not measured" if local else "not measured yet"
        why = halves[0].estimate.note if halves else why
        text = f"Whether the capability of {base} changed cannot be told: {why}."
        return Sentence("capability", "missing", "Capability: cannot tell", text, "amounts")
    parts: list[str] = []
    for s in halves:
        if s.estimate.value is None:
            continue
        where = (
            f"on {_tasks(s)}, which {s.corpus} has examples of,"
            if s.family == "supported"
            else f"on tasks that {s.corpus} has no examples of,"
        )
        if not narrow:
            where = f"on {_tasks(s)},"
        whose = "its capability" if parts else f"the capability of {base}"
        parts.append(f"{where} {_moved(s, whose, full=True)}")
    text = "; ".join(parts)
    found = _answer(main)
    headline = {
        "up": "Capability rose",
        "down": "Capability fell",
        "unclear": "Capability: no measurable change",
    }[found]
    if found == "unclear" and (not _bounded(main.estimate) or tells(main.estimate)):
        headline = "Capability: cannot tell"
    if main is narrow:
        headline = headline.replace("Capability", "Capability on its own task", 1)
    text = f"{text[0].upper()}{text[1:]}."
    return Sentence("capability", found, headline, text, "amounts", main.estimate)


def scaling(base: str, found: DataOrBase | None) -> Sentence:
    """Rule 3."""
    title = "More data or a better base"
    if found is None or found.data_gain.value is None:
        text = (
            f"Whether more data or a better base would buy more than {base} has is not known: it "
            "takes two amounts of one corpus, measured on the capability that it is for."
        )
        return Sentence("scaling", "missing", f"{title}: cannot tell", text, "choice")
    data = (
        f"doubling the data gave {points(found.data_gain.value)} "
        f"({_between(found.data_gain, points)}) from {tokens(found.previous)} to "
        f"{tokens(found.amount)} tokens of {found.corpus}"
    )
    gain, contrast = found.base_gain, found.contrast
    if gain is None or contrast is None or gain.value is None:
        text = f"{title}: {data}; no larger base was measured to compare with."
        return Sentence(
            "scaling", "missing", "Better base: not measured", text, "choice", found.data_gain
        )
    which = f"at {tokens(found.amount)} tokens" if found.trained else "both untrained"
    other = (
        f"{found.other} instead of {base}, {which}, gives {points(gain.value)} "
        f"({_between(gain, points)})"
    )
    claim = told(contrast, found.adjusted)
    answer: Answer = "unclear"
    lead, headline = "Whether more data or a better base buys more cannot be told", "cannot tell"
    if claim == "up" and tells(gain) and gain.value > 0:
        answer, lead, headline = "up", "A better base buys more than more data", "a better base"
    elif claim == "down" and tells(found.data_gain) and found.data_gain.value > 0:
        answer, lead, headline = "down", "More data buys more than the next base", "more data"
    elif claim in ("up", "down"):
        ahead = ("the next base", "more data") if claim == "up" else ("more data", "the next base")
        lead = f"Neither is told to buy anything, though {ahead[0]} gives more than {ahead[1]}"
    chance = ""
    if found.base_better is not None:
        chance = f" (probability that the base gives more: {probability(found.base_better)})"
    if tells(contrast) and claim == "unclear" and found.adjusted is not None:
        chance += f"; the difference is not told from none after {_holm(found.adjusted)}"
    text = f"{lead}: {data}, while {other}{chance}."
    return Sentence("scaling", answer, f"{title}: {headline}", text, "choice", contrast)


def unfinished(missing: int, students: int, amount: int, largest: int, base: bool = False) -> str:
    """What the verdict does not yet rest on, as one sentence; empty where all is there.

    `base` tells that the untrained base lacks scores.
    """
    parts = ["the untrained base lacks scores"] if base else []
    if 0 < amount < largest:
        parts.append(f"the largest amount measured is {tokens(amount)} of {tokens(largest)} tokens")
    if missing:
        parts.append(f"{missing} of {students} students lack scores")
    return f"Not finished: {listed(parts)}." if parts else ""


def _answer(summary: Summary) -> Answer:
    return told(summary.estimate, summary.adjusted)


def _moved(summary: Summary, whose: str, full: bool = False) -> str:
    """What became of capability; in full with what the student was given and what could be seen."""
    interval = summary.estimate
    found = _answer(summary)
    given = f" with {_with(summary)}" if full else ""
    between = _between(interval, points)
    if found in ("up", "down"):
        shown = points(abs(interval.value or 0.0), False)
        text = f"{whose} {'rose' if found == 'up' else 'fell'} by {shown}{given} ({between})"
    else:
        how = f"{whose} did not measurably change"
        # Without an interval nothing was tested; one that leaves 0 out is no sign of no change.
        if tells(interval) or not _bounded(interval):
            how = f"whether {whose} changed cannot be told"
        shown = points(interval.value)
        text = f"{how}: {shown}{given} ({between})" if full else f"{how} ({shown}, {between})"
    if not full:
        return text
    if found == "unclear":
        text += _corrected(summary)
    if summary.detectable is not None:
        text += f"; this study can see changes of {points(summary.detectable, False)} or more"
    return text


def _corrected(summary: Summary) -> str:
    """Said where an interval tells and the corrected test does not."""
    if not tells(summary.estimate) or summary.adjusted is None:
        return ""
    return f", which is not told from none after {_holm(summary.adjusted)}"


def _holm(adjusted: float) -> str:
    return f"Holm's correction (p = {adjusted:.2g})"


def _bounded(interval: Interval) -> bool:
    return interval.low is not None and interval.high is not None


def _tasks(summary: Summary | None) -> str:
    parts = summary.parts if summary else ()
    names = dict.fromkeys(p.rpartition("/")[0] or p for p in parts)
    return listed([*names]) or "its own task"


def _with(summary: Summary) -> str:
    """What a student was given."""
    if not summary.amount:
        return "feedback alone"
    return f"{tokens(summary.amount)} tokens" + (" and feedback" if summary.feedback else "")


def _given(summary: Summary) -> str:
    return f"{_with(summary)} of {summary.corpus}" if summary.amount else _with(summary)


def _what(summary: Summary) -> str:
    if not summary.feedback:
        return "Imitation"
    return "Imitation and feedback" if summary.amount else "Feedback"


def listed(names: Sequence[str]) -> str:
    """Names as a sentence lists them: a, b and c."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def probability(value: float) -> str:
    """A probability with as many digits as its draws allow."""
    return "under 1%" if value < 0.01 else "over 99%" if value > 0.99 else f"{100 * value:.0f}%"


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
        note = interval.note or "too few items"
        return note if "no interval" in note else f"no interval: {note}"
    low = show(interval.low).removesuffix(" points")
    return f"95% interval {low} to {show(interval.high)}"
