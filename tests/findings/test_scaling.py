from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from findings_example import score_of

from epigone.findings import Base, Subject, Trend, analyse
from epigone.findings.scaling import (
    BEYOND,
    NOT_ABOVE,
    NOT_TOWARD,
    _left_out,
    saturating,
    slope_weights,
    straight,
)
from epigone.schema import Score

AMOUNTS = (1_000, 4_000, 16_000, 64_000)


def study(
    levels: list[float], start: float = 0.2, n: int = 2000
) -> tuple[list[Subject], list[Score]]:
    rng = np.random.default_rng(0)
    people = [Subject("b", "b"), *(Subject(f"s{a}", "b", "talk", a) for a in AMOUNTS)]
    u = rng.random(n)
    scores = []
    for s, level in zip(people, [start, *levels], strict=True):
        x = np.where(rng.random(n) < 0.7, u, rng.random(n))
        values = {str(i): float(y < level) for i, y in enumerate(x)}
        scores.append(score_of("acc", "t", s.model, "capability", values))
    return people, scores


def trend(levels: list[float], **more: Any) -> Trend:
    people, scores = study(levels)
    found = analyse(people, scores, **more).trends
    return next(t for t in found if t.metric == "capability")


def test_a_slope_is_that_of_least_squares() -> None:
    people, scores = study([0.30, 0.33, 0.41, 0.44])
    found = {t.metric: t for t in analyse(people, scores).trends}
    y = [s.value for s in scores[1:]]
    want = np.polyfit(np.log2(AMOUNTS), y, 1)
    assert found["acc"].slope.value == pytest.approx(want[0])
    assert found["acc"].slope == found["capability"].slope
    ahead = dict(found["acc"].predicted)
    assert list(ahead) == [128_000, 640_000]
    for amount, interval in ahead.items():
        assert interval.value == pytest.approx(np.polyval(want, np.log2(amount)))
    # Item by item the slope is a mean, whose standard error is known.
    rows = np.array([[*s.values.values()] for s in scores[1:]])
    each = slope_weights(np.log2(AMOUNTS)) @ rows
    slope = found["acc"].slope
    assert slope.low is not None and slope.high is not None
    half = 1.96 * each.std(ddof=1) / len(each) ** 0.5
    assert slope.high - slope.low == pytest.approx(2 * half, rel=0.08)


def test_what_levels_off_is_told_from_what_does_not() -> None:
    # 0.2 + 0.4 a / (a + 2000), and 0.1 a doubling.
    curve = trend([0.2 + 0.4 * a / (a + 2000) for a in AMOUNTS])
    assert (curve.shape, curve.saturating) == ("saturating", pytest.approx(1.0, abs=0.03))
    assert curve.half is not None and curve.half.value == pytest.approx(2000, rel=0.35)
    line = trend([0.22 + 0.1 * k for k in range(0, 8, 2)])
    assert line.shape == "straight"
    assert line.half is None
    # Nothing, then ever more: the curve misses it less than a line does, and nothing levels off.
    rising = trend([0.2, 0.2, 0.45, 0.95])
    assert (rising.shape, rising.half) == ("unclear", None)
    assert rising.saturating is not None and rising.saturating > 0.95
    noise = trend([0.2, 0.2, 0.2, 0.2])
    assert noise.shape == "unclear"


def test_the_curve_is_that_of_scipy() -> None:
    amounts = np.array(AMOUNTS, dtype=float)
    y = np.array([0.31, 0.47, 0.55, 0.61])

    def curve(a: Any, gain: float, half: float) -> Any:
        return 0.2 + gain * a / (a + half)

    (gain, half), _ = scipy.optimize.curve_fit(curve, amounts, y, p0=[0.4, 3000.0])
    got = saturating(np.array([0.2]), y[None, :], amounts, 200_000.0)
    assert got[0] == pytest.approx(curve(200_000.0, gain, half), abs=0.003)


def test_each_amount_is_predicted_from_the_others() -> None:
    amounts = np.array(AMOUNTS, dtype=float)
    rows = np.array([[0.1, 0.2, 0.35, 0.38, 0.52]])
    x, y = np.log2(amounts), rows[0, 1:]
    missed = 0.0
    for k in range(4):
        rest = [i for i in range(4) if i != k]
        missed += (np.polyval(np.polyfit(x[rest], y[rest], 1), x[k]) - y[k]) ** 2
    assert _left_out(rows, amounts, straight)[0] == pytest.approx(missed)


