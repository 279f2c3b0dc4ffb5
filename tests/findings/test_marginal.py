from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from findings_example import AMOUNTS, PAPER, make, subjects
from scipy.stats import norm

from epigone.findings import Base, DataOrBase, Subject, analyse, change
from epigone.schema import Score

SIZES = [Base("small", 10**8), Base("large", 10**9)]


def choice(people: list[Subject], scores: list[Score], bases: list[Base]) -> DataOrBase:
    return next(d for d in analyse(people, scores, bases=bases).data_or_base if d.base == "small")


def test_gains_are_per_doubling_and_of_students_of_the_same_amount() -> None:
    scores = make({**PAPER, "small-32000": (0.6, 0.4)}, 400)
    found = choice(subjects(), scores, SIZES)
    value = {m: np.mean([s.value for s in scores if s.model == m and s.task]) for m in PAPER}
    assert (found.previous, found.amount, found.other, found.trained) == (
        8000,
        32000,
        "large",
        True,
    )
    # 8,000 to 32,000 are two doublings.
    data = (value["small-32000"] - value["small-8000"]) / 2
    assert found.data_gain.value == pytest.approx(data)
    assert found.base_gain is not None and found.contrast is not None
    ahead = value["large-32000"] - value["small-32000"]
    assert found.base_gain.value == pytest.approx(ahead)
    assert found.contrast.value == pytest.approx(ahead - data)
    assert found.base_better == 1.0


def test_untrained_bases_are_compared_where_the_next_one_has_no_students() -> None:
    scores = [s for s in make(PAPER, 400) if s.model in ("large", "small") or "small-" in s.model]
    people = [s for s in subjects() if s.base == "small" or s.untrained]
    found = choice(people, scores, SIZES)
    value = {
        m: np.mean([s.value for s in scores if s.model == m and s.task]) for m in ("small", "large")
    }
    assert not found.trained
    assert found.base_gain is not None
    assert found.base_gain.value == pytest.approx(value["large"] - value["small"])


def test_the_next_base_is_the_next_larger_one() -> None:
    people = subjects(("small", "huge", "large"))
    levels = {s.model: (0.1, 0.5 if s.base == "small" else 0.6) for s in people}
    bases = [Base("small", 10), Base("huge", 1000), Base("large", 100)]
    scores = make(levels, 100)
    others = {d.base: d.other for d in analyse(people, scores, bases=bases).data_or_base}
    assert others == {"small": "large", "large": "huge", "huge": ""}
    # Without sizes it is the best one untrained.
    levels |= {"huge": (0.1, 0.9)}
    assert choice(people, make(levels, 200), []).other == "huge"


def test_probability_is_the_share_of_draws_and_costs_are_carried() -> None:
    people = [
        replace(s, hours=h, dollars=0.5)
        for s, h in zip(subjects(), (None, 1.0, 2.0, None, 3.0, 40.0), strict=True)
    ]
    levels = {**PAPER, "large-32000": (0.6, 0.36), "small-32000": (0.6, 0.33)}
    found = choice(people, make(levels, 300), SIZES)
    assert found.contrast is not None and found.contrast.low is not None
    assert found.base_better is not None and 0.5 < found.base_better < 1.0
    assert (found.data_hours, found.base_hours, found.data_dollars) == (2.0, 40.0, 0.5)
    # Twenty times the hours for less than twenty times the gain.
    assert found.base_better_per_hour is not None
    assert found.base_better_per_hour < found.base_better
    z = found.contrast.value / ((found.contrast.high - found.contrast.low) / 3.93)  # type: ignore[operator]
    assert found.base_better == pytest.approx(norm.cdf(z), abs=0.04)


def test_local_is_compared_with_broad_at_the_nearest_amount() -> None:
    people = [
        *subjects(("small",), AMOUNTS),
        *(Subject(f"own-{a}", "small", "own", a, supports=("nq",)) for a in (2000, 9000)),
    ]
    levels = {m: v for m, v in PAPER.items() if m.startswith("small")}
    scores = make({**levels, "own-2000": (0.2, 0.4), "own-9000": (0.2, 0.5)}, 300)
    (row,) = analyse(people, scores, reported={"nq": 0.9}).local_broad
    assert (row.local_amount, row.broad_amount, row.task) == (9000, 8000, "nq")
    by = {s.model: s for s in scores if s.task == "nq"}
    assert row.difference == change(by["small-8000"], by["own-9000"])
    assert row.local_change == change(by["small"], by["own-9000"])
    assert row.broad_change == change(by["small"], by["small-8000"])
    assert (row.base_value, row.local_value) == (by["small"].value, by["own-9000"].value)
    assert row.teacher.value == 0.9
