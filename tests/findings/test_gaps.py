from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from epigone.findings import change, detectable, gap_closed, value_interval
from epigone.findings.gaps import (
    CEILING,
    NO_GAP,
    REPORTED,
    UNKNOWN,
    gap_exists,
    reported_value,
    tango,
    teacher_value,
)
from epigone.findings.model import TeacherValue
from epigone.findings.resample import Resampler, stream, tail, tail_of_mean
from epigone.schema import Score


def score(values, model="m", **kw):
    if not isinstance(values, dict):
        values = {f"{i:04d}": float(v) for i, v in enumerate(values)}
    value = kw.pop("value", float(np.mean(list(values.values()))) if values else None)
    kw = {"metric": "acc", "task": "t", "family": "capability"} | kw
    return Score(model=model, value=value, n=len(values), values=values, **kw)


def test_an_auc_is_no_share_and_stays_in_its_range():
    told = score([1] * 30, aggregate="auc")
    assert (value_interval(told).low, value_interval(told).note) == (
        None,
        "no spread between items",
    )
    assert value_interval(score([1] * 30)).low > 0.8
    near = score([0.4, *[1.02] * 29], aggregate="auc")
    assert value_interval(near).high == 1.0
    assert value_interval(score([0.4, *[1.02] * 29])).high > 1.0


def test_share_closed_of_a_hand_worked_example():
    base = score([0, 0, 0, 0, 1, 0, 0, 0, 0, 1])  # 0.2
    student = score([1, 0, 1, 0, 1, 0, 0, 1, 0, 1])  # 0.5
    teacher = score([1, 1, 1, 0, 1, 1, 0, 1, 1, 1])  # 0.8
    closed = gap_closed(base, student, teacher)
    assert closed.value == pytest.approx((0.5 - 0.2) / (0.8 - 0.2))
    assert closed.n == 10
    assert 0 <= closed.low < 0.5 < closed.high


def test_lower_is_better_gives_the_same_share():
    base, student = score([4, 5, 6, 5, 4, 6]), score([3, 4, 5, 3, 3, 5])
    teacher = score([1, 2, 1, 1, 2, 2])
    up = gap_closed(base, student, teacher).value
    flip = [score({i: -v for i, v in s.values.items()}) for s in (base, student, teacher)]
    assert gap_closed(*flip).value == pytest.approx(up)


def test_wilson_matches_scipy():
    for k, n in [(0, 30), (1, 30), (7, 30), (30, 30), (1, 1), (0, 1)]:
        got = value_interval(score([1] * k + [0] * (n - k)))
        want = scipy.stats.binomtest(k, n).proportion_ci(method="wilson")
        assert (got.low, got.high) == pytest.approx((want.low, want.high), abs=1e-12)


@pytest.mark.parametrize("statistic", ["mean", "pearson"])
def test_paired_change_agrees_with_scipy_bootstrap(statistic):
    rng = np.random.default_rng(5)
    y = rng.normal(size=60)
    a, b = 0.3 * y + rng.normal(size=60), 0.8 * y + rng.normal(size=60)
    kw = {}
    if statistic == "pearson":
        kw = {"aggregate": "pearson", "against": {f"{i:04d}": v for i, v in enumerate(y)}}

    def difference(a, b, y, axis=-1):
        if statistic == "mean":
            return b.mean(axis=axis) - a.mean(axis=axis)
        return _r(b, y) - _r(a, y)

    def _r(x, y):
        x = x - x.mean(axis=-1, keepdims=True)
        y = y - y.mean(axis=-1, keepdims=True)
        return (x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))

    want = scipy.stats.bootstrap(
        (a, b, y),
        difference,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        confidence_level=1 - 2 * tail(60),
        rng=np.random.default_rng(1),
    )
    got = change(score(a, **kw), score(b, **kw), resamples=20_000)
    assert got.value == pytest.approx(difference(a, b, y))
    width = want.confidence_interval.high - want.confidence_interval.low
    assert got.low == pytest.approx(want.confidence_interval.low, abs=0.03 * width)
    assert got.high == pytest.approx(want.confidence_interval.high, abs=0.03 * width)


def test_share_closed_agrees_with_scipy_bootstrap():
    rng = np.random.default_rng(9)
    base = rng.normal(0, 1, 80)
    student, teacher = base + rng.normal(0.5, 0.4, 80), base + rng.normal(1.0, 0.4, 80)
    want = scipy.stats.bootstrap(
        (base, student, teacher),
        lambda b, s, t, axis=-1: (s.mean(axis) - b.mean(axis)) / (t.mean(axis) - b.mean(axis)),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        confidence_level=1 - 2 * tail(80),
        rng=np.random.default_rng(2),
    ).confidence_interval
    got = gap_closed(score(base), score(student), score(teacher), resamples=20_000)
    assert got.low == pytest.approx(want.low, abs=0.03 * (want.high - want.low))
    assert got.high == pytest.approx(want.high, abs=0.03 * (want.high - want.low))