def test_tokens_that_match_the_teacher() -> None:
    levels = [0.30, 0.36, 0.42, 0.48]  # 0.03 a doubling
    found = trend(levels, reported={"t": 0.54})
    # 0.06 more are two doublings of 64,000.
    assert found.needed is not None and found.needed.value == pytest.approx(256_000, rel=0.35)
    assert found.needed.low is not None and found.needed.low < 256_000
    assert trend(levels, reported={"t": 0.9}).why == BEYOND
    assert trend(levels, reported={"t": 0.9}).needed is None
    assert trend([0.3, 0.3, 0.3, 0.3], reported={"t": 0.54}).why == NOT_ABOVE
    assert trend([0.5, 0.4, 0.3, 0.2], reported={"t": 0.54}).why == NOT_ABOVE
    assert trend(levels).why == "teacher not known"
    assert "matched" in trend(levels, reported={"t": 0.4}).why


def test_an_upper_end_beyond_ten_times_is_left_open() -> None:
    found = trend([0.30, 0.34, 0.38, 0.42], reported={"t": 0.475})
    assert found.needed is not None and found.needed.value is not None
    assert found.needed.value < 640_000
    assert found.needed.high is None
    assert "10 times" in found.needed.note


def test_slopes_against_size_and_loss() -> None:
    rng = np.random.default_rng(1)
    u = rng.random(3000)
    people, scores = [], []
    for name, level in (("a", 0.2), ("b", 0.3), ("c", 0.5)):
        people.append(Subject(name, name))
        values = {str(i): float(x < level) for i, x in enumerate(u)}
        scores.append(score_of("acc", "t", name, "capability", values))
    bases = [Base("a", 10**8, 1.2), Base("b", 4 * 10**8, 1.1), Base("c", 8 * 10**8, 0.8)]
    found = analyse(people, scores, bases=bases).sizes
    by = {t.by: t for t in found if t.metric == "acc"}
    y = [s.value for s in scores]
    sizes = np.log2([b.parameters for b in bases])  # type: ignore[arg-type]
    assert by["parameters"].bases == ("a", "b", "c")
    assert by["parameters"].slope.value == pytest.approx(np.polyfit(sizes, y, 1)[0])
    losses = [-(b.loss or 0) / 0.1 for b in bases]
    assert by["loss"].slope.value == pytest.approx(np.polyfit(losses, y, 1)[0])
    assert analyse(people, scores, bases=bases[:1]).sizes == ()


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_what_is_best_at_zero_may_rise_or_fall_to_the_teacher(side: float) -> None:
    rng = np.random.default_rng(2)

    def of(levels: list[float]) -> Trend:
        people, _ = study(levels, n=2)
        people = [*people, Subject("teacher", "teacher")]
        scores = []
        for s, level in zip(people, [0.8, *levels, 0.0], strict=True):
            values = {str(i): side * float(x) for i, x in enumerate(rng.normal(level, 0.3, 400))}
            scores.append(
                score_of("length_ratio", "", s.model, "style", values, better="zero", scale=None)
            )
        (found,) = analyse(people[:-1], scores, "teacher").trends
        return found

    found = of([0.6, 0.4, 0.2, 0.1])
    # 0.085 less for each doubling at most, a line at 0.07 at 64,000.
    assert found.slope.value == pytest.approx(-0.085 * side, abs=0.01)
    assert found.needed is not None and found.needed.value == pytest.approx(113_000, rel=0.2)
    assert of([0.2, 0.4, 0.6, 0.7]).why == NOT_TOWARD


def test_a_mean_goes_up_where_it_is_good_and_a_metric_as_it_counts() -> None:
    people, scores = study([0.3, 0.4, 0.5, 0.6])
    wrong = [
        replace(s, task="z", metric="error", better="lower", value=1 - s.value,
                values={f"z{i}": 1 - v for i, v in s.values.items()})
        for s in scores
    ]  # fmt: skip
    found = {t.metric: t.slope.value for t in analyse(people, [*scores, *wrong]).trends}
    assert found["acc"] == pytest.approx(-found["error"])
    assert found["capability"] == pytest.approx(found["acc"])
    told = {t.metric: t.why for t in analyse(people, wrong, reported={"z": 0.0}).trends}
    assert told["error"] == BEYOND


def test_no_share_is_followed_beyond_all() -> None:
    people, scores = study([0.3, 0.5, 0.7, 0.95])
    found = next(t for t in analyse(people, scores).trends if t.metric == "acc")
    assert [i.value for _, i in found.predicted] == [pytest.approx(1.0, abs=0.04), 1.0]
    assert max(i.high for _, i in found.predicted if i.high is not None) == 1.0
