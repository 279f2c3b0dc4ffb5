"""Students of chosen prompts beside those of prompts at random, by hand-worked scores."""

from __future__ import annotations

import pytest

from epigone.findings import Subject, selected
from epigone.schema import Score


def score(model: str, values: list[float], metric: str = "acc") -> Score:
    told = {f"q{i}": v for i, v in enumerate(values)}
    return Score(
        model=model, metric=metric, task="quiz", family="capability", better="higher",
        value=sum(values) / len(values), n=len(values), values=told,
    )  # fmt: skip


def subject(corpus: str, amount: int = 100, seed: int = 0, base: str = "b") -> Subject:
    return Subject(f"{base}:{corpus}:{amount}:{seed}", base, corpus, amount, seed)


def test_students_of_one_base_amount_seed_and_recipe_are_compared() -> None:
    subjects = [
        Subject("b", "b"),
        subject("picked"), subject("chance"), subject("picked", 200), subject("chance", 300),
        subject("picked, kl=0.1"), subject("chance, kl=0.1"), subject("other"),
    ]  # fmt: skip
    scores = [score(s.model, [0, 1, 0, 1]) for s in subjects]
    found = selected(subjects, scores, {"picked": "chance"})
    assert [(r.subject.corpus, r.at_random.corpus, r.subject.amount) for r in found] == [
        ("picked", "chance", 100),
        ("picked, kl=0.1", "chance, kl=0.1", 100),
    ]


def test_the_change_is_paired_over_items() -> None:
    subjects = [subject("picked"), subject("chance")]
    # Right on ten items more, wrong on none: pairing sees it in 40 items.
    picked = [1.0] * 30 + [0.0] * 10
    chance = [1.0] * 20 + [0.0] * 20
    scores = [score(subjects[0].model, picked), score(subjects[1].model, chance)]
    (row,) = selected(subjects, scores, {"picked": "chance"})
    assert (row.value, row.random_value) == (0.75, 0.5)
    assert row.change.value == pytest.approx(0.25)
    assert row.change.low is not None
    assert row.change.low > 0


def test_a_metric_that_one_of_them_lacks_is_not_compared() -> None:
    subjects = [subject("picked"), subject("chance")]
    scores = [score(subjects[0].model, [1, 0]), score(subjects[1].model, [1, 0], "other")]
    assert selected(subjects, scores, {"picked": "chance"}) == ()