@pytest.mark.parametrize("apart", [0.45, 1.0])
def test_share_closed_agrees_with_fieller(apart):
    # E. C. Fieller, Journal of the Royal Statistical Society B 16, 1954: the ratios r for which the
    # mean of (student - base) - r (teacher - base) is not told from 0 by a t test.
    rng = np.random.default_rng(5)
    base = rng.normal(0, 1, 120)
    student, teacher = base + rng.normal(0.3, 1, 120), base + rng.normal(apart, 1, 120)
    x, y = student - base, teacher - base
    t2 = scipy.stats.t.ppf(0.975, 119) ** 2
    (vx, vxy), (_, vy) = np.cov(x, y) / 120
    a, b, c = y.mean() ** 2 - t2 * vy, x.mean() * y.mean() - t2 * vxy, x.mean() ** 2 - t2 * vx
    root = (b * b - a * c) ** 0.5
    got = gap_closed(score(base), score(student), score(teacher), resamples=40_000)
    width = 2 * root / a
    assert got.low == pytest.approx((b - root) / a, abs=0.05 * width)
    assert got.high == pytest.approx((b + root) / a, abs=0.08 * width)


def test_expanded_percentile_reaches_the_t_interval_of_a_mean():
    x = np.random.default_rng(3).normal(size=12)
    got = value_interval(score(x), resamples=40_000)
    want = scipy.stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert got.high - got.low == pytest.approx(want.high - want.low, rel=0.06)


def test_weighted_resampling_equals_resampling_items_one_by_one():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=9), rng.normal(size=9)
    s = score(x, aggregate="pearson", against={f"{i:04d}": v for i, v in enumerate(y)})
    draws = Resampler([s]).draws(stream(4), 50)[:, 0]
    picks = stream(4).integers(0, 9, (50, 9))
    want = [np.corrcoef(x[p], y[p])[0, 1] for p in picks]
    np.testing.assert_allclose(draws, want, atol=1e-10)


def test_the_tail_of_a_mean_of_a_hand_worked_example():
    # True variances 2 * 3/2 = 3 and 4 * 5/4 = 5: shares 3/8 and 5/8 of 8, against 6 in the draws.
    for independent, freedom in [(True, 256 / 43), (False, 32 / 11)]:
        t = scipy.stats.t.ppf(0.975, freedom)
        want = scipy.stats.norm.cdf(-t * (8 / 6) ** 0.5)
        assert tail_of_mean([3, 5], [2.0, 4.0], independent) == pytest.approx(want)
    assert tail_of_mean([9, 9], [1.0, 1.0], independent=False) == pytest.approx(tail(9))


