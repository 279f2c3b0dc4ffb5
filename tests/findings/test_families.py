from __future__ import annotations

import numpy as np
import pytest
from findings_example import make, score_of, subjects
from hypothesis import given
from hypothesis import strategies as st

from epigone.findings import Subject, analyse, gap_closed
from epigone.findings.families import holm
from epigone.schema import Score


def test_holm_of_a_hand_worked_example() -> None:
    # 0.01 * 4, 0.02 * 3, 0.03 * 2, and the last not below the one before it.
    assert holm([0.03, None, 0.01, 0.04, 0.02]) == pytest.approx([0.06, None, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_its_steps_reject(p: list[float]) -> None:
    # Step down: the smallest against 1/m, the next against 1/(m-1), until one is not below.
    rejected, order = set(), sorted(range(len(p)), key=lambda i: p[i])
    for rank, i in enumerate(order):
        if p[i] * (len(p) - rank) >= 0.05:
            break
        rejected.add(i)
    assert {i for i, x in enumerate(holm(p)) if x is not None and x < 0.05} == rejected


def families(scores: list[Score], **more: object) -> dict[str, object]:
    found = analyse(subjects(("small",), (8000,)), scores, **more)  # type: ignore[arg-type]
    return {s.family: s for s in found.summaries}


def test_capability_closed_is_the_share_of_the_gap_of_the_means() -> None:
    levels = {"small": (0.1, 0.2), "small-8000": (0.5, 0.3), "boss": (0.8, 0.9)}
    scores = make(levels, 500)
    got = families(scores, teacher="boss")["capability"]
    value = {(s.model, s.task): s.value for s in scores}
    base, student, boss = (
        np.mean([value[m, t] for t in ("facts", "nq")]) for m in ("small", "small-8000", "boss")
    )
    assert got.closed.value == pytest.approx((student - base) / (boss - base))  # type: ignore[attr-defined]
    # Of one task it is the gap closed of that task.
    one = [s for s in scores if s.task in ("", "nq")]
    alone = families(one, teacher="boss")["capability"].closed  # type: ignore[attr-defined]
    a, b, c = (next(s for s in one if (s.model, s.task) == (m, "nq")) for m in levels)
    assert alone == gap_closed(a, b, c)


def test_a_teacher_known_on_some_tasks_counts_on_those() -> None:
    scores = make({"small": (0.1, 0.2), "small-8000": (0.5, 0.3)}, 200)
    got = families(scores, reported={"nq": 0.9})["capability"]
    (base,), (student,) = (
        [s.value for s in scores if (s.model, s.task) == (m, "nq")] for m in ("small", "small-8000")
    )
    assert got.closed.value == pytest.approx((student - base) / (0.9 - base))  # type: ignore[attr-defined]
    assert got.parts == ("facts/acc", "nq/acc")  # type: ignore[attr-defined]
    assert families(scores)["capability"].closed.note == "teacher not known"  # type: ignore[attr-defined]


def test_safety_and_preference_have_a_summary_and_lower_toxicity_is_up() -> None:
    people = [Subject("b", "b"), Subject("s", "b", "talk", 100)]
    rng = np.random.default_rng(0)
    scores = []
    for model, toxic, wins in (("b", 0.4, 0.1), ("s", 0.1, 0.5)):
        harm = {str(i): float(x < toxic) for i, x in enumerate(rng.random(300))}
        won = {str(i): float(x < wins) for i, x in enumerate(rng.random(300))}
        scores += [
            score_of("toxicity", "rtp", model, "safety", harm, better="lower"),
            score_of("win_rate", "judge", model, "preference", won, primary=False),
            score_of("equal_or_better", "judge", model, "preference", won, primary=False),
        ]
    found = {s.family: s for s in analyse(people, scores).summaries}
    assert set(found) == {"safety", "preference"}
    assert found["safety"].estimate.value == pytest.approx(0.3, abs=0.08)
    assert found["preference"].parts == ("judge/win_rate",)
    assert found["preference"].estimate.value == pytest.approx(0.4, abs=0.08)
    assert all(s.adjusted is None for s in found.values())
