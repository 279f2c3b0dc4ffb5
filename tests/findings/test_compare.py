from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from epigone.findings import Side, Subject, analyse, change, compare
from epigone.schema import Score

BASE = Subject("base", "base")
STUDENT = Subject("base:talk:8k:s0", "base", "talk", 8000)


def score(model=STUDENT.model, right=(), n=10, start=0, **kw):
    """Facts of `n` questions, of which those in `right` are answered well."""
    values = {f"q{i}": float(i in right) for i in range(start, start + n)}
    made = {"metric": "acc", "task": "facts", "family": "capability"} | kw
    return Score(model=model, value=sum(values.values()) / n, n=n, values=values, **made)


def side(*scores, subjects=(BASE, STUDENT), **kw):
    return Side(subjects, scores, **kw)


def row(found, metric="acc"):
    (one,) = [r for r in found.scores if r.metric == metric and r.pair is not None]
    return one


def test_a_difference_is_paired_on_the_items_that_both_have() -> None:
    a = score(right=(0, 1, 2, 5), n=10)
    b = score(right=(1, 2, 6, 7, 8, 11), n=10, start=2)
    found = row(compare(side(a), side(b)))
    assert (found.first.value, found.second.value) == (0.4, 0.5)
    # Of q2 to q9, the first has q2 and q5 right, the second q2, q6, q7 and q8.
    assert found.difference.value == pytest.approx((4 - 2) / 8)
    assert found.difference.n == 8
    assert found.difference.note == ""
    own = replace(a, values={f"q{i}": float(i in (2, 5)) for i in range(2, 10)})
    other = replace(b, values={f"q{i}": float(i in (2, 6, 7, 8)) for i in range(2, 10)})
    assert found.difference == change(own, other)


def test_turned_around_a_comparison_says_the_opposite() -> None:
    a, b = score(right=(0, 1, 2, 3)), score(right=(1, 2, 5, 6, 7, 8))
    there, back = (row(compare(side(x), side(y))).difference for x, y in ((a, b), (b, a)))
    assert (there.value, there.low, there.high) == pytest.approx(
        (-back.value, -back.high, -back.low)
    )


@pytest.mark.parametrize(
    ("second", "conditions", "why"),
    [
        ({"version": 2}, ({}, {}), "version 1 of the metric against version 2"),
        ({"method": "letters"}, ({}, {}), "come by in another way: as usual against letters"),
        (
            {},
            ({"facts": {"shots": 3, "format": "raw"}}, {"facts": {"shots": None, "format": "raw"}}),
            "measured in another way: shots 3 against not set",
        ),
        ({"start": 20}, ({}, {}), "no items in common"),
    ],
)
def test_what_was_measured_in_another_way_is_shown_and_not_compared(
    second, conditions, why
) -> None:
    sides = [
        side(score(right=(1,), **kw), conditions=how)
        for kw, how in zip(({}, second), conditions, strict=True)
    ]
    found = row(compare(*sides))
    assert found.first.value == 0.1
    assert found.second.value is not None
    assert (found.difference.value, found.why) == (None, why)


def test_a_format_of_a_task_has_the_conditions_of_its_name() -> None:
    scores = [score(right=(1,), task="toxicity:proxy:all") for _ in range(2)]
    how = {"toxicity:proxy": {"samples": 25}}, {"toxicity:proxy": {"samples": 5}}
    found = row(compare(*(side(s, conditions=h) for s, h in zip(scores, how, strict=True))))
    assert found.why == "measured in another way: samples 25 against 5"
    # What style was measured under says nothing of a task.
    how = {"": {"max_new_tokens": 64}}, {"": {"max_new_tokens": 256}}
    found = row(compare(*(side(s, conditions=h) for s, h in zip(scores, how, strict=True))))
    assert found.difference.value == 0.0


def test_style_is_compared_where_the_teachers_said_the_same() -> None:
    kw = {"family": "style", "task": "", "metric": "list"}
    a, b = score(right=(0, 1), n=4, **kw), score(right=(0, 2, 3), n=4, **kw)
    said = {f"q{i}": f"answer {i}" for i in range(4)}
    other = said | {"q3": "something else"}
    found = row(compare(side(a, answers=said), side(b, answers=other)), "list")
    # q3 is left out: the first has q0 and q1 of three, the second q0 and q2.
    assert (found.difference.value, found.difference.n) == (0.0, 3)
    nothing = row(
        compare(side(a, answers=said), side(b, answers={k: v + "!" for k, v in said.items()})),
        "list",
    )
    assert nothing.difference.value is None
    assert "teachers' answers differ" in nothing.why


def test_cells_pair_by_their_axes_and_the_largest_that_are_left() -> None:
    def grid(*amounts, seed=0):
        return [Subject(f"s{a}", "base", "talk", a, seed) for a in amounts]

    first, second = [BASE, *grid(8, 16, 32)], [BASE, *grid(8, 24, 64), *grid(8, seed=1)]
    found = compare(side(subjects=first), side(subjects=second))
    pairs = [(p.first.amount, p.second.amount) for p in found.pairs]
    assert pairs == [(0, 0), (8, 8), (32, 64)]
    assert [s.amount for s in found.only_first] == [16]
    assert [(s.amount, s.seed) for s in found.only_second] == [(24, 0), (8, 1)]
    apart = compare(side(), side(subjects=[Subject("other", "other")]))
    assert apart.pairs == ()
    assert "no student in common" in apart.remarks[0]


def test_a_base_that_scores_differently_is_told_before_all() -> None:
    student = score(right=(1, 2))
    same = [score("base", (0, 1)), student]
    found = compare(side(*same), side(*same))
    assert found.remarks == ()
    for r in found.scores:
        assert (r.difference.value, r.difference.low, r.difference.high) == (0.0, 0.0, 0.0)
        assert r.difference.note == "the same on every item"
    moved = compare(side(*same), side(score("base", (0, 2)), student))
    assert len(moved.remarks) == 1
    assert "base as it came does not score the same in both (facts/acc)" in moved.remarks[0]


def grid_scores(lift, rng, seeds=(0,)):
    """A base and students of every seed on two tasks of 40 items, and a third of its own rule."""
    subjects, found = [BASE], []
    subjects += [Subject(f"s{k}", "base", "talk", 8000, k) for k in seeds]
    for task in ("one", "two", "three"):
        hard = rng.random(40)
        for s in subjects:
            level = 0.4 if s.untrained else 0.4 + lift
            found.append(score(s.model, np.flatnonzero(hard < level), 40, task=task))
    return subjects, found


def test_families_differ_by_the_mean_over_the_tasks_that_both_measured_alike() -> None:
    sides = []
    for lift, how in ((0.1, {}), (0.3, {"three": {"shots": 5}})):
        subjects, scores = grid_scores(lift, np.random.default_rng(1), seeds=(0, 1))
        found = analyse(subjects, scores)
        sides.append(side(*scores, subjects=subjects, summaries=found.summaries, conditions=how))
    (one,) = [f for f in compare(*sides).families if f.family == "capability"]
    assert one.first.estimate.value < one.second.estimate.value
    means = [
        np.mean([s.value for s in x.scores if s.model != "base" and s.task != "three"])
        for x in sides
    ]
    assert one.difference.value == pytest.approx(means[1] - means[0])
    assert one.difference.low > 0
    assert "unsupported" not in {f.family for f in compare(*sides).families}
