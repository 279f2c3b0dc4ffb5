"""What a judge's verdicts on files of answers come to, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from epigone.evaluation.judge.protocols import rated_together, ratings
from epigone.findings import Compared, judged, ratio_interval, value_interval
from epigone.schema import Score

if TYPE_CHECKING:
    from epigone.api.judging import Judging
    from epigone.evaluation.judge.ask import Verdict


def summary(
    asked: Judging, verdicts: Sequence[Verdict], scores: Sequence[Score], seed: int
) -> dict[str, Any]:
    """Preferences of each pair and rater, strengths of all, scores, what was preferred but wrong.

    `scores` are those of `epigone.evaluation.judge.protocols.scores`.
    """
    lengths = {
        model: {item: float(len(sample.output)) for item, sample in own.items()}
        for model, own in asked.answers.items()
    }
    told = judged(ratings(verdicts, asked.name), asked.teacher, lengths, scores, seed)
    rated = {pair: rated_together(verdicts, *pair) for pair in asked.pairs}
    return {
        "pairs": [_pair(p) for p in told.pairs],
        "strengths": [{"rater": rater, **asdict(s)} for rater, s in told.strengths],
        "scores": [
            {"model": s.model, "metric": s.metric, "by": s.method} | asdict(value_interval(s, seed))
            for s in scores
        ],
        "relative_scores": [
            {"model": model, "against": against} | asdict(ratio_interval(*both, seed))
            for (model, against), both in rated.items()
            if both[0]
        ],
    }


def _pair(told: Compared) -> dict[str, Any]:
    return {
        "rater": told.rater,
        **asdict(told.preference),
        "length_controlled": asdict(told.controlled.win_rate),
        "length_slope": asdict(told.controlled.slope),
        "longer_wins": told.longer,
        "longer_n": told.longer_n,
        **asdict(told.orders),
        "preferred_but_wrong": told.wrong and asdict(told.wrong),
    }
