from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from findings_example import PAPER, make, score_of

from epigone.findings.gaps import NO_GAP
from epigone.findings.style_gap import StyleMetric, style_closed


def test_style_metrics_share_the_resampled_prompts():
    # The same metric twice is no more evidence than once: the interval must not shrink.
    scores = {s.model: s for s in make(PAPER, 60, metrics=("lists",)) if s.family == "style"}
    one = StyleMetric(scores["small"], {0: scores["small-8000"]}, None, None)
    once, twice = style_closed([one]), style_closed([one, one])
    assert twice.estimate.interval.low == pytest.approx(once.estimate.interval.low)
    assert twice.estimate.interval.high == pytest.approx(once.estimate.interval.high)
    assert once.lower_bound


def test_style_metrics_on_some_of_the_prompts_join_the_mean():
    rng = np.random.default_rng(1)

    def style(metric, level, items):
        return score_of(
            metric, "", "m", "style", {i: float(rng.random() < level) for i in items}, ceiling=1.0
        )

    every, some = [f"p{i}" for i in range(60)], [f"p{i}" for i in range(0, 60, 4)]
    metrics = [
        StyleMetric(style("words", 0.1, every), {0: style("words", 0.5, every)}, None, None),
        StyleMetric(style("lists", 0.1, some), {0: style("lists", 0.9, some)}, None, None),
    ]
    got = style_closed(metrics)
    parts = [style_closed([m]).estimate.interval.value for m in metrics]
    assert got.estimate.interval.value == pytest.approx(np.mean(parts))
    assert got.estimate.interval.n == 60
    assert got.estimate.interval.low is not None
    unknown = StyleMetric(replace(metrics[0].base, ceiling=None), metrics[0].students, None, None)
    partial = style_closed([metrics[1], unknown])
    assert partial.metrics == ("lists",)
    assert "1 of 2 metrics" in partial.estimate.interval.note


def test_a_style_metric_on_few_prompts_is_judged_by_those_prompts():
    # A gap of 1, 1, 1, 1 and 0 on five prompts is not sure, however many prompts the others have.
    def style(metric, values):
        items = {f"p{i}": float(v) for i, v in enumerate(values)}
        return score_of(metric, "", "m", "style", items, ceiling=1.0)

    wide = StyleMetric(style("words", [0, 1] * 100), {0: style("words", [1, 1] * 100)}, None, None)
    few = StyleMetric(style("lists", [0, 0, 0, 0, 1]), {0: style("lists", [1] * 5)}, None, None)
    got = style_closed([wide, few])
    assert got.metrics == ("words",)
    assert NO_GAP in got.estimate.interval.note
    # The same on every one of its prompts: a base that never does it has a gap for sure.
    never = StyleMetric(style("lists", [0] * 8), {0: style("lists", [1, 0] * 4)}, None, None)
    assert style_closed([wide, never]).metrics == ("words", "lists")


def test_training_again_is_a_part_of_the_spread() -> None:
    rng = np.random.default_rng(2)

    def style(metric: str, level: float) -> Any:
        u = rng.random(400)
        return score_of(
            metric, "", "m", "style", {f"p{i}": float(x < level) for i, x in enumerate(u)},
            ceiling=1.0,
        )  # fmt: skip

    base = style("words", 0.1)
    alike = {s: style("words", 0.5) for s in range(3)}
    apart = {s: style("words", level) for s, level in enumerate((0.2, 0.5, 0.8))}
    widths = []
    for students in (alike, apart):
        interval = style_closed([StyleMetric(base, students, None, None)]).estimate.interval
        assert interval.low is not None and interval.high is not None
        widths.append(interval.high - interval.low)
    # Three seeds at 11%, 44% and 78% closed: t with 2 degrees of freedom on their spread.
    want = 2 * 4.303 * (1 / 3) / 3**0.5
    assert widths[1] == pytest.approx(want, rel=0.2)
    assert widths[0] < 0.2 * want


def test_reported_values_give_a_share_without_an_interval() -> None:
    def reported(value: float) -> Any:
        return replace(
            score_of("words", "", "m", "style", {"x": value}), n=0, values={}, method="reported"
        )

    metric = StyleMetric(reported(0.13), {0: reported(0.81)}, None, 0.83)
    got = style_closed([metric]).estimate.interval
    assert got.value == pytest.approx((0.81 - 0.13) / (0.83 - 0.13))
    assert (got.low, got.high) == (None, None)
    assert "reported" in got.note
