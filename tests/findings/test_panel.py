from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.stats
from findings_example import score_of

from epigone.findings import change
from epigone.findings.bank import Bank
from epigone.findings.panel import Column, Panel, between_seeds
from epigone.findings.resample import far_tail, p_value, spread


def column(*scores: Any, line: str = "") -> Column:
    return Column({0: {s.task: s for s in scores}}, line)


def test_mean_over_tasks_of_one_task_is_the_paired_change() -> None:
    rng = np.random.default_rng(0)
    a, b = (
        score_of(
            "acc", "t", m, "capability", {str(i): float(v) for i, v in enumerate(rng.random(50))}
        )
        for m in "ab"
    )
    panel = Panel([column(a), column(b)], Bank(resamples=20_000))
    got, want = panel.contrast([-1.0, 1.0]).interval, change(a, b, resamples=20_000)
    assert got == want


def test_independent_tasks_add_their_variances() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 200))
    scores = [
        score_of("acc", f"t{k}", "m", "capability", {f"{k}-{i}": float(x) for i, x in enumerate(v)})
        for k, v in enumerate(values)
    ]
    got = Panel([column(*scores)], Bank(resamples=10_000)).contrast([1.0]).interval
    error = np.sqrt((values.var(axis=1) / 200).sum()) / 4
    assert got.low is not None and got.high is not None
    assert got.high - got.low == pytest.approx(2 * 1.97 * error, rel=0.05)


@pytest.mark.parametrize(("few", "many"), [(1.0, 6.0), (1.0, 1.0), (1.0, 0.1)])
def test_tasks_of_very_different_sizes_have_welchs_interval_and_p(few: float, many: float) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(0.5, few, 12), rng.normal(0.2, many, 201)
    scores = [
        score_of("acc", t, "m", "capability", {f"{i}": float(a) for i, a in v})
        for t, v in (("few", enumerate(x)), ("many", enumerate(y)))
    ]
    got = Panel([column(*scores)], Bank(resamples=40_000)).contrast([1.0])
    # The mean of x and y is half of the difference between x and -y.
    test = scipy.stats.ttest_ind(x, -y, equal_var=False)
    want = test.confidence_interval(0.95)
    assert got.interval.low is not None and got.interval.high is not None
    assert got.interval.value == pytest.approx((x.mean() + y.mean()) / 2)
    assert got.interval.high - got.interval.low == pytest.approx(
        (want.high - want.low) / 2, rel=0.05
    )
    assert got.p == pytest.approx(test.pvalue, rel=0.25, abs=0.002)


def test_lower_is_better_counts_as_a_gain_when_it_falls() -> None:
    a = score_of("loss", "t", "a", "capability", {str(i): 2.0 + i % 3 for i in range(30)})
    b = score_of("loss", "t", "b", "capability", {str(i): 1.0 + i % 2 for i in range(30)})
    a, b = replace(a, better="lower"), replace(b, better="lower")
    panel = Panel([column(a), column(b)], Bank())
    assert panel.contrast([-1.0, 1.0]).interval.value == pytest.approx(1.5)


def test_an_interval_and_its_p_agree() -> None:
    # At the p of a test, the interval of that level ends at 0.
    rng = np.random.default_rng(4)
    draws = rng.normal(0.3, 0.15, 40_000)
    freedom, wider = spread([30], [1.0])
    p = p_value(draws, freedom, wider)
    t = 0.3 / (0.15 * (30 / 29) ** 0.5)
    assert p == pytest.approx(2 * scipy.stats.t.sf(t, 29), rel=0.05)
    assert p_value(draws + 5, freedom, wider) > 0


def students(levels: list[float], rng: Any, items: int = 300) -> dict[int, dict[str, Any]]:
    shared = rng.random(items)
    found = {}
    for seed, level in enumerate(levels):
        own = np.where(rng.random(items) < 0.5, shared, rng.random(items))
        values = {str(i): float(x < level) for i, x in enumerate(own)}
        found[seed] = {"t": score_of("acc", "t", f"s{seed}", "capability", values)}
    return found


