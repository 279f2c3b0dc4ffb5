from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import krippendorff as reference
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from epigone.raters.agreement import Level, judges, krippendorff
from epigone.raters.export import Row
from epigone.schema import Rating

LEVELS: tuple[Level, ...] = ("nominal", "ordinal", "interval")
# K. Krippendorff's example of four coders and twelve units (2011), shifted by three so that its
# five categories are our five choices; a coder who did not rate a unit is None.
CODERS = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3),
    (None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None),
)


def rating(item: object, rater: object, preference: int | None, **kw: object) -> Rating:
    kw = {"left": "a", **kw}
    return Rating(str(item), str(rater), "base", "teacher", preference, **kw)  # type: ignore[arg-type]


def judged(item: object, rater: str, *orders: int | None) -> list[Rating]:
    return [rating(item, rater, value, left=side, workforce="judge")
            for side, value in zip("ab", orders, strict=False)]  # fmt: skip


def renamed(ratings: Sequence[Rating], names: dict[str, str]) -> list[Rating]:
    """The same under other names, with a before b again."""
    return [
        Row(item=r.item, rater=r.rater, a=names.get(r.a, r.a), b=names.get(r.b, r.b), left=r.left,
            preference=r.preference, workforce=r.workforce).rating()
        for r in ratings
    ]  # fmt: skip


def table(rows: Sequence[Sequence[int | None]]) -> list[Rating]:
    return [
        rating(f"u{u:02d}", f"r{r}", value - 3)
        for r, row in enumerate(rows)
        for u, value in enumerate(row)
        if value is not None
    ]


@pytest.mark.parametrize(
    ("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_the_published_example(level: Level, published: float) -> None:
    found = krippendorff(table(CODERS), level)
    assert found.alpha == pytest.approx(published, abs=0.0005)
    # The twelfth unit has one coder: it cannot be compared.
    assert (found.n_items, found.n_units, found.n_raters, found.n_ratings) == (11, 11, 4, 40)
    assert found.low is not None and found.high is not None
    assert found.low < published < found.high


def test_pairs_worked_by_hand() -> None:
    # Item x: 2, 1, 1 has three pairs, one alike, all in one direction. Item y: 0, -1 has one, not.
    ratings = [rating("x", 0, 2), rating("x", 1, 1), rating("x", 2, 1), rating("y", 0, 0),
               rating("y", 1, -1)]  # fmt: skip
    found = krippendorff(ratings)
    assert found.pairwise == pytest.approx(1 / 4)
    assert found.direction == pytest.approx(3 / 4)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 5).flatmap(
        lambda raters: st.lists(
            st.lists(st.one_of(st.none(), st.integers(1, 5)), min_size=raters, max_size=raters),
            min_size=1, max_size=12,
        )
    )
)  # fmt: skip
def test_equals_the_reference_package(units: list[list[int | None]]) -> None:
    rows = list(zip(*units, strict=True))
    data = np.array([[np.nan if v is None else v for v in row] for row in rows], dtype=float)
    pairable = data[:, (~np.isnan(data)).sum(axis=0) > 1]
    several = len(np.unique(pairable[~np.isnan(pairable)])) > 1
    for level in LEVELS:
        found = krippendorff(table(rows), level).alpha
        if several:
            want = reference.alpha(reliability_data=pairable, level_of_measurement=level)
            assert found == pytest.approx(want, abs=1e-9)
        else:
            assert found is None


def test_only_answers_that_count() -> None:
    kept = table(CODERS)
    noise = [
        rating("u00", "r8", -2, excluded="too fast"),
        rating("u00", "r9", -2, purpose="gold", expected=2),
        rating("u00", "r9", -2, purpose="training"),
        *judged("u00", "judge", None),
    ]
    assert krippendorff(kept + noise) == krippendorff(kept)


def test_both_orders_of_a_judge_are_one_opinion() -> None:
    base = [rating(i, "p", v) for i, v in enumerate((2, -1, 0, 1))]
    orders = [(2, 0), (-1, -1), (2, -2), (1, 0)]
    twice = [r for i, pair in enumerate(orders) for r in judged(i, "j", *pair)]
    # One order alone, and one whose other verdict cannot be read, are no opinion.
    halves = [*judged(1, "half", -2), *judged(2, "half", 2, None)]
    found = krippendorff(base + twice + halves)
    data = np.array([[2, -1, 0, 1], [1, -1, 0, 0.5]])
    want = reference.alpha(reliability_data=data, level_of_measurement="ordinal")
    assert found.alpha == pytest.approx(want)
    assert found.n_raters == 2


def test_comparisons_of_one_item_are_resampled_together() -> None:
    rng = np.random.default_rng(0)
    one, many = [], []
    for i in range(40):
        truth = int(rng.integers(-2, 3))
        for rater in "xyz":
            value = int(np.clip(truth + rng.integers(-1, 2), -2, 2))
            one.append(rating(i, rater, value))
            # The same opinions of three more models: nothing new is known.
            many += [Rating(str(i), rater, m, "teacher", value, "a") for m in ("m1", "m2", "m3")]
    single, copied = krippendorff(one), krippendorff(many)
    assert copied.n_items == single.n_items == 40 and copied.n_units == 120
    assert copied.high - copied.low == pytest.approx(single.high - single.low, rel=0.1)  # type: ignore[operator]