def test_clusters_are_resampled_whole():
    # Ten clusters of ten equal items hold no more than ten items' worth of evidence.
    rng = np.random.default_rng(1)
    centre = rng.normal(size=10)
    values = {f"{i:03d}": float(centre[i // 10]) for i in range(100)}
    clusters = {f"{i:03d}": str(i // 10) for i in range(100)}
    one = value_interval(score({str(i): float(c) for i, c in enumerate(centre)}), resamples=20_000)
    ten = value_interval(score(values, clusters=clusters), resamples=20_000)
    alone = value_interval(score(values))
    assert ten.high - ten.low == pytest.approx(one.high - one.low, rel=0.05)
    assert alone.high - alone.low < 0.5 * (ten.high - ten.low)


def test_coverage_of_the_paired_change_and_of_the_share_closed():
    rng = np.random.default_rng(11)
    studies = 300
    hits = {"change": 0, "share": 0, "binary": 0}
    for k in range(studies):
        item = rng.normal(size=30)
        base = item + rng.normal(size=30)
        student, teacher = item + rng.normal(1, 1, 30), item + rng.normal(2, 1, 30)
        s = [score(v) for v in (base, student, teacher)]
        got = change(s[0], s[1], seed=k, resamples=2000)
        hits["change"] += got.low <= 1 <= got.high
        got = gap_closed(*s, seed=k, resamples=2000)
        hits["share"] += got.low <= 0.5 <= got.high
        chance = rng.beta(2, 2, 60)
        a = rng.random(60) < 0.7 * chance
        b = rng.random(60) < 0.7 * chance + 0.2
        got = change(score(a), score(b), seed=k, resamples=2000)
        hits["binary"] += got.low <= 0.2 <= got.high
    for name, hit in hits.items():
        assert 0.90 <= hit / studies <= 0.99, name


def test_detectable_is_found_four_times_in_five():
    rng = np.random.default_rng(2)
    found, sizes = 0, []
    for k in range(300):
        a = rng.normal(size=50)
        b = a + rng.normal(0.5, 1.26, 50)
        got = change(score(a), score(b), seed=k, resamples=2000)
        found += got.low > 0
        sizes.append(detectable(score(a), score(b), resamples=2000))
    assert np.mean(sizes) == pytest.approx(2.8016 * 1.26 / 50**0.5, rel=0.03)
    assert 0.72 <= found / 300 <= 0.87


def test_teacher_comes_from_measurement_then_report_then_ceiling_and_never_from_a_guess():
    base, student = score([0, 0.2] * 5, family="style", ceiling=1.0), score([0.5, 0.7] * 5)
    teacher = score([0.8, 0.9] * 5, family="style", ceiling=1.0)
    assert gap_closed(base, student, teacher).value == pytest.approx(0.5 / 0.75)
    reported = gap_closed(base, student, None, reported=0.6)
    assert reported.value == pytest.approx(1.0)
    assert REPORTED in reported.note
    ceiling = gap_closed(base, student, None)
    assert ceiling.value == pytest.approx(0.5 / 0.9)
    assert CEILING in ceiling.note
    unknown = gap_closed(score([0, 0.2] * 5), student, None)
    assert (unknown.value, unknown.low, unknown.note) == (None, None, UNKNOWN)


def test_a_capability_ceiling_is_no_teacher():
    base = score([0, 1] * 5, ceiling=1.0)
    assert teacher_value(base, None, None).source == "unknown"


def test_a_second_sample_of_the_teacher_is_measured_even_where_it_is_the_first_again():
    base = score([0, 1] * 4, family="style", ceiling=1.0)
    again = score([1] * 8, family="style", ceiling=1.0)
    assert teacher_value(base, again, None) == TeacherValue(1.0, "measured")
    found = gap_closed(base, score([0, 1, 1, 1] * 2, family="style", ceiling=1.0), again)
    assert found.value == pytest.approx(0.5)
    assert CEILING not in found.note
    assert teacher_value(base, None, None) == TeacherValue(1.0, "ceiling")


@pytest.mark.parametrize(
    ("more", "fewer", "n", "level", "expected"),
    [
        # Fagerland, Lydersen and Laake (Statistics in Medicine 33, 2014): airways of 21 children.
        (1, 7, 21, 0.95, (-0.517, -0.026)),
        (28, 25, 618, 0.90, (-0.0148, 0.0247)),  # as R's PropCIs tells
    ],
)
def test_tango_gives_published_intervals(more, fewer, n, level, expected):
    digits = 0.5 * 10 ** -len(str(expected[0]).split(".")[1])
    assert tango(more, fewer, n, level) == pytest.approx(expected, abs=digits)
    assert tango(fewer, more, n, level) == pytest.approx((-expected[1], -expected[0]), abs=digits)


@pytest.mark.parametrize("n", [1, 5, 500])
def test_a_difference_of_two_shares_has_bounds_where_all_items_agree(n):
    none = value_interval(score([0] * n, family="style", ceiling=0.0, better="zero"))
    high = scipy.stats.binomtest(0, n).proportion_ci(method="wilson").high
    assert (none.value, none.low, none.high) == (0, pytest.approx(-high), pytest.approx(high))
    all_more = value_interval(score([1] * n, family="style", ceiling=0.0, better="zero"))
    assert (all_more.high, all_more.value) == (1.0, 1.0)
    assert all_more.low == pytest.approx(1 - 2 * high)


def test_values_that_happen_to_be_0_and_1_are_no_share_on_another_scale():
    """Words in common of 0% on every item; a judge's lowest mark; a ratio of lengths of one."""
    for values, kw in (
        ([0] * 8, {"scale": 100.0}),
        ([1] * 10, {"scale": 10.0, "family": "preference"}),
        ([0] * 8, {"scale": None, "better": "zero"}),
    ):
        told = value_interval(score(values, **kw))
        assert (told.low, told.note) == (None, "no spread between items")
    row = score([0, 1]).to_json()
    del row["scale"]  # as older files have it
    assert Score.from_json(row) == score([0, 1])


def test_a_gap_that_cannot_be_told_from_zero_is_undefined():
    rng = np.random.default_rng(0)
    base, teacher = rng.normal(size=40), rng.normal(size=40)
    closed = gap_closed(score(base), score(base + 0.1), score(teacher))
    assert closed.value is None
    assert NO_GAP in closed.note
    same = gap_closed(score([0.5] * 20), score([0.7] * 20), None, reported=0.5)
    assert same.value is None
    assert NO_GAP in same.note


def test_a_base_that_never_does_it_has_a_gap_all_the_same():
    base = score([0] * 20, family="style", ceiling=1.0)
    closed = gap_closed(base, score([1, 0] * 10), None)
    assert closed.value == pytest.approx(0.5)
    assert closed.low < 0.5 < closed.high
    few = gap_closed(score([0] * 5, family="style", ceiling=1.0), score([1, 0, 1, 0, 1]), None)
    assert few.value is None


def test_a_gap_that_is_undefined_on_many_draws_is_not_a_sure_one():
    # Only one item differs: on a third of the draws the base's lengths have no correlation.
    against = {f"{i:04d}": float(i) for i in range(20)}
    kw = {"aggregate": "pearson", "against": against, "family": "style", "ceiling": 1.0}
    base, student = score([0] * 19 + [1], **kw), score(range(20), **kw)
    assert value_interval(base).value == pytest.approx(0.37, abs=0.02)
    closed = gap_closed(base, student, None)
    assert closed.value is None
    assert NO_GAP in closed.note
    assert not gap_exists(1.0, np.array([1.0] * 8 + [np.nan] * 2), 20)
    assert gap_exists(1.0, np.array([1.0] * 19 + [np.nan]), 20)
    assert not gap_exists(float("nan"), np.ones(20), 20)


@pytest.mark.parametrize(
    ("base", "student", "value"),
    [({}, {}, None), ({"a": 1.0}, {"a": 3.0}, 2.0), ({"a": 1.0}, {"b": 1.0}, None)],
)
def test_too_few_items_have_no_interval(base, student, value):
    got = change(score(base), score(student))
    assert (got.value, got.low, got.high) == (value, None, None)
    assert got.note
    assert detectable(score(base), score(student)) is None


def test_equal_models_show_no_change_and_no_spread():
    got = change(score([0, 1, 1, 0]), score([0, 1, 1, 0]))
    assert (got.value, got.low, got.note) == (0, None, "no spread between items")


def test_items_not_in_both_are_left_out_and_said():
    base = score({"a": 0.0, "b": 1.0, "c": 5.0})
    got = change(base, score({"a": 1.0, "b": 3.0, "d": 9.0, "e": float("nan")}))
    assert got.value == pytest.approx(1.5)
    assert got.n == 2
    assert "2 items in common of 3" in got.note


def test_different_versions_and_different_teachers_are_not_compared():
    assert change(score([1, 2]), score([1, 2], version=2)).value is None
    kw = {"aggregate": "pearson"}
    a = score([1, 2, 3], against={"0000": 1.0, "0001": 2.0, "0002": 4.0}, **kw)
    b = score([1, 2, 3], against={"0000": 1.0, "0001": 2.0, "0002": 5.0}, **kw)
    assert "different answers" in change(a, b).note


def test_a_flat_correlation_is_undefined_not_zero():
    s = score([3, 3, 3, 3], aggregate="pearson", against={f"{i:04d}": float(i) for i in range(4)})
    assert value_interval(s).value is None


def test_correlation_of_large_numbers_keeps_its_digits():
    x = 1e9 + np.random.default_rng(0).normal(size=50)
    y = x + np.random.default_rng(1).normal(size=50)
    s = score(x, aggregate="pearson", against={f"{i:04d}": v for i, v in enumerate(y)})
    assert value_interval(s).value == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-6)


def test_a_score_without_items_keeps_its_value_without_bounds():
    got = value_interval(Score("bleu", "m", "style", 0.3, 32, {}))
    assert (got.value, got.low, got.n) == (0.3, None, 32)


def test_same_seed_same_numbers():
    x, y = score(np.arange(20.0)), score(np.arange(20.0)[::-1])
    assert change(x, y, seed=1) == change(x, y, seed=1) != change(x, y, seed=2)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=40))
def test_bounds_hold_the_estimate_and_stay_in_range(pairs):
    got = change(score([a for a, _ in pairs]), score([b for _, b in pairs]), resamples=2000)
    if got.low is not None:
        assert -1 <= got.low <= got.value <= got.high <= 1


def test_reported_scores_are_looked_up_without_mixing_metrics():
    reported = {"mmlu": 0.7, "humaneval/pass@1": 0.48, "tone": 0.98}
    assert reported_value(reported, "acc", "mmlu", 1) == 0.7
    assert reported_value(reported, "acc", "mmlu", 2) is None
    assert reported_value(reported, "pass@1", "humaneval", 3) == 0.48
    assert reported_value(reported, "tone", "", 5) == 0.98
    assert reported_value(reported, "acc", "nq", 1) is None
