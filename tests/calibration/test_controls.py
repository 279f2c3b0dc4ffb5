"""The controls on made-up scores: each is shown where its effect is there, and else is not."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from epigone.calibration.controls import MARGIN, Cell, Control, Measured, controls, measured
from epigone.findings import Subject, analyse
from epigone.schema import Interval, Score

BASES = ("small", "large")
KNOWLEDGE, RULE, STYLE = "knowledge", "badges:chat", ""
Rates = dict[tuple[str, str], float]
# How often a model is right, or has a list where the teacher has one: base, corpus or none.
TRUTH: dict[str, Rates] = {
    KNOWLEDGE: {
        ("small", ""): 0.4, ("small", "broad"): 0.38, ("small", "local"): 0.35,
        ("large", ""): 0.9, ("large", "broad"): 0.88, ("large", "local"): 0.85,
    },
    RULE: {
        ("small", ""): 0.12, ("small", "broad"): 0.12, ("small", "local"): 0.9,
        ("large", ""): 0.12, ("large", "broad"): 0.12, ("large", "local"): 0.97,
    },
    STYLE: {
        ("small", ""): 0.0, ("small", "broad"): 0.8, ("small", "local"): 0.0,
        ("large", ""): 0.0, ("large", "broad"): 0.9, ("large", "local"): 0.0,
    },
}  # fmt: skip


def shown(
    changes: dict[tuple[str, str, str], float] | None = None, gone: str = ""
) -> list[Control]:
    """The controls of a study in which these rates differ, without the scores of a model."""
    subjects, scores = [], []
    for base in BASES:
        for corpus in ("", "broad", "local"):
            model = ":".join(filter(None, (base, corpus)))
            subjects.append(Subject(model, base, corpus or None, 4 if corpus else 0))
            if model == gone:
                continue
            for task, rates in TRUTH.items():
                rate = (changes or {}).get((task, base, corpus), rates[(base, corpus)])
                scores.append(score(model, task, rate))
    scores.append(score("teacher", STYLE, 0.95))
    found = measured(
        analyse(subjects, scores, teacher="teacher", reported={KNOWLEDGE: 1.0, RULE: 1.0}),
        scores, BASES, broad="broad", local="local", knowledge=KNOWLEDGE, rule=RULE,
    )  # fmt: skip
    return controls(found)


def score(model: str, task: str, rate: float) -> Score:
    """Items that are right so often, in an order that is nearly the same for every model."""
    n = 40 if task == STYLE else 200
    rng = random.Random(f"{model} {task}")
    ease = random.Random(task)
    order = sorted(range(n), key=lambda i: ease.random() + 0.1 * rng.random())
    right = set(order[: round(rate * n)])
    values = {f"{task}-{i}": float(i in right) for i in range(n)}
    return Score(
        metric="list" if task == STYLE else "acc", model=model, task=task, n=n, values=values,
        family="style" if task == STYLE else "capability", value=len(right) / n,
        ceiling=1.0 if task == STYLE else None,
    )  # fmt: skip


def passed(found: list[Control]) -> list[bool]:
    return [c.passed for c in found]


def test_all_four_are_shown_where_all_is_as_it_should_be() -> None:
    found = shown()
    assert passed(found) == [True] * 4
    style, broad, local, ahead = found
    # The cell where it holds least: (0.8 - 0) / (0.95 - 0); 0.9 - 0.12; 0.9 - 0.4.
    assert style.number.value == pytest.approx(0.8 / 0.95)
    assert style.where == "small, least of 2 cells"
    assert broad.number.value == pytest.approx(-0.02)
    assert local.number.value == pytest.approx(0.78)
    assert ahead.number.value == pytest.approx(0.5)
    assert all(c.line().startswith("passed  ") for c in found)


@pytest.mark.parametrize(
    ("change", "control"),
    [
        ({(STYLE, "large", "broad"): 0.0}, 0),
        ({(STYLE, "small", "broad"): 0.0}, 0),
        ({(KNOWLEDGE, "small", "broad"): 0.6}, 1),
        ({(KNOWLEDGE, "large", "broad"): 0.97}, 1),
        ({(RULE, "small", "local"): 0.12}, 2),
        ({(RULE, "large", "local"): 0.05}, 2),
        ({(KNOWLEDGE, "large", ""): 0.4, (KNOWLEDGE, "large", "broad"): 0.38}, 3),
        ({(KNOWLEDGE, "large", ""): 0.3, (KNOWLEDGE, "large", "broad"): 0.28}, 3),
    ],
)
def test_one_fails_where_its_effect_is_taken_away_from_one_base(
    change: dict[tuple[str, str, str], float], control: int
) -> None:
    found = shown(change)
    assert [i for i, ok in enumerate(passed(found)) if not ok] == [control]
    assert found[control].line().startswith("FAILED  ")


def test_what_is_not_measured_is_not_shown() -> None:
    assert passed(shown(gone="small:broad")) == [False, False, True, True]
    assert passed(shown(gone="large:local")) == [True, True, False, True]
    assert passed(shown(gone="small")) == [False] * 4
    found = controls(
        measured(analyse([], []), [], BASES, broad="b", local="l", knowledge=KNOWLEDGE, rule=RULE)
    )
    assert passed(found) == [False] * 4
    assert "not measured" in found[0].line()


def test_a_teacher_without_a_style_closes_nothing() -> None:
    scores = [score(m, STYLE, 0.0) for m in ("small", "small:broad")]
    scores = [replace(s, ceiling=0.0) for s in scores]
    subjects = [Subject("small", "small"), Subject("small:broad", "small", "broad", 4)]
    findings = analyse(subjects, scores)
    found = measured(
        findings, scores, ["small"], broad="broad", local="local", knowledge=KNOWLEDGE, rule=RULE
    )
    assert not controls(found)[0].passed


def test_a_measurement_too_coarse_to_see_a_rise_is_no_proof_of_none() -> None:
    good = Cell("a", Interval(0.5, 0.4, 0.6, 100))

    def broad(low: float, high: float) -> bool:
        cell = Cell("a", Interval((low + high) / 2, low, high, 100))
        return controls(Measured([good], [cell], [good], good))[1].passed

    assert broad(-0.04, 0.02)
    assert not broad(-0.2, MARGIN)
    assert not broad(0.001, 0.02)
