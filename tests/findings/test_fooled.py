"""What a gain in preference goes with: against an independent fit, and planted truths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from epigone.findings import Fooled, Judged, Subject, fooled, judged
from epigone.findings.explained import APART, BEYOND, FEW, NO_GAIN, NO_TERMS
from epigone.findings.likeness import likeness
from epigone.findings.logistic import fit
from epigone.findings.newton import RIDGE
from epigone.schema import Rating, Score, Workforce

SUBJECTS = (
    Subject("base", "base"),
    Subject("less", "base", "talk", 1),
    Subject("more", "base", "talk", 2),
)
MODELS = ("base", "less", "more")
NOTHING = Judged((), ())
Array = NDArray[np.float64]


def of(model: str, metric: str, values: Sequence[float], **more: object) -> Score:
    made = Score(metric, model, "style", 0.0, len(values), by_place(values))
    return replace(made, **more)  # type: ignore[arg-type]


def by_place(values: Sequence[float]) -> dict[str, float]:
    return {f"i{j}": float(v) for j, v in enumerate(values)}


def said(
    model: str, item: str, preference: int, rater: str = "j", by: Workforce = "judge"
) -> list[Rating]:
    """What a rater says of a model's answer beside the teacher's; a judge in both orders."""
    (a, b), sign = ((model, "teacher"), 1) if model < "teacher" else (("teacher", model), -1)
    one = Rating(item, rater, a, b, sign * preference, "a", workforce=by)
    return [one, replace(one, left="b")] if by == "judge" else [one]


class World:
    """Students who gain by `own`, by style and by length, as much as is planted."""

    def __init__(self, seed: int, n: int, own: float, style: float, length: float) -> None:
        rng = np.random.default_rng(seed)
        item = rng.normal(size=n)
        lean = np.array([0.0, 0.7, 1.0])[:, None]
        self.style = lean + 0.7 * item + 0.7 * rng.normal(size=(3, n))
        self.longer = np.round(400 * (lean + rng.normal(size=(3, n))) - 200)
        spread = np.tanh(self.longer / self.longer.std())
        line = -1 + own * (lean > 0) + style * self.style / self.style.std() + length * spread
        self.p, self.n = expit(line), n
        self.won = np.where(rng.random((3, n)) < self.p, 1, -1)

    def ratings(self) -> list[Rating]:
        return [
            r
            for m, won in zip(MODELS, self.won, strict=True)
            for j, w in enumerate(won)
            for r in said(m, f"i{j}", int(w))
        ]

    def lengths(self) -> dict[str, dict[str, float]]:
        own = {m: by_place(1000 + d) for m, d in zip(MODELS, self.longer, strict=True)}
        return own | {"teacher": by_place([1000.0] * self.n)}

    def scores(self) -> list[Score]:
        return [of(m, "unigram", s) for m, s in zip(MODELS, self.style, strict=True)]

    def told(self, resamples: int = 200, scores: Sequence[Score] = ()) -> tuple[Fooled, ...]:
        every = [*self.scores(), *scores]
        return fooled(
            self.ratings(), NOTHING, SUBJECTS, self.lengths(), every, "teacher", 0, resamples
        )


def test_a_fit_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x = np.stack([np.ones(60), rng.normal(size=60), rng.normal(size=60)], axis=1)
    y, weights = rng.choice([0.0, 0.25, 0.5, 1.0], 60), rng.integers(1, 4, (2, 60)) * 1.0
    found, ridged = fit(x, y, weights)
    assert not ridged.any()
    for row, w in zip(found, weights, strict=True):
        # A share is that much of a win and the rest of a loss.
        other = LogisticRegression(C=1 / RIDGE, fit_intercept=False, tol=1e-10)
        other.fit(np.concatenate([x, x]), [1] * 60 + [0] * 60, np.concatenate([w * y, w * (1 - y)]))
        assert row == pytest.approx(other.coef_[0], abs=1e-5)


def test_a_coefficient_that_only_the_ridge_holds_is_told() -> None:
    x = np.stack([np.ones(40), np.repeat([0.0, 1.0], 20)], axis=1)
    found, ridged = fit(x, np.repeat([0.0, 1.0], 20), np.ones((1, 40)))
    assert np.isfinite(found).all() and ridged.all()
    assert not fit(x, np.tile([0.0, 1.0], 20), np.ones((1, 40)))[1].any()


def test_the_explained_share_is_the_standardised_one_of_an_independent_fit() -> None:
    world = World(1, 300, 0.6, 0.7, 0.5)
    less, more = world.told(20)
    style = ((world.style - world.style.mean()) / world.style.std()).ravel()
    length = np.tanh(world.longer / world.longer.std()).ravel()
    who = np.repeat([0, 1, 2], world.n)
    x = np.stack([who == 1, who == 2, style, length], axis=1) * 1.0
    y = (world.won.ravel() > 0).astype(int)
    other = LogisticRegression(C=1e6, tol=1e-10, max_iter=1000).fit(x, y)
    a, (b, _, g, f) = other.intercept_[0], other.coef_[0]
    assert less.held.value == pytest.approx(b, abs=2e-3)
    assert less.style.value == more.style.value == pytest.approx(g, abs=2e-3)
    assert less.length.value == pytest.approx(f, abs=2e-3)
    shares = [(w > 0).mean() for w in world.won]
    odds = [np.log(s / (1 - s)) for s in shares]
    assert less.without.value == pytest.approx(odds[1] - odds[0], abs=2e-3)
    gain = shares[1] - shares[0]
    assert less.gain.value == pytest.approx(gain)
    held = expit(a + b + g * style[: world.n] + f * length[: world.n]).mean()
    assert less.explained.value == pytest.approx(1 - (held - shares[0]) / gain, abs=2e-3)
    assert less.left.value == pytest.approx(held - shares[0], abs=2e-3)


@pytest.mark.parametrize(
    ("own", "style", "share"), [(0.0, 1.3, 1.0), (1.3, 0.0, 0.0)], ids=["style alone", "nothing"]
)
def test_a_planted_share_is_found_and_lies_in_its_interval(
    own: float, style: float, share: float
) -> None:
    values, held, defined = [], 0, 0
    for seed in range(25):
        row = World(seed, 150, own, style, 0.0).told(100)[1]
        told = row.explained
        if told.value is None or told.low is None or told.high is None:
            assert told.note == NO_GAIN
            continue
        values.append(told.value)
        defined += 1
        held += told.low <= share <= told.high
    assert defined >= 20
    assert np.median(values) == pytest.approx(share, abs=0.12)
    # That five or more of 25 intervals miss has a chance of one in a hundred.
    assert held >= defined - 4


def test_no_gain_is_not_explained() -> None:
    row = World(0, 60, 0.0, 0.0, 0.0).told(100)[0]
    assert row.explained.value is None and row.explained.note == NO_GAIN
    assert row.gain.low is not None and row.gain.low < 0


def test_few_items_are_not_explained() -> None:
    assert World(0, 12, 3.0, 0.0, 0.0).told(50)[1].explained.note == FEW


def test_always_winning_stays_finite_and_says_so() -> None:
    world = World(0, 40, 0.0, 0.0, 0.0)
    world.won[0], world.won[1:] = -1, 1
    row = world.told(50)[1]
    assert row.gain.value == 1.0
    for told in (row.held, row.without):
        assert told.value is not None and np.isfinite(told.value)
        assert (told.low, told.high, told.note) == (None, None, APART)
    assert row.explained.value is not None and 0 <= row.explained.value <= 1


def test_a_style_that_the_base_never_has_is_extrapolated() -> None:
    world = World(3, 80, 1.5, 0.3, 0.0)
    world.style[1:] += 9
    row = world.told(50)[1]
    assert BEYOND.format("unlike the teacher's") in row.explained.note


def test_correctness_takes_its_part() -> None:
    world = World(5, 300, 0.0, 0.0, 0.0)
    rng = np.random.default_rng(0)
    right = (rng.random((3, 300)) < np.array([0.2, 0.5, 0.8])[:, None]) * 1.0
    world.won = np.where(rng.random((3, 300)) < np.where(right, 0.7, 0.2), 1, -1)
    marks = [
        of(m, "correct", list(r), family="capability", primary=False)
        for m, r in zip(MODELS, right, strict=True)
    ]
    row = world.told(100, marks)[1]
    assert row.corrected is not None
    by, style = row.corrected.by_correctness, row.corrected.explained
    # All that is gained is planted in being right.
    assert by.low is not None and by.high is not None and by.low < 1 < by.high
    assert style.low is not None and style.high is not None and style.low < 0 < style.high
    style_z = (world.style - world.style.mean()) / world.style.std()
    length = np.tanh(world.longer / world.longer.std())
    who = np.repeat([0, 1, 2], 300)
    x = np.stack([who == 1, who == 2, style_z.ravel(), length.ravel(), right.ravel()], axis=1) * 1.0
    other = LogisticRegression(C=1e6, tol=1e-10, max_iter=1000).fit(x, world.won.ravel() > 0)
    line, at = other.decision_function(x)[600:], other.coef_[0][4]
    fell = (expit(line) - expit(line - at * (right[2] - right[0]))).mean()
    gain = ((world.won[2] > 0) * 1.0 - (world.won[0] > 0)).mean()
    assert row.corrected.correctness.value == pytest.approx(at, abs=2e-3)
    assert by.value == pytest.approx(fell / gain, abs=2e-3)
    assert world.told(5)[1].corrected is None


def test_people_are_drawn_with_the_items() -> None:
    world = World(2, 60, 0.0, 0.0, 0.0)
    rng = np.random.default_rng(0)
    # Two of five people like the student whatever it says, the others like the base's answers.
    votes = [
        r
        for m in ("base", "more")
        for j in range(60)
        for k in range(5)
        for r in said(m, f"i{j}", 1 if rng.random() < _liked(m, k) else -1, f"r{k}", "private")
    ]
    # The same votes as if one judge had cast them all.
    judge = [replace(r, rater="j", workforce="judge", left=s) for r in votes for s in ("a", "b")]
    rest = (NOTHING, SUBJECTS, world.lengths(), world.scores(), "teacher", 0, 200)
    (people,), (alone,) = fooled(votes, *rest), fooled(judge, *rest)
    assert (people.rater, alone.rater) == ("people", "j")
    assert people.gain.value == pytest.approx(alone.gain.value)
    wide, narrow = (
        f.gain.high - f.gain.low
        for f in (people, alone)
        if f.gain.low is not None and f.gain.high is not None
    )
    assert wide > 3 * narrow


def _liked(model: str, rater: int) -> float:
    return 0.9 if (model == "more") == (rater < 2) else 0.2


def test_only_students_beside_a_base_of_the_same_rater_have_a_row() -> None:
    world = World(0, 30, 1.0, 0.0, 0.0)
    ratings = [r for r in world.ratings() if "less" not in (r.a, r.b)]
    rest = (NOTHING, SUBJECTS, world.lengths(), world.scores(), "teacher", 0, 10)
    assert [f.model for f in fooled(ratings, *rest)] == ["more"]
    assert fooled([r for r in ratings if "base" not in (r.a, r.b)], *rest) == ()
    bare = fooled(ratings, NOTHING, SUBJECTS, {}, [], "teacher", 0, 10)[0]
    assert bare.gain.value is not None
    assert bare.explained.note == bare.style.note == NO_TERMS


def test_likeness_is_a_mean_of_standard_scores() -> None:
    scores = [
        of("a", "list", [0, 1]), of("b", "list", [1, 1]),
        of("a", "more_code", [-3, 1], better="zero"), of("b", "more_code", [1, 3], better="zero"),
        of("a", "length", [5, 6], aggregate="pearson"), of("a", "length_ratio", [5, 6]),
        of("a", "tone", [1, 0], task="judge"), of("a", "same", [1, 1]), of("b", "same", [1, 1]),
        of("c", "list", [0, 0]),
    ]  # fmt: skip
    found = likeness(scores, ["a", "b"])
    assert found.metrics == ("list", "more_code")
    # list: mean 3/4, sd sqrt(3)/4; code: -3, -1, -1, -3, mean -2, sd 1.
    high, low = 1 / 3**0.5, -(3**0.5)
    assert found.values["a"] == pytest.approx({"i0": (low - 1) / 2, "i1": (high + 1) / 2})
    assert found.above("a", "b", ["i0", "i1", "elsewhere"]) == [False, True]


def test_preferred_but_wrong_says_in_how_many_the_style_is_nearer() -> None:
    world = World(4, 40, 1.0, 0.0, 0.0)
    wrong = [of("more", "correct", [0.0] * 40, family="capability", primary=False)]
    ratings, scores = world.ratings(), [*world.scores(), *wrong]
    found = judged(ratings, "teacher", world.lengths(), scores)
    row = fooled(ratings, found, SUBJECTS, world.lengths(), scores, "teacher", 0, 10)[1]
    won = [j for j in range(40) if world.won[2, j] > 0]
    assert row.wrong == tuple(sorted(f"i{j}" for j in won))
    assert row.compared == len(won)
    assert row.styled == sum(world.style[2, j] > world.style[0, j] for j in won)