def test_seeds_that_differ_widen_the_interval_as_a_t_test_of_them_does() -> None:
    rng = np.random.default_rng(5)
    levels = [0.2, 0.35, 0.5, 0.65]
    made = students(levels, rng, 20_000)
    got = Panel([Column(made, "line")], Bank(resamples=4000)).contrast([1.0]).interval
    means = [t["t"].value for t in made.values()]
    want = scipy.stats.t.interval(0.95, 3, np.mean(means), scipy.stats.sem(means))
    assert (got.low, got.high) == pytest.approx(want, rel=0.06)


def test_seeds_that_differ_by_chance_alone_add_little() -> None:
    added, by_items = [], []
    rng = np.random.default_rng(99)
    for seed in range(200):
        made = students([0.4] * 4, np.random.default_rng(seed))
        values = np.array([[*t["t"].values.values()] for t in made.values()]).T
        draws = rng.multinomial(300, np.full(300, 1 / 300), 400) @ values / 300
        added.append(between_seeds([(values.mean(axis=0), draws)], 4)[0])
        apart = values - values.mean(axis=1, keepdims=True)
        by_items.append((apart**2).sum() / 3 / 300 / 300 / 4)
    # The mean of max(0, X / 3 - 1) of a chi-squared X with 3 degrees of freedom is 0.3080.
    assert np.mean(added) == pytest.approx(0.308 * np.mean(by_items), rel=0.3)
    assert np.mean(np.array(added) == 0) == pytest.approx(scipy.stats.chi2.cdf(3, 3), abs=0.1)


def test_lines_of_a_study_tell_together_how_much_training_again_moves() -> None:
    # Four lines of two seeds each: a pooled variance of 4 degrees of freedom, not of 1.
    rng = np.random.default_rng(8)
    pairs = [(0.30, 0.36), (0.50, 0.42), (0.40, 0.47), (0.55, 0.50)]
    made = [students(list(p), rng, 40_000) for p in pairs]
    lines = [Column(m, f"line {k}") for k, m in enumerate(made)]
    own = Column(made[0], "line 0", tuple(lines[1:]))
    got = Panel([own], Bank(resamples=4000)).contrast([1.0]).interval
    means = [[t["t"].value for t in m.values()] for m in made]
    pooled = np.mean([np.var(m, ddof=1) for m in means])
    half = scipy.stats.t.ppf(0.975, 4) * (pooled / 2) ** 0.5
    assert got.high is not None and got.low is not None
    assert (got.high - got.low) / 2 == pytest.approx(half, rel=0.08)
    alone = Panel([lines[0]], Bank(resamples=4000)).contrast([1.0]).interval
    assert alone.high is not None and alone.low is not None
    assert alone.high - alone.low > 2 * (got.high - got.low)


def test_what_is_reported_is_exact_beside_what_is_measured() -> None:
    rng = np.random.default_rng(6)
    a = score_of("acc", "t", "a", "capability", {str(i): float(rng.random()) for i in range(80)})
    known = replace(a, model="b", value=0.9, n=0, values={})
    got = Panel([column(a), column(known)], Bank()).contrast([-1.0, 1.0]).interval
    alone = Panel([column(a)], Bank()).contrast([-1.0]).interval
    assert got.low == pytest.approx(alone.low + 0.9)
    assert "taken as exact" in got.note


def test_what_others_published_is_compared_with_its_kind_alone() -> None:
    items = {str(i): i % 3 / 2 for i in range(80)}
    a = score_of("acc", "t", "a", "capability", items)
    told = replace(a, model="b", value=0.9, n=0, values={}, method="reported")
    both = Panel([column(told), column(replace(told, value=0.7))], Bank()).contrast([-1.0, 1.0])
    assert both.interval.value == pytest.approx(-0.2)
    assert (both.interval.low, both.p) == (None, None)
    mixed = Panel([column(a), column(told)], Bank()).contrast([-1.0, 1.0]).interval
    assert mixed.value is None
    assert "reported" in mixed.note


