"""How each rater rates: known answers, speed, sides, agreement; and whom to think of excluding."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from scipy.stats import binom, binomtest

from epigone.raters.agreement import Unit, by_unit, sign
from epigone.schema import Rating, Workforce

# Seconds in which nobody has read two outputs.
FAST = 4.0
# An exclusion is proposed: for so few known answers as one rater in twenty would give who gives
# four in five; for so many failed attention checks; for so large a share of fast votes, or of one
# and the same choice, of at least so many; for a side that chance prefers so once in a thousand.
_GOLD, _DOUBT = 0.8, 0.05
FAILED = 2
_ENOUGH, _OFTEN, _SAME = 10, 0.5, 0.95
_SIDE = 0.001


@dataclass(frozen=True, slots=True)
class Conduct:
    """What can be seen of one rater; None where there is nothing to see it by.

    `n` counts answers to items, also the `excluded` ones. `gold` and `attention` are the right
    answers out of `golds` and `attentions`: those that prefer the right output, however strongly.
    `seconds` is the median, `fast` the share under a limit. `left` is the share of `decided`
    answers for what stood on the left, `same` the share of the most frequent of the five choices
    as they stand on the screen. `agreement` is the share of answers that prefer what the other
    people do on average.
    """

    rater: str
    workforce: Workforce
    n: int
    excluded: int
    gold: int
    golds: int
    attention: int
    attentions: int
    seconds: float | None
    fast: float | None
    decided: int
    left: float | None
    same: float | None
    agreement: float | None


@dataclass(frozen=True, slots=True)
class Proposal:
    """An exclusion to think about: of whom, and a reason with its figures."""

    rater: str
    reason: str


@dataclass(frozen=True, slots=True)
class Excluded:
    """How many ratings of one rater do not count for one reason."""

    rater: str
    reason: str
    n: int


def conduct(ratings: Sequence[Rating], fast: float = FAST) -> list[Conduct]:
    """What can be seen of each rater, by their names; `fast` is in seconds."""
    by_rater: dict[str, list[Rating]] = defaultdict(list)
    for r in ratings:
        by_rater[r.rater].append(r)
    units = by_unit(r for r in ratings if r.workforce != "judge")
    return [_conduct(name, by_rater[name], units, fast) for name in sorted(by_rater)]


def proposed(ratings: Sequence[Rating], fast: float = FAST) -> list[Proposal]:
    """People whose exclusion the figures propose, a reason each; nothing is excluded by it.

    Disagreement with others is no reason: to exclude for it would make any raters agree.
    """
    return [
        Proposal(c.rater, reason)
        for c in conduct(ratings, fast)
        if c.workforce != "judge" and (c.n == 0 or c.excluded < c.n)
        for reason in _reasons(c, fast)
    ]


def excluded(ratings: Iterable[Rating]) -> list[Excluded]:
    """What is excluded, by rater and reason."""
    found = Counter((r.rater, r.excluded) for r in ratings if r.excluded)
    return [Excluded(rater, reason, n) for (rater, reason), n in sorted(found.items())]


def right(preference: int | None, expected: int | None) -> bool:
    """Whether a check is passed: by the direction, however strongly."""
    return sign(preference or 0) == sign(expected or 0)


def _conduct(
    name: str,
    ratings: Sequence[Rating],
    units: Mapping[Unit, Mapping[str, float]],
    fast: float,
) -> Conduct:
    answers = [r for r in ratings if r.purpose == "item" and r.preference is not None]
    shown = [_on_screen(r) for r in answers]
    decided = [choice > 0 for choice in shown if choice]
    times = [r.seconds for r in answers if r.seconds is not None]
    gold, golds = _right(r for r in ratings if r.purpose == "gold")
    attention, attentions = _right(r for r in ratings if r.purpose == "attention")
    alike = [
        sign(r.preference or 0) == sign(fmean(rest))
        for r in answers
        if (rest := [v for who, v in units.get((r.item, r.a, r.b), {}).items() if who != name])
    ]
    return Conduct(
        rater=name,
        workforce=ratings[0].workforce,
        n=len(answers),
        excluded=sum(bool(r.excluded) for r in answers),
        gold=gold,
        golds=golds,
        attention=attention,
        attentions=attentions,
        seconds=median(times) if times else None,
        fast=fmean(t < fast for t in times) if times else None,
        decided=len(decided),
        left=fmean(decided) if decided else None,
        same=max(Counter(shown).values()) / len(shown) if shown else None,
        agreement=fmean(alike) if alike else None,
    )


def _on_screen(r: Rating) -> int:
    """The preference as the rater saw it: positive for the left."""
    value = r.preference or 0
    return value if r.left == "a" else -value


def _right(checks: Iterable[Rating]) -> tuple[int, int]:
    known = [r for r in checks if r.expected is not None and r.preference is not None]
    return sum(right(r.preference, r.expected) for r in known), len(known)


def _reasons(c: Conduct, fast: float) -> Iterator[str]:
    if c.golds and binom.cdf(c.gold, c.golds, _GOLD) < _DOUBT:
        yield f"{c.gold} of {c.golds} known answers right"
    if c.attentions - c.attention >= FAILED:
        yield f"{c.attentions - c.attention} of {c.attentions} attention checks failed"
    if c.n >= _ENOUGH and c.fast is not None and c.fast > _OFTEN:
        yield f"{c.fast:.0%} of {c.n} answers in less than {fast:g} s"
    if c.n >= _ENOUGH and c.same is not None and c.same >= _SAME:
        yield f"one choice in {c.same:.0%} of {c.n} answers"
    if c.left is not None:
        p = float(binomtest(round(c.left * c.decided), c.decided).pvalue)
        if p < _SIDE:
            side, share = ("left", c.left) if c.left > 0.5 else ("right", 1 - c.left)
            yield f"the {side} one in {share:.0%} of {c.decided} decided answers (p = {p:.1g})"