def test_other_raters_might_have_come() -> None:
    # Of twelve raters six see everything well, and six nothing.
    rng = np.random.default_rng(1)
    own, mixed = [], []
    for i in range(90):
        truth = int(rng.integers(-2, 3))
        here = rng.permutation(12)[:3]
        said = [truth if r < 6 else int(rng.integers(-2, 3)) for r in here]
        own += [rating(i, f"r{r:02d}", v) for r, v in zip(here, said, strict=True)]
        # The same opinions of raters who are all alike.
        mixed += [
            rating(i, f"r{r:02d}", v) for r, v in zip(rng.permutation(here), said, strict=True)
        ]
    one, other = krippendorff(own), krippendorff(mixed)
    assert one.alpha == pytest.approx(other.alpha)
    assert one.high - one.low > 1.3 * (other.high - other.low)  # type: ignore[operator]
    few = krippendorff(table(CODERS))
    assert few.note == "for these raters"


def test_a_seed_gives_the_same_interval() -> None:
    ratings = table(CODERS)
    assert krippendorff(ratings, seed=1) == krippendorff(list(reversed(ratings)), seed=1)
    assert krippendorff(ratings, seed=1).low != krippendorff(ratings, seed=2).low


def test_nothing_to_compare() -> None:
    alone = krippendorff([rating("x", 0, 1), rating("y", 1, 1)])
    assert (alone.alpha, alone.pairwise, alone.n_units) == (None, None, 0)
    alike = krippendorff([rating(i, r, 1) for i in range(9) for r in range(3)])
    assert (alike.alpha, alike.pairwise) == (None, 1.0)
    assert "all chose the same" in alike.note


def test_a_judge_beside_people() -> None:
    rng = np.random.default_rng(3)
    ratings, mine, theirs = [], [], []
    for i in range(80):
        people = [int(v) for v in rng.integers(-2, 3, 3)]
        orders = [int(v) for v in rng.integers(-2, 3, 2)]
        ratings += [rating(i, r, v) for r, v in enumerate(people)]
        ratings += judged(i, "j", *orders)
        mine.append(int(np.sign(sum(orders))))
        theirs.append(int(np.sign(sum(people))))
    ratings += [rating("only people", "p", 2), *judged("only people", "j", 2)]
    (found,) = judges(ratings)
    assert (found.n_units, found.dropped) == (80, 1)
    assert found.direction.value == pytest.approx(np.mean(np.array(mine) == np.array(theirs)))
    kappa = cohen_kappa_score(mine, theirs, weights="linear")
    assert found.kappa.value == pytest.approx(kappa)
    assert found.kappa.low is not None and found.kappa.high is not None
    assert found.kappa.low < kappa < found.kappa.high


def test_a_judge_in_a_persons_place() -> None:
    # Of x all three prefer base, of y two do and one does not; the judge always does. In y the
    # mean of the others is a tie for two people, and for the third it is base.
    said = {"x": (2, 1, 1), "y": (1, 1, -1)}
    ratings = [rating(i, r, v) for i, values in said.items() for r, v in enumerate(values)]
    (found,) = judges([*ratings, *judged("x", "j", 1, 1), *judged("y", "j", 2, 1)])
    assert found.direction.value == 1.0
    assert (found.person.value, found.in_place.value) == (
        pytest.approx(3 / 6),
        pytest.approx(4 / 6),
    )


def test_names_change_nothing_and_a_better_model_is_no_agreement() -> None:
    rng = np.random.default_rng(5)
    ratings = []
    for i, student in product(range(100), ("m1", "m2", "m3")):
        # Noise around the teacher's being better: raters agree on nothing but that.
        said = [int(v) for v in rng.choice([-2, -1, 0, 1], 5, p=[0.5, 0.3, 0.1, 0.1])]
        unit = [rating(f"{i:03d}", r, v) for r, v in enumerate(said[:3])]
        unit += judged(f"{i:03d}", "j", *said[3:])
        ratings += [replace(r, a=student) for r in unit]
    others = renamed(ratings, {"m1": "zebra", "m3": "x"})
    for level in LEVELS:
        one, other = krippendorff(ratings, level), krippendorff(others, level)
        assert one.alpha == pytest.approx(other.alpha) and abs(one.alpha or 1) < 0.06
        assert (one.low, one.pairwise) == pytest.approx((other.low, other.pairwise))
    (mine,), (theirs,) = judges(ratings), judges(others)
    assert (
        mine.kappa.value == pytest.approx(theirs.kappa.value) and abs(mine.kappa.value or 1) < 0.1
    )
    assert mine.direction.value == pytest.approx(theirs.direction.value)


def test_a_judge_of_other_items() -> None:
    (found,) = judges([*judged("x", "j", 1, 1), rating("y", "p", 1)])
    assert found.n_units == 0 and found.direction.value is None
