"""Preferences: win rates by hand, intervals against brute force, strengths against choix."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import choix
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import multinomial
from sklearn.linear_model import LogisticRegression

from epigone.errors import UnknownName
from epigone.findings import (
    bradley_terry,
    by_item,
    cells,
    counted,
    judged,
    length_controlled,
    longer_wins,
    orders,
    preferred,
    preferred_but_wrong,
    win_scores,
)
from epigone.findings.length_control import BEYOND, OPEN, profile
from epigone.findings.length_control import fit as fit_lengths
from epigone.findings.newton import RIDGE
from epigone.findings.shares import share_interval
from epigone.findings.strengths import OPEN as OPEN_STRENGTH
from epigone.findings.strengths import fit
from epigone.schema import SAME_TEXT, Interval, Rating, Score

Left = Literal["a", "b"]


def rated(
    item: str, preference: int | None, left: Left = "a", rater: str = "judge", **more: object
) -> Rating:
    who = "judge" if rater.startswith("judge") else "private"
    row = Rating(item, rater, "m", "t", preference, left, workforce=who)
    return replace(row, **more)  # type: ignore[arg-type]


def both(item: str, one: int | None, other: int | None) -> list[Rating]:
    return [rated(item, one, "a"), rated(item, other, "b")]


def test_orders_are_averaged_within_a_prompt_and_ties_are_half() -> None:
    ratings = [*both("1", 2, 2), *both("2", 1, 0), *both("3", 2, -2), *both("4", -1, -2)]
    assert by_item(cells(ratings, "m")) == {"1": 1.0, "2": 0.75, "3": 0.5, "4": 0.0}
    told = preferred(ratings, "m", "t")
    assert told.win_rate.value == pytest.approx((1 + 0.75 + 0.5 + 0) / 4)
    assert told.equal_or_better.value == pytest.approx((1 + 1 + 0.5 + 0) / 4)
    found = orders(ratings)
    # Of items 2 and 3 the orders disagree; first place won 1, 1, 1 and 0, and second's 0, .5, 1, 1.
    assert (found.flips, found.both, found.shown) == (2, 4, 8)
    assert found.first == pytest.approx((1 + 0 + 1 + 0.5 + 1 + 1 + 0 + 1) / 8)


def test_a_prompt_of_which_an_order_is_missing_does_not_count() -> None:
    ratings = [*both("1", 2, None), *both("2", -2, -2), rated("3", 2)]
    told = preferred(ratings, "m", "t")
    assert (told.win_rate.value, told.win_rate.n) == (0.0, 1)
    assert (told.asked, told.missing) == (5, 1)
    # One order is all that a person sees.
    assert cells([rated("3", 2, rater="ann")], "m") == {("ann", "3"): 1.0}


def test_what_is_excluded_or_no_item_never_counts() -> None:
    good = both("1", 2, 2)
    bad = [
        rated("2", -2, rater="ann", purpose="gold"),
        rated("3", -2, rater="ann", excluded="always left"),
        rated("4", -2, rater="ann", purpose="training"),
    ]
    assert counted([*good, *bad]) == good
    told = preferred([*good, *bad], "m", "t")
    assert (told.win_rate.value, told.raters, told.asked) == (1.0, 1, 2)
    assert orders([*good, *bad]).shown == 2


def test_a_judge_that_always_takes_the_first_prefers_nobody() -> None:
    ratings = [r for i in range(9) for r in both(str(i), 2, -2)]
    assert preferred(ratings, "m", "t").win_rate.value == 0.5
    told = orders(ratings)
    assert (told.flips, told.both, told.first) == (9, 9, 1.0)


preferences = st.sampled_from([-2, -1, 0, 1, 2, None])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from("xyz"), preferences, st.sampled_from("ab")),
        min_size=1, max_size=30, unique_by=lambda r: (r[0], r[1], r[3]),
    )
)  # fmt: skip
def test_the_other_side_has_the_rest(rows: list[tuple[int, str, int | None, Left]]) -> None:
    ratings = [rated(str(i), p, left, rater) for i, rater, p, left in rows]
    one = preferred(ratings, "m", "t", resamples=40).win_rate
    other = preferred(ratings, "t", "m", resamples=40).win_rate
    swapped = [
        replace(r, a="n", b="t", preference=None if r.preference is None else -r.preference,
                left="b" if r.left == "a" else "a")
        for r in ratings
    ]  # fmt: skip
    renamed = [replace(r, a="t", b="u") for r in swapped]
    assert preferred(renamed, "u", "t", resamples=40).win_rate == one
    if one.value is None:
        assert other.value is None
        return
    assert other.value == pytest.approx(1 - one.value)
    if one.low is not None and one.high is not None:
        assert other.high == pytest.approx(1 - one.low)
        assert other.low == pytest.approx(1 - one.high)


def test_people_are_resampled_with_their_items() -> None:
    rng = np.random.default_rng(3)
    taste = rng.normal(0, 1.5, 12)
    ratings = [
        rated(str(i), int(2 * np.sign(taste[r] + rng.normal())), "a", f"p{r}")
        for i in range(40)
        for r in rng.choice(12, 3, replace=False)
    ]
    told = preferred(ratings, "m", "t").win_rate
    assert told.low is not None
    assert told.high is not None
    assert told.value is not None
    # By brute force: one draw at a time, every rating by itself.
    people, items = sorted({r.rater for r in ratings}), sorted({r.item for r in ratings})
    draws = []
    for _ in range(800):
        w = dict(zip(people, rng.multinomial(12, [1 / 12] * 12), strict=True))
        v = dict(zip(items, rng.multinomial(40, [1 / 40] * 40), strict=True))
        total = weight = 0.0
        for item in items:
            own = [r for r in ratings if r.item == item and w[r.rater]]
            if own:
                won = sum(w[r.rater] for r in own if r.preference == 2)
                total += v[item] * won / sum(w[r.rater] for r in own)
                weight += v[item]
        draws.append(total / weight)
    # The interval is wider than these draws' by what few groups are.
    assert (told.high - told.low) / (3.92 * np.std(draws)) == pytest.approx(1.17, abs=0.12)
    alone = preferred([replace(r, workforce="judge") for r in ratings], "m", "t").win_rate
    assert alone.value is None, "a judge has two orders"


def test_intervals_hold_for_other_people_too() -> None:
    """Of few people with tastes of their own: what would be found of all people lies within."""
    rng = np.random.default_rng(8)
    lengths = {str(i): float(v) for i, v in enumerate(rng.normal(0, 1, 40))}
    inside = {"win": 0, "length": 0, "strength": 0, "items alone": 0}
    for _ in range(25):
        taste = rng.normal(0, 1.5, 5)
        ratings = [
            rated(item, int(2 * np.sign(taste[r] + rng.logistic())), "a", f"p{r}")
            for item in lengths
            for r in rng.choice(5, 3, replace=False)
        ]
        values = cells(ratings, "m")
        wins, zero = by_item(values), dict.fromkeys(lengths, 0.0)
        (first, *_) = (s for s in bradley_terry(ratings, "t", resamples=100) if s.model == "m")
        for name, told, true in (
            ("win", preferred(ratings, "m", "t", resamples=100).win_rate, 0.5),
            ("length", length_controlled(wins, lengths, zero, 0, 100, values).win_rate, 0.5),
            ("items alone", length_controlled(wins, lengths, zero, 0, 100).win_rate, 0.5),
            ("strength", first.strength, 0.0),
        ):
            # Without a bound: some draws of so few people have no loss, or no win.
            low = -np.inf if told.low is None else told.low
            inside[name] += low <= true <= (np.inf if told.high is None else told.high)
    assert min(inside["win"], inside["length"], inside["strength"]) >= 22, inside
    assert inside["items alone"] <= 15, inside


def test_a_tie_moves_an_interval_by_little() -> None:
    def told(wins: int, ties: int, losses: int) -> Interval:
        rows = [2] * wins + [0] * ties + [-2] * losses
        return preferred(
            [r for i, p in enumerate(rows) for r in both(str(i), p, p)], "m", "t"
        ).win_rate

    most, one = told(30, 0, 0), told(29, 1, 0)
    # By hand, of 33.84146: (29.5 + 1.92073) of them, of squares 29.25 + 1.92073.
    middle = 31.42073 / 33.84146
    half = 1.959964 * ((31.17073 / 33.84146 - middle**2) / 33.84146) ** 0.5
    assert one.low == pytest.approx(middle - half, abs=1e-5)
    assert (one.high, most.high) == (1, 1)
    assert most.low is not None
    assert one.low is not None
    assert 0 < most.low - one.low < 0.05
    assert told(1, 0, 0).low is None
    assert told(0, 9, 0).low is not None, "nine ties are no certainty"


@pytest.mark.parametrize("chances", [(0.88, 0.06, 0.06), (0.4, 0.2, 0.4), (0.9, 0.1, 0)])
def test_shares_with_ties_hold_and_are_in_order(chances: tuple[float, float, float]) -> None:
    """Over all outcomes: how likely the truth lies within; more wins, no lower bound."""
    true = chances[0] + chances[1] / 2
    for n in (10, 30, 60):
        found, likely = {}, 0.0
        for wins in range(n + 1):
            for ties in range(n + 1 - wins):
                rows = np.array([1.0] * wins + [0.5] * ties + [0.0] * (n - wins - ties))
                one = share_interval(rows)
                assert one.low is not None
                assert one.high is not None
                found[wins, ties] = one.low, one.high
                chance = float(multinomial.pmf([wins, ties, n - wins - ties], n, chances))
                likely += chance * (one.low <= true <= one.high)
        assert 0.925 < likely < 0.985, n
        for (wins, ties), bounds in found.items():
            for more in ((wins, ties + 1), (wins + 1, ties - 1)):
                if more in found:
                    assert found[more][0] >= bounds[0] - 1e-12
                    assert found[more][1] >= bounds[1] - 1e-12


def test_people_who_agree_are_only_so_many() -> None:
    ratings = [rated(str(i), 2, rater=f"p{r}") for i in range(20) for r in range(3)]
    told = preferred(ratings, "m", "t").win_rate
    assert (told.value, told.high, told.n) == (1.0, 1.0, 20)
    # Three raters say no more than three heads of three, with two more and two tails: 4.92 of 6.84.
    p, n = 4.92073 / 6.84146, 6.84146
    assert told.low == pytest.approx(p - 1.959964 * (p * (1 - p) / n) ** 0.5, abs=1e-5)
    almost = [*ratings[1:], rated("0", 0, rater="p0")]
    tied = preferred(almost, "m", "t").win_rate
    assert tied.low == pytest.approx(told.low, abs=0.1), "one tie of sixty"
    wrong = preferred_but_wrong(ratings, {str(i): float(i > 9) for i in range(20)}, "m", "t").share
    assert wrong.low is not None
    assert wrong.high is not None
    assert wrong.low < 0.3 < 0.7 < wrong.high, "three raters"
    everywhere = preferred_but_wrong(ratings, {str(i): 0.0 for i in range(20)}, "m", "t").share
    assert everywhere.low == told.low
    assert bradley_terry([rated("1", None, rater="p1")], "t")[0].strength.n == 0


def test_the_length_that_is_controlled_is_what_a_regression_says() -> None:
    rng = np.random.default_rng(5)
    n = 120
    x, y = np.tanh(rng.normal(0, 1, n)), rng.choice([0, 0.25, 0.5, 1.0], n)
    weights = rng.integers(0, 4, (3, n)).astype(float)
    ours = fit_lengths(x, y, weights)
    design = np.column_stack([np.ones(n), x])
    for row, w in zip(ours, weights, strict=True):
        # Each share is a win of its weight and a loss of the rest.
        model = LogisticRegression(C=1 / RIDGE, fit_intercept=False, tol=1e-10, max_iter=1000)
        twice = np.concatenate([design, design])
        model.fit(twice, [1] * n + [0] * n, np.concatenate([w * y, w * (1 - y)]))
        assert row == pytest.approx(model.coef_[0], abs=1e-5)

    def loss(b: np.ndarray) -> float:
        eta = design @ b
        told = weights[0] * (np.logaddexp(0, eta) - y * eta)
        return float(told.sum() + RIDGE / 2 * (b @ b))

    assert ours[0] == pytest.approx(minimize(loss, [0, 0]).x, abs=1e-4)


def test_a_judge_of_length_alone_leaves_nothing_at_equal_length() -> None:
    rng = np.random.default_rng(1)
    mine = {str(i): float(v) for i, v in enumerate(rng.integers(50, 300, 400))}
    theirs = {i: float(v) for i, v in zip(mine, rng.integers(20, 200, 400), strict=True)}
    spread = np.std([mine[i] - theirs[i] for i in mine])
    wins = {
        i: float(rng.random() < 1 / (1 + np.exp(-3 * np.tanh((mine[i] - theirs[i]) / spread))))
        for i in mine
    }
    raw = sum(wins.values()) / len(wins)
    told = length_controlled(wins, mine, theirs, resamples=300)
    assert raw > 0.65
    assert told.win_rate.low is not None
    assert told.win_rate.high is not None
    assert told.win_rate.low < 0.5 < told.win_rate.high
    assert told.slope.value == pytest.approx(3, abs=0.7)
    share, n = longer_wins(wins, mine, theirs)
    assert share is not None
    assert share > 0.75
    assert n >= 395


@pytest.mark.parametrize("kind", ["same", "always", "alike", "one", "none"])
def test_lengths_that_tell_nothing(kind: str) -> None:
    items = [] if kind == "none" else ["1"] if kind == "one" else [str(i) for i in range(8)]
    ours = {i: 10.0 + (int(i) if kind == "always" else 0) for i in items}
    theirs = dict.fromkeys(items, 10.0 + (5 if kind == "alike" else 0))
    wins = {i: 1.0 if kind == "always" else float(int(i) % 2) for i in items}
    told = length_controlled(wins, ours, theirs, resamples=50)
    if kind == "same":
        assert told.win_rate.value == pytest.approx(0.5)
        assert told.slope.value is None
    elif kind == "always":
        assert told.win_rate.value is not None
        assert 0.9 < told.win_rate.value < 1
        assert (told.win_rate.low, told.slope.high) == (None, None)
        assert "ridge" in told.win_rate.note
    else:
        assert told.win_rate.value is None
        assert "too few" in told.win_rate.note


def test_length_control_holds_where_one_is_mostly_longer() -> None:
    theta, phi, mean = -1.0, 2.0, 400.0
    rng, inside, narrow = np.random.default_rng(4), [], []
    zero = {str(i): 0.0 for i in range(32)}
    for _ in range(160):
        d = rng.normal(mean, 300, 32)
        y = rng.random(32) < 1 / (1 + np.exp(-theta - phi * np.tanh(d / d.std())))
        lengths = {str(i): float(v) for i, v in enumerate(d)}
        rate = length_controlled(
            {str(i): float(v) for i, v in enumerate(y)}, lengths, zero
        ).win_rate
        if rate.low is not None and rate.high is not None:
            inside.append(rate.low <= 1 / (1 + np.exp(-theta)) <= rate.high)
            narrow.append(rate.high - rate.low)
        assert (BEYOND.format("longer") in rate.note) == ((d <= 0).mean() < 0.1)
    assert len(inside) > 150
    assert 0.92 <= np.mean(inside) < 0.99
    assert np.mean(narrow) < 0.65


def test_a_profile_is_that_of_a_search() -> None:
    """The bounds are where the highest likelihood that is left has fallen by t^2 / 2."""
    rng = np.random.default_rng(2)
    x = np.tanh(rng.normal(0.5, 1, 30))
    y = (rng.random(30) < 0.6).astype(float)

    def loss(a: float, b: float) -> float:
        eta = a + b * x
        return float((np.logaddexp(0, eta) - y * eta).sum())

    def left(which: int, value: float) -> float:
        def held(free: np.ndarray) -> float:
            return loss(float(free[0]), value) if which else loss(value, float(free[0]))

        return float(minimize(held, [0.0], tol=1e-10).fun)

    best = fit_lengths(x, y, np.ones((1, 30)))[0]
    peak = float(minimize(lambda b: loss(*b), [0.0, 0.0], tol=1e-10).fun)
    p = 1 / (1 + np.exp(-best[0] - best[1] * x))
    scale = min(1.0, ((y - p) ** 2).sum() / (p * (1 - p)).sum() * 30 / 28)
    for which in (0, 1):
        for end in profile(x, y, which):
            fell = 2 * (left(which, end) - peak)
            assert fell == pytest.approx(2.048407**2 * scale, rel=0.01)


def test_bounds_that_a_ridge_would_make_are_none() -> None:
    ratings = [r for i in range(10) for r in between(str(i), "m", "t", 2 if i < 2 else -2)]
    first = next(s for s in bradley_terry(ratings, "t") if s.model == "m").strength
    # In a draw in nine it never wins: nobody knows how weak it is.
    assert first.low is None
    assert first.high is not None
    assert OPEN_STRENGTH in first.note
    half = [r for i in range(40) for r in between(str(i), "m", "t", 2 * (-1) ** i)]
    often = next(s for s in bradley_terry(half, "t") if s.model == "m").strength
    assert None not in (often.low, often.high)
    # One tie among losses as long is all that keeps the slope finite.
    zero = {str(i): 0.0 for i in range(20)}
    lengths = {str(i): float(i - 9.5) * 50 for i in range(20)}
    wins = {str(i): float(i > 10) for i in range(20)} | {"10": 0.01, "9": 0.02}
    told = length_controlled(wins, lengths, zero)
    assert told.slope.low is not None
    assert told.slope.high is None
    assert OPEN in told.slope.note
    assert told.win_rate.low is not None
    # All shorter ones win, which is no overlap either.
    told = length_controlled({i: float(int(i) < 9) for i in zero}, lengths, zero)
    assert (told.win_rate.low, told.slope.low) == (None, None)
    assert "ridge" in told.win_rate.note


def between(item: str, a: str, b: str, preference: int) -> list[Rating]:
    a, b, preference = (a, b, preference) if a < b else (b, a, -preference)
    return [Rating(item, "judge", a, b, preference, left, workforce="judge") for left in ("a", "b")]


def test_strengths_are_those_of_choix() -> None:
    rng = np.random.default_rng(7)
    names, true = ["m0", "m1", "m2", "t"], [0.0, 0.8, -0.5, 1.2]
    ratings, data = [], []
    for item in range(150):
        for i in range(4):
            for j in range(i):
                wins = rng.random() < 1 / (1 + np.exp(true[j] - true[i]))
                ratings += between(str(item), names[i], names[j], 2 if wins else -2)
                data.append((i, j) if wins else (j, i))
    told = {s.model: s.strength for s in bradley_terry(ratings, "t", resamples=100)}
    other = choix.opt_pairwise(4, data, alpha=RIDGE / 2, tol=1e-9)
    for i, name in enumerate(names):
        value = told[name].value
        assert value == pytest.approx(other[i] - other[3], abs=1e-4)
        assert told[name].n == 450
    assert told["t"].value == 0
    low, high = told["m2"].low, told["m2"].high
    assert low is not None
    assert high is not None
    assert low < true[2] - true[3] < high
    # Ties as half wins, without a ridge that matters.
    wins = rng.integers(1, 40, (3, 5, 5)) / 2.0
    for m in range(5):
        wins[:, m, m] = 0
    for row, w in zip(fit(wins * 1000), wins, strict=True):
        theirs = choix.ilsr_pairwise_dense(w)
        assert row - row.mean() == pytest.approx(theirs - theirs.mean(), abs=1e-4)


def test_who_always_wins_is_strong_and_it_is_said() -> None:
    ratings = [r for i in range(6) for r in between(str(i), "m", "t", 2)]
    ratings += [r for i in range(6) for r in between(str(i), "x", "y", 2 * (-1) ** i)]
    told = {s.model: s.strength for s in bradley_terry(ratings, "t", resamples=50)}
    assert told["m"].value is not None
    assert 3 < told["m"].value < 20
    assert "ridge" in told["m"].note
    assert told["m"].low is None, "resamples of nothing but wins tell no spread"
    # They were compared with nobody else: the anchor's strength says nothing of theirs.
    assert "ridge" in told["x"].note
    with pytest.raises(UnknownName):
        bradley_terry(ratings, "z")


def test_one_item_has_no_interval_and_none_no_value() -> None:
    told = preferred(both("1", 1, 0), "m", "t")
    assert (told.win_rate.value, told.win_rate.low) == (0.75, None)
    empty = preferred([], "m", "t")
    assert (empty.win_rate.value, empty.asked, empty.raters) == (None, 0, 0)
    (first, *_) = bradley_terry(both("1", 2, 2), "t")
    assert (first.model, first.strength.low) == ("m", None)


def test_some_are_joined_to_the_anchor_and_others_are_not() -> None:
    ratings = [r for i in range(8) for r in between(str(i), "m", "t", 2 * (-1) ** i)]
    ratings += [r for i in range(8) for r in between(str(i), "n", "t", 2)]
    told = {s.model: s.strength for s in bradley_terry(ratings, "t", resamples=60)}
    assert told["m"].low is not None
    assert told["m"].note == ""
    assert (told["n"].low, told["n"].high) == (None, None)


def test_every_judge_speaks_for_itself_and_people_together() -> None:
    ratings = [*both("1", 2, 2), *both("2", -2, -2)]
    ratings += [rated("1", 2, rater="judge2"), rated("1", 2, "b", "judge2")]
    ratings += [rated("1", -2, rater="ann"), rated("1", 2, rater="bob"), rated("2", 1, rater="ann")]
    ratings += [replace(r, a="m", b="n") for r in both("1", 0, 0)]
    lengths = {"m": {"1": 5.0, "2": 3.0}, "t": {"1": 4.0, "2": 9.0}, "n": {}}
    scores = [
        Score("correct", "m", "capability", 0.5, 2, {"1": 1.0, "2": 0.0}),
        Score("correct by reference", "m", "capability", 0.0, 1, {"1": 0.0}),
    ]
    told = judged(ratings, "t", lengths, scores)
    found = {(p.rater, p.preference.model, p.preference.against): p for p in told.pairs}
    assert set(found) == {
        ("judge", "m", "t"), ("judge", "m", "n"), ("judge2", "m", "t"), ("people", "m", "t"),
    }  # fmt: skip
    assert found["judge", "m", "t"].preference.win_rate.value == 0.5
    assert (found["judge", "m", "t"].longer, found["judge", "m", "t"].longer_n) == (1.0, 2)
    people = found["people", "m", "t"].preference
    assert (people.win_rate.value, people.raters) == (0.75, 2)
    # What a reference says of the first goes before the judge's opinion.
    wrong = found["judge", "m", "t"].wrong
    assert wrong is not None
    assert wrong.items == ("1",)
    assert {rater for rater, _ in told.strengths} == {"judge", "judge2", "people"}
    assert judged([], "t", {}).pairs == ()


def test_preferred_but_wrong() -> None:
    ratings = [*both("1", 2, 2), *both("2", 2, 1), *both("3", -2, -2), *both("4", 2, -2)]
    ratings += both("5", 1, 1)
    correct = {"1": 0.0, "2": 1.0, "3": 0.0, "4": 0.0}
    told = preferred_but_wrong(ratings, correct, "m", "t")
    # The third is not preferred, the fourth no more than the teacher's; of the fifth nobody knows.
    assert (told.items, told.share.value, told.share.n) == (("1",), 0.5, 2)
    assert preferred_but_wrong(ratings, {}, "m", "t").share.value is None
    assert (told.other_right, told.other_wrong) == ((), ())
    correct["2"] = 0.0
    told = preferred_but_wrong(ratings, correct, "m", "t", {"1": 1.0, "2": 0.0})
    assert (told.items, told.other_right, told.other_wrong) == (("1", "2"), ("1",), ("2",))


def test_answers_of_one_text_are_told() -> None:
    ratings = [*both("1", 2, 2), *(replace(r, reasons=(SAME_TEXT,)) for r in both("2", 0, 0))]
    assert preferred(ratings, "m", "t").same == 1
    rate, no_worse = win_scores(ratings, "m", "t", "judge")
    assert (rate.values, rate.ceiling, rate.primary) == ({"1": 1.0, "2": 0.5}, 0.5, False)
    assert (no_worse.metric, no_worse.values) == ("equal_or_better", {"1": 1.0, "2": 1.0})
    assert win_scores(ratings, "m", "t", "another") == []
