"""What a judge's verdicts on files of answers come to, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from epigone.evaluation.judge.protocols import ratings as ratings_of
from epigone.evaluation.judge.protocols import relative_score
from epigone.evaluation.style import words
from epigone.findings import (
    bradley_terry,
    by_item,
    cells,
    counted,
    length_controlled,
    longer_wins,
    orders,
    preferred,
    preferred_but_wrong,
    value_interval,
)
from epigone.schema import Rating, Score

if TYPE_CHECKING:
    from epigone.api.judging import Judging
    from epigone.evaluation.judge.ask import Verdict


def summary(
    asked: Judging, verdicts: Sequence[Verdict], scores: Sequence[Score], seed: int
) -> dict[str, Any]:
    """Preferences of each pair and rater, strengths of all, scores, what was preferred but wrong.

    `scores` are those of `epigone.evaluation.judge.protocols.scores`.
    """
    ratings = ratings_of(verdicts, asked.judge.name)
    lengths = {
        model: {item: float(len(words(sample.output))) for item, sample in own.items()}
        for model, own in asked.answers.items()
    }
    raters = sorted({r.rater for r in ratings})
    pairs, strengths, wrong = [], [], []
    correct = _correct(scores)
    for rater in raters:
        own = [r for r in ratings if r.rater == rater]
        for model, against in asked.pairs:
            pair = _pair(own, model, against, lengths, seed)
            pairs.append({"rater": rater, **pair})
            if model in correct:
                told = preferred_but_wrong(own, correct[model], model, against)
                told_ = {"model": model, "against": against, **asdict(told)}
                wrong.append({"rater": rater, **told_})
        for s in bradley_terry(own, asked.teacher, seed):
            strengths.append({"rater": rater, **asdict(s)})
    return {
        "pairs": pairs,
        "strengths": strengths,
        "scores": [_told(s, seed) for s in scores],
        "relative_scores": _relative(asked, verdicts),
        "preferred_but_wrong": wrong,
    }


def _pair(
    ratings: Sequence[Rating],
    model: str,
    against: str,
    lengths: Mapping[str, Mapping[str, float]],
    seed: int,
) -> dict[str, Any]:
    own = counted(ratings, model, against)
    wins = by_item(cells(own, model))
    share, n = longer_wins(wins, lengths[model], lengths[against])
    controlled = length_controlled(wins, lengths[model], lengths[against], seed)
    return {
        **asdict(preferred(own, model, against, seed)),
        "length_controlled": asdict(controlled.win_rate),
        "length_slope": asdict(controlled.slope),
        "longer_wins": share,
        "longer_n": n,
        **asdict(orders(own)),
    }


def _correct(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    """Right or wrong by model and item; what a reference tells goes before a judge's opinion."""
    found: dict[str, dict[str, float]] = {}
    for metric in ("correct", "correct by reference"):
        for score in scores:
            if score.metric == metric:
                found.setdefault(score.model, {}).update(score.values)
    return found


def _relative(asked: Judging, verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """The sum of a model's scores over that of the one beside which it was shown."""
    sums = {pair: relative_score(verdicts, *pair) for pair in asked.pairs}
    return [
        {"model": model, "against": against, "value": told[0] / told[1]}
        for (model, against), told in sums.items()
        if told is not None
    ]


def _told(score: Score, seed: int) -> dict[str, Any]:
    return {
        "model": score.model,
        "metric": score.metric,
        "by": score.method,
        **asdict(value_interval(score, seed)),
    }