def test_a_clear_effect_has_a_p_that_many_tests_leave_standing() -> None:
    # 3,000 draws alone count no less than 0.0007.
    draws = np.random.default_rng(7).normal(4.2, 1.0, 3000)
    assert p_value(draws, 199, 1.0) > 0.0006
    far = far_tail(4.2, [(1.0, 199)])
    assert far == pytest.approx(2 * scipy.stats.t.sf(4.2, 199))
    assert p_value(draws, 199, 1.0, far) == p_value(-draws, 199, 1.0, far) == far
    assert p_value(draws, 199, 1.0, 1e-9) == 1e-6
    near = np.random.default_rng(7).normal(2.0, 1.0, 3000)
    assert p_value(near, 199, 1.0, 1e-9) == p_value(near, 199, 1.0)
    # Two independent means, as in Welch's test.
    x, y = np.random.default_rng(0).normal(size=(2, 30)) * [[1.0], [3.0]] + [[3.0], [0.0]]
    parts = [(v.var(ddof=1) / 30, 29) for v in (x, y)]
    want = scipy.stats.ttest_ind(x, y, equal_var=False).pvalue
    assert far_tail(x.mean() - y.mean(), parts) == pytest.approx(want)


def test_metrics_of_the_same_items_are_drawn_together() -> None:
    rng = np.random.default_rng(8)
    values = {str(i): float(x) for i, x in enumerate(rng.random(300) < 0.4)}
    scores = [score_of("acc", t, "m", "capability", values) for t in ("nq", "nq:chat", "other")]
    one, two, three = (Panel([column(*s)], Bank()).contrast([1.0]).interval for s in
                       (scores[:1], scores[:2], scores[1:]))  # fmt: skip
    width = one.high - one.low
    # Twice the same is no more than once; another task's items are others'.
    assert two.high - two.low == pytest.approx(width, rel=0.02)
    assert three.high - three.low == pytest.approx(width / 2**0.5, rel=0.05)


def test_what_is_the_same_on_every_item_has_clopper_and_pearsons_interval() -> None:
    wrong, right = (
        score_of("acc", "t", m, "capability", {str(i): v for i in range(50)})
        for m, v in (("a", 0.0), ("b", 1.0))
    )
    got = Panel([column(wrong), column(right)], Bank()).contrast([-1.0, 1.0])
    share = scipy.stats.binomtest(50, 50).proportion_ci(method="exact").low
    assert (got.interval.low, got.interval.high) == pytest.approx((2 * share - 1, 1.0))
    assert got.p == pytest.approx(1e-6)
    same = Panel([column(wrong), column(wrong)], Bank()).contrast([-1.0, 1.0])
    assert (same.interval.low, same.interval.high) == pytest.approx((share - 1, 1 - share))
    assert same.p == 1.0
    # Six that agree tell a sign, five do not.
    for n, told in ((5, False), (6, True)):
        few = [replace(s, values=dict([*s.values.items()][:n])) for s in (wrong, right)]
        found = Panel([column(s) for s in few], Bank()).contrast([-1.0, 1.0])
        assert (found.interval.low > 0, found.p < 0.05) == (told, told)
    loss = [replace(s, scale=None) for s in (wrong, right)]
    assert Panel([column(s) for s in loss], Bank()).contrast([-1.0, 1.0]).interval.low is None


def test_what_can_be_seen_with_few_seeds_is_no_less_than_the_interval_is_wide() -> None:
    rng = np.random.default_rng(9)
    got = Panel([Column(students([0.3, 0.5], rng, 500), "line")], Bank()).contrast([1.0])
    half = (got.interval.high - got.interval.low) / 2
    assert half < got.detectable < 1.5 * half
    one = Panel([Column(students([0.3], rng, 500), "line")], Bank()).contrast([1.0])
    error = (one.interval.high - one.interval.low) / 2 / 1.965
    assert one.detectable == pytest.approx(2.80 * error, rel=0.02)
