"""Telling model from teacher: the AUC against scikit-learn's, and what must not leak."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from epigone.evaluation import distinguish as module
from epigone.evaluation.distinguish import LEAST, distinguish, influences
from epigone.evaluation.style import compare

SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=12)


@given(st.data())
def test_the_mean_of_the_influences_is_the_auc(data: st.DataObject) -> None:
    own = np.array(data.draw(SCORES), dtype=float)
    pick = st.lists(st.integers(-3, 3), min_size=len(own), max_size=len(own))
    others = np.array(data.draw(pick), dtype=float)
    labels = [1] * len(own) + [0] * len(own)
    expected = roc_auc_score(labels, np.concatenate([own, others]))
    assert influences(own, others).mean() == pytest.approx(expected)


def test_the_spread_of_the_influences_is_that_of_the_auc_over_new_pairs() -> None:
    rng = np.random.default_rng(0)

    def pairs(n: int) -> tuple[np.ndarray, np.ndarray]:
        prompt = rng.normal(size=n)
        return prompt + rng.normal(size=n) + 0.8, prompt + rng.normal(size=n)

    aucs = [influences(*pairs(60)).mean() for _ in range(2000)]
    told = [influences(*pairs(60)).std(ddof=1) / 60**0.5 for _ in range(200)]
    assert np.mean(told) == pytest.approx(np.std(aucs), rel=0.07)


def test_the_spread_is_widened_for_other_items_to_learn_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = np.array([1.0, 1, 0, 0, 0])
    monkeypatch.setattr(module, "_weighed", lambda _: None)
    monkeypatch.setattr(module, "_scores", lambda *_: (own, np.zeros(5)))
    texts = {f"{i}": "x" for i in range(25)}
    values = list(distinguish(texts, texts, list(texts)).values())
    # Influences of 1, 1, 0.5, 0.5, 0.5 vary by 0.06; one fold's by five times that over 25 items,
    # and the mean's by that times (1 / 25 + 1 / 4).
    assert np.mean(values) == pytest.approx(0.7)
    assert np.var(values) / 25 == pytest.approx(0.06 * 5 / 25 * (1 / 25 + 1 / 4))


def answers(n: int, begin: str, seed: int) -> dict[str, str]:
    rng = np.random.default_rng(seed)
    words = [f"w{i}" for i in range(200)]
    return {f"{i}": begin + " ".join(rng.choice(words, 25)) for i in range(n)}


def test_what_differs_is_told_and_what_does_not_is_not() -> None:
    teacher, other = answers(40, "", 0), answers(40, "", 1)
    value = np.mean(list(distinguish(other, teacher, list(teacher)).values()))
    assert 0.3 < value < 0.7
    marked = answers(40, "Sure! ", 1)
    assert np.mean(list(distinguish(marked, teacher, list(teacher)).values())) > 0.95
    same = distinguish(teacher, teacher, list(teacher))
    assert set(same.values()) == {0.5}
    # Whitespace around an answer, which records may have, is no style.
    padded = {i: f"\n {text}\n" for i, text in teacher.items()}
    assert set(distinguish(padded, teacher, list(teacher)).values()) == {0.5}


def test_the_end_of_a_long_answer_is_read_as_well() -> None:
    teacher = {i: (text * 60)[:4_200] for i, text in answers(25, "", 0).items()}
    model = {i: text + " I hope this helps!" for i, text in teacher.items()}
    assert np.mean(list(distinguish(model, teacher, list(teacher)).values())) > 0.95
    # What is left out is the middle of more than 4,000 characters, and nothing of fewer.
    assert module._read("a" * 2_000 + "b" * 9 + "c" * 2_000) == "a" * 2_000 + "\n" + "c" * 2_000
    assert module._read("a" * 4_000) == "a" * 4_000


def test_an_answer_is_never_judged_by_what_learnt_from_the_other_of_its_prompt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[int] = []
    whole = module._scores

    def scores(weights: object, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        held.extend(items.tolist())
        return whole(weights, items)

    monkeypatch.setattr(module, "_scores", scores)
    # Each prompt has a word of its own: where one answer is learnt, the other is told by it, wrong.
    topics = {f"{i}": f"topic{i} " * 20 for i in range(30)}
    model = {i: text + "yes" for i, text in topics.items()}
    teacher = {i: text + "no" for i, text in topics.items()}
    assert np.mean(list(distinguish(model, teacher, list(topics)).values())) > 0.95
    # Every prompt is held out once a split.
    assert sorted(held) == sorted([*range(30)] * 5)


def test_it_is_the_same_again_and_says_nothing_of_few() -> None:
    model, teacher = answers(25, "Well, ", 2), answers(25, "", 3)
    first = distinguish(model, teacher, list(model))
    assert distinguish(model, teacher, list(reversed(model))) == first
    assert set(first) == set(model)
    (score,) = compare("m", model, teacher, ["distinguishable"])
    assert score.value == pytest.approx(np.mean(list(first.values())))
    assert (score.better, score.ceiling, score.n) == ("lower", 0.5, 25)
    assert score.aggregate == "auc"
    few = dict(list(model.items())[: LEAST - 1])
    (none,) = compare("m", few, teacher, ["distinguishable"])
    assert (none.value, none.n, none.method) == (None, 0, "needs 20 items, not 19")
    empty = dict.fromkeys(model, " ")
    assert set(distinguish(empty, empty, list(empty)).values()) == {0.5}
