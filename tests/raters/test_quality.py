from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from epigone.raters.quality import Conduct, Proposal, conduct, excluded, proposed
from epigone.schema import Rating


def rating(item: object, rater: str, preference: int | None, left: str = "a", **kw: Any) -> Rating:
    return Rating(str(item), rater, "base", "teacher", preference, left, **kw)  # type: ignore[arg-type]


def of(ratings: list[Rating], name: str) -> Conduct:
    (found,) = [c for c in conduct(ratings) if c.rater == name]
    return found


def test_figures_worked_by_hand() -> None:
    mine = [
        rating(1, "me", 2, "a", seconds=2.0),  # left, with the others
        rating(2, "me", -1, "b", seconds=10.0),  # left, against them
        rating(3, "me", 0, "a", seconds=30.0),  # undecided, and so are the others
        rating(4, "me", 1, "b"),  # right, nobody else rated it
        rating("g1", "me", 1, purpose="gold", expected=2),
        rating("g2", "me", -1, purpose="gold", expected=2),
        rating("c1", "me", 0, purpose="attention", expected=0),
        rating("t1", "me", -2, purpose="training", expected=2, seconds=1.0),
    ]
    others = [rating(1, "x", 1), rating(1, "y", 2), rating(2, "x", 2), rating(3, "x", 1),
              rating(3, "y", -1), rating(2, "z", -2, excluded="too fast")]  # fmt: skip
    # A judge is not one of the other raters.
    others += [rating(4, "judge", -2, left, workforce="judge") for left in "ab"]
    found = of(mine + others, "me")
    assert (found.n, found.decided, found.left) == (4, 3, pytest.approx(2 / 3))
    assert (found.seconds, found.fast) == (10.0, pytest.approx(1 / 3))
    assert (found.gold, found.golds, found.attention, found.attentions) == (1, 2, 1, 1)
    # On the screen: 2, 1, 0, -1.
    assert found.same == 0.25
    assert found.agreement == pytest.approx(2 / 3)
    assert excluded(mine + others)[0].reason == "too fast"


def careful(name: str, n: int = 40, seed: int = 0) -> list[Rating]:
    rng = np.random.default_rng(seed)
    return [
        rating(i, name, int(rng.integers(-2, 3)), str(rng.choice(["a", "b"])), seconds=20.0)
        for i in range(n)
    ]


def test_each_rule_proposes_with_its_figures() -> None:
    checks = [rating(f"c{i}", "checks", 2, purpose="attention", expected=-2) for i in range(2)]
    golds = [rating(f"g{i}", "golds", 1 if i < 3 else -1, purpose="gold", expected=1)
             for i in range(8)]  # fmt: skip
    hasty = [rating(i, "hasty", r.preference, r.left, seconds=1.5)
             for i, r in enumerate(careful("", 10, 2))]  # fmt: skip
    lefts = [rating(i, "lefts", 1 + i % 2 if i % 3 else -1 - i % 2, "a" if i % 3 else "b",
                    seconds=20.0) for i in range(20)]  # fmt: skip
    equal = [rating(i, "equal", 0, seconds=20.0) for i in range(12)]
    ratings = checks + golds + hasty + lefts + equal + careful("careful", seed=1)
    assert proposed(ratings) == [
        Proposal("checks", "2 of 2 attention checks failed"),
        Proposal("equal", "one choice in 100% of 12 answers"),
        # P(3 or fewer of 8) is 0.01 for one who knows four in five.
        Proposal("golds", "3 of 8 known answers right"),
        Proposal("hasty", "100% of 10 answers in less than 4 s"),
        Proposal("lefts", "the left one in 100% of 20 decided answers (p = 2e-06)"),
    ]
    assert not [p for p in proposed(ratings, fast=1.0) if p.rater == "hasty"]


def test_whom_not_to_suspect() -> None:
    few = [rating(i, "few", 1, "a", seconds=1.0) for i in range(9)]
    # One of two known answers is not yet unlikely for one who knows four in five.
    few += [rating("g", "few", 1, purpose="gold", expected=1),
            rating("h", "few", 1, purpose="gold", expected=-1)]  # fmt: skip
    judge = [rating(i, "judge", 2, "a", workforce="judge") for i in range(30)]
    contrary = careful("contrary", seed=4)
    rest = [rating(r.item, "rest", -(r.preference or 0), r.left, seconds=20.0) for r in contrary]
    assert of(contrary + rest, "contrary").agreement < 0.4  # type: ignore[operator]
    assert proposed(few + judge + contrary + rest) == []


def test_who_is_excluded_is_not_proposed_again_and_can_come_back() -> None:
    equal = [rating(i, "equal", 0) for i in range(12)]
    out = [rating(i, "equal", 0, excluded="one choice") for i in range(12)]
    assert [p.rater for p in proposed(equal)] == ["equal"]
    assert proposed(out) == []
    # What is seen of them stays, so that it can be judged again.
    assert of(out, "equal").same == 1.0 and of(out, "equal").excluded == 12


def test_a_rater_without_answers() -> None:
    found = of([rating(1, "judge", None, workforce="judge")], "judge")
    assert (found.n, found.left, found.same, found.agreement, found.fast) == (0, *[None] * 4)
