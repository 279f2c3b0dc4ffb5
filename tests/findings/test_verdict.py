from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from findings_example import AMOUNTS, PAPER, make, score_of, subjects

from epigone.findings import Base, Subject, analyse
from epigone.findings.verdict import percent, points, probability, tokens

SIZES = (Base("small", 10**8), Base("large", 10**9))


def sentences(findings, base):
    return {s.kind: s for v in findings.verdicts if v.base == base for s in v.sentences}


def test_the_papers_finding_is_found_where_it_is_planted():
    found = analyse(subjects(), make(PAPER, 400), bases=SIZES)
    small = sentences(found, "small")
    assert small["style"].answer == "up"
    assert small["capability"].answer == "unclear"
    assert small["scaling"].answer == "up"
    assert "better base" in small["scaling"].text
    assert sentences(found, "large")["scaling"].answer == "missing"
    assert "lower bound" in small["style"].text
    row = next(r for r in found.gaps if r.subject.model == "small-32000" and r.metric == "lists")
    assert row.teacher.source == "ceiling"
    assert row.closed.value == pytest.approx(5 / 9, abs=0.07)


def test_losses_and_gains_of_data_are_found_where_planted():
    levels = {**PAPER, "small-8000": (0.05, 0.3), "small-32000": (0.02, 0.12)}
    small = sentences(analyse(subjects(), make(levels, 400)), "small")
    assert (small["style"].answer, small["capability"].answer) == ("down", "down")
    levels = {**PAPER, "large-32000": (0.6, 0.6), "small-32000": (0.6, 0.6)}
    small = sentences(analyse(subjects(), make(levels, 400), bases=SIZES), "small")
    assert (small["capability"].answer, small["scaling"].answer) == ("up", "down")


def test_nulls_are_seldom_called_effects():
    flat = dict.fromkeys(PAPER, (0.3, 0.4))
    called = {"style": 0, "capability": 0, "scaling": 0}
    for seed in range(25):
        scores = make(flat, 40, seed)
        rng = np.random.default_rng(seed)
        shuffled = [
            replace(
                s, values=dict(zip(s.values, rng.permutation([*s.values.values()]), strict=True))
            )
            for s in scores
        ]
        for s in sentences(analyse(subjects(), shuffled), "small").values():
            called[s.kind] += s.answer in ("up", "down")
    assert all(n <= 5 for n in called.values()), called


def test_more_data_takes_two_amounts():
    levels = {**PAPER, "small-8000": (0.5, 0.5), "small-32000": (0.6, 0.5)}
    text = sentences(analyse(subjects(), make(levels, 400)), "small")["scaling"].text
    assert "8k to 32k" in text
    one = [s for s in subjects() if s.amount != 32000]
    got = sentences(analyse(one, make(levels, 400)), "small")["scaling"]
    assert got.answer == "missing"
    assert "two amounts" in got.text


def test_without_another_base_or_scores_it_says_so():
    alone = subjects(bases=("small",))
    levels = {m: v for m, v in PAPER.items() if m.startswith("small")}
    got = sentences(analyse(alone, make(levels, 100)), "small")
    assert got["scaling"].answer == "missing"
    assert "no larger base" in got["scaling"].text
    nothing = analyse(subjects(), [])
    assert {s.answer for v in nothing.verdicts for s in v.sentences} == {"missing"}
    assert len(nothing.verdicts) == 2


def test_missing_scores_are_listed_and_said():
    scores = [s for s in make(PAPER, 60) if s.model != "small-32000"]
    scores = [s for s in scores if (s.model, s.task) != ("large-8000", "nq")]
    found = analyse(subjects(), scores)
    assert {(m.model, m.task) for m in found.missing} == {
        ("small-32000", ""),
        ("small-32000", "facts"),
        ("small-32000", "nq"),
        ("large-8000", "nq"),
    }
    small, large = found.verdicts
    assert "8k of 32k" in small.note
    assert "1 of 2" in small.note
    assert "1 of 2 students" in large.note
    assert "with 8k tokens of broad" in small.sentences[0].text


def test_reported_and_measured_teachers_reach_the_gap_rows():
    scores = make({**PAPER, "boss": (0.8, 0.9)}, 200)
    rows = {
        (r.subject.model, r.task, r.metric): r
        for r in analyse(subjects(), scores, "boss", {"facts": 0.95}).gaps
    }
    assert rows["small-8000", "facts", "acc"].teacher.source == "measured"
    scores = [s for s in scores if s.model != "boss"]
    rows = {
        (r.subject.model, r.task): r
        for r in analyse(subjects(), scores, "boss", {"facts": 0.95}).gaps
    }
    assert rows["small-8000", "facts"].teacher.source == "reported"
    assert rows["small-8000", "nq"].teacher.source == "unknown"
    assert rows["small-8000", "nq"].closed.value is None


def test_seeds_are_averaged():
    people = [Subject("b", "b"), Subject("s0", "b", "c", 10, 0), Subject("s1", "b", "c", 10, 1)]
    scores = make({"b": (0.1, 0.3), "s0": (0.5, 0.3), "s1": (0.7, 0.5)}, 300)
    found = analyse(people, scores).summaries
    summary = next(s for s in found if s.family == "capability")
    assert summary.seeds == (0, 1)
    by = {(s.model, s.task, s.metric): s.value for s in scores}
    want = np.mean(
        [(by[m, t, "acc"] - by["b", t, "acc"]) for m in ("s0", "s1") for t in ("facts", "nq")]
    )
    assert summary.estimate.value == pytest.approx(want)


def test_both_amounts_are_named_where_style_and_capability_were_measured_apart():
    levels = {**PAPER, "small-8000": (0.5, 0.5)}
    scores = [s for s in make(levels, 400) if (s.model, s.family) != ("small-32000", "capability")]
    (answer,) = (v.answer for v in analyse(subjects(), scores).verdicts if v.base == "small")
    assert answer.startswith("After 32k tokens of broad, small moved toward the teacher in style (")
    assert "; a lower bound)" in answer
    assert "its capability rose by" in answer
    assert answer.endswith("with 8k tokens of broad.")
    text = sentences(analyse(subjects(), scores), "small")["capability"].text
    assert "rose by" in text and "with 8k tokens" in text
    (same,) = (v.answer for v in analyse(subjects(), make(levels, 400)).verdicts[:1])
    assert same.count("tokens") == 1
    # An amount of what was not measured is not named.
    scores = [s for s in scores if (s.model, s.family) != ("small-32000", "style")]
    scores = [s for s in scores if (s.model, s.family) != ("small-8000", "capability")]
    (answer,) = (v.answer for v in analyse(subjects(), scores).verdicts if v.base == "small")
    assert "After 8k tokens" in answer
    assert "32k" not in answer


def test_findings_are_json_and_the_same_each_time():
    scores = make(PAPER, 30)
    text = json.dumps(asdict(analyse(subjects(), scores)), allow_nan=False)
    assert text == json.dumps(asdict(analyse(subjects(), list(reversed(scores)))), allow_nan=False)


def test_numbers_as_text():
    assert [probability(p) for p in (0.0, 0.004, 0.5, 0.951, 1.0)] == [
        "under 1%", "under 1%", "50%", "95%", "over 99%"
    ]  # fmt: skip
    assert percent(0.426) == "43%"
    assert percent(-0.126) == "\N{MINUS SIGN}13%"
    assert percent(-0.001) == "0%"
    assert percent(None) == "not known"
    assert points(-0.0312) == "\N{MINUS SIGN}3.1 points"
    assert points(0.02) == "+2.0 points"
    assert points(-0.0001) == "0.0 points"
    assert [tokens(a) for a in (0, 999, 8000, 32_500, 20_000_000)] == [
        "0",
        "999",
        "8k",
        "32.5k",
        "20M",
    ]


VARIANTS = {
    "small": (0.1, 0.3),
    "plain-8000": (0.5, 0.3),
    "plain-32000": (0.7, 0.2),
    "held-8000": (0.3, 0.3),
    "held-32000": (0.4, 0.35),
    "held-fed": (0.5, 0.6),
    "alone": (0.05, 0.5),
}


def lines():
    found = [Subject("small", "small")]
    for line, name in (("talk, kl=0", "plain"), ("talk, kl=0.1", "held")):
        found += [Subject(f"{name}-{a}", "small", line, a) for a in AMOUNTS]
    return [
        *found,
        Subject("held-fed", "small", "talk, kl=0.1, ranked", 32000, feedback=True),
        Subject("alone", "small", "feedback raw", 0, feedback=True),
    ]


def test_the_first_line_without_feedback_speaks_and_all_are_summed_up():
    found = analyse(lines(), make(VARIANTS, 400))
    (verdict,) = found.verdicts
    assert (verdict.broad, verdict.local) == ("talk, kl=0", "")
    assert "of talk, kl=0" in verdict.answer
    primary = {(s.corpus, s.family) for s in found.summaries if s.adjusted is not None}
    assert primary == {("talk, kl=0", "style"), ("talk, kl=0", "unsupported")}
    assert {s.corpus for s in found.summaries if s.family == "style"} == {
        "talk, kl=0", "talk, kl=0.1", "talk, kl=0.1, ranked", "feedback raw"
    }  # fmt: skip


def test_a_summary_is_the_same_as_if_its_line_were_there_alone():
    scores = make(VARIANTS, 400)
    whole = analyse(lines(), scores)
    own = [s for s in lines() if s.corpus in (None, "talk, kl=0.1")]
    names = {s.model for s in own}
    apart = analyse(own, [s for s in scores if s.model in names])
    of = [replace(s, adjusted=None) for s in whole.summaries if s.corpus == "talk, kl=0.1"]
    assert [replace(s, adjusted=None) for s in apart.summaries] == of


def test_a_base_with_feedback_alone_is_no_untrained_base():
    found = analyse(lines(), make(VARIANTS, 400))
    assert {g.subject.model for g in found.gaps} == set(VARIANTS) - {"small"}
    gap = next(g for g in found.gaps if g.subject.model == "alone" and g.task == "facts")
    assert gap.base == pytest.approx(0.3, abs=0.06)
    assert gap.student == pytest.approx(0.5, abs=0.06)
    only = [s for s in lines() if s.corpus in (None, "feedback raw")]
    (verdict,) = analyse(only, make(VARIANTS, 400)).verdicts
    assert verdict.answer.startswith("After feedback alone, small moved away")
    assert "its capability rose" in verdict.answer.replace("on other tasks ", "")
    told = " ".join([verdict.answer, *(s.text for s in verdict.sentences)])
    assert "Feedback did not move the style of small" in told
    assert "0 tokens" not in told


def test_feedback_is_no_step_of_data():
    found = analyse(lines(), make(VARIANTS, 400))
    assert {d.corpus for d in found.data_or_base} == {"talk, kl=0", "talk, kl=0.1"}
    assert {t.corpus for t in found.trends} == {"talk, kl=0", "talk, kl=0.1"}
    only = [s for s in lines() if s.corpus in (None, "talk, kl=0.1, ranked")]
    (fed,) = analyse(only, make(VARIANTS, 400)).verdicts
    assert fed.answer.startswith("After 32k tokens and feedback of talk, kl=0.1, ranked, small")
    assert fed.sentences[2].answer == "missing"
    assert fed.note == ""


def local_subjects():
    return [
        *subjects(),
        *(Subject(f"{b}-own-{a}", b, "own", a, supports=("nq",)) for b in ("small", "large")
          for a in AMOUNTS),
    ]  # fmt: skip


def test_a_local_corpus_speaks_of_its_own_task_and_a_broad_one_of_the_others():
    own = {f"{b}-own-{a}": (0.2, 0.3) for b in ("small", "large") for a in AMOUNTS}
    scores = make({**PAPER, **own}, 400)
    for s in list(scores):
        if "-own-" in s.model and s.task == "nq":
            scores.remove(s)
            values = {i: max(v, float(int(i[2:]) % 2)) for i, v in s.values.items()}
            scores.append(score_of("acc", "nq", s.model, "capability", values))
    found = analyse(local_subjects(), scores, bases=SIZES)
    small = found.verdicts[0]
    assert (small.broad, small.local, small.supported) == ("broad", "own", "up")
    text = small.sentences[1].text
    assert small.sentences[1].answer == "unclear"
    assert "On tasks that broad has no examples of, the capability of small did not meas" in text
    assert "on nq, which own has examples of, its capability rose by" in text
    by = {(s.base, s.corpus, s.amount, s.family): s for s in found.summaries}
    assert by["small", "own", 32000, "supported"].parts == ("nq/acc",)
    assert by["small", "own", 32000, "unsupported"].parts == ("facts/acc",)
    assert by["small", "broad", 32000, "unsupported"].parts == ("facts/acc", "nq/acc")
    assert ("small", "broad", 32000, "supported") not in by


def test_nothing_is_claimed_that_holms_rule_takes_back():
    # One of many bases has an effect that alone would be told from none.
    names = tuple(f"b{k}" for k in range(12))
    found = None
    for seed in range(40):
        levels = {}
        for s in subjects(names, (8000,)):
            levels[s.model] = (0.1, 0.37 if s.model == "b3-8000" else 0.3)
        found = analyse(subjects(names, (8000,)), make(levels, 300, seed))
        summary = next(s for s in found.summaries if s.base == "b3" and s.family == "unsupported")
        if summary.p < 0.05 < summary.adjusted and summary.estimate.low > 0:
            break
    said = found.verdicts[3].sentences[1]
    assert said.answer == "unclear"
    assert "Holm" in said.text
    # Its interval leaves 0 out: "no measurable change" would say the opposite of what it shows.
    assert said.headline == "Capability: cannot tell"
    assert said.text.startswith(
        "On facts and nq, whether the capability of b3 changed cannot be told: +"
    )


def test_a_headline_of_style_has_its_interval_and_claims_no_more_than_its_sentence():
    found = analyse(subjects(), make({**PAPER, "small-32000": PAPER["small"]}, 60), bases=SIZES)
    small, large = found.verdicts
    assert (small.sentences[0].answer, large.sentences[0].answer) == ("unclear", "up")
    assert "whether small moved toward the teacher in style cannot be told (" in small.answer
    assert "large moved toward the teacher in style (" in large.answer
    assert "of the gap closed, 95% interval " in large.answer


def test_items_of_the_corpus_are_left_out_beside_all_of_them():
    levels = {"small": 0.2, "small-8000": 0.6, "gpt": 0.8}
    rng = np.random.default_rng(3)
    u = rng.random(200)
    found = []
    learnt = tuple(f"i{k}" for k in range(40))
    for model, level in levels.items():
        values = {f"i{k}": float(x < level) for k, x in enumerate(u)}
        if model == "small-8000":
            values |= dict.fromkeys(learnt, 1.0)
        more = {"learnt": learnt} if model == "small-8000" else {}
        more |= {"method": "asked for the letter"} if model == "gpt" else {}
        found.append(score_of("acc", "mmlu", model, "capability", values, **more))
    gaps = analyse(subjects(("small",), (8000,)), found, teacher="gpt").gaps
    assert [g.metric for g in gaps] == ["acc", "acc without 40 items of the corpus"]
    every, clean = gaps
    assert every.teacher.method == clean.teacher.method == "asked for the letter"
    rest = u[40:]
    for row, want in ((clean, rest), (every, None)):
        if want is not None:
            assert row.base == pytest.approx(np.mean(want < 0.2))
            assert row.student == pytest.approx(np.mean(want < 0.6))
            assert row.teacher.value == pytest.approx(np.mean(want < 0.8))
            assert row.change.n == 160
    # What was learnt by heart made the gap look smaller.
    assert clean.closed.value < every.closed.value
    # A number that was published is of all items.
    reported = analyse(
        subjects(("small",), (8000,)), found[:2], teacher="gpt", reported={"mmlu": 0.8}
    ).gaps
    assert [g.teacher.source for g in reported] == ["reported", "unknown"]


def test_twenty_bases_with_clear_effects_are_all_told():
    names = tuple(f"b{k}" for k in range(20))
    levels = {}
    for b in names:
        levels |= {b: (0.1, 0.2), f"{b}-8000": (0.9, 0.9)}
    found = analyse(subjects(names, (8000,)), make(levels, 64), resamples=1000)
    assert found.primary == 40
    assert {s.answer for v in found.verdicts for s in v.sentences[:2]} == {"up"}


def test_a_base_is_named_and_what_was_not_tested_is_not_called_unmoved():
    scores = [s for s in make(PAPER, 100) if s.family != "style"]
    text = analyse(subjects(), scores, bases=SIZES).verdicts[0]
    assert text.answer.startswith("After 32k tokens of broad, the capability of small did not")
    assert text.sentences[1].text.startswith("On facts and nq, the capability of small did not")
    told = [replace(s, values={}, n=0, method="reported") for s in make(PAPER, 100)]
    text = analyse(subjects(), told, bases=SIZES).verdicts[0]
    assert "measurably" not in text.answer
    assert "cannot be told" in text.answer
    assert text.sentences[1].headline == "Capability: cannot tell"


def test_a_seed_that_is_not_scored_yet_does_not_hide_the_others():
    people = [Subject("b", "b"), Subject("s0", "b", "c", 10, 0), Subject("s1", "b", "c", 10, 1)]
    scores = make({"b": (0.1, 0.3), "s0": (0.5, 0.3), "s1": (0.7, 0.5)}, 60)
    found = analyse(people, [s for s in scores if (s.model, s.family) != ("s1", "style")])
    seeds = {s.family: s.seeds for s in found.summaries}
    assert (seeds["style"], seeds["capability"]) == ((0,), (0, 1))
    assert found.verdicts[0].sentences[0].answer == "up"
    assert "1 of 2 students lack scores" in found.verdicts[0].note


def test_a_base_without_scores_is_what_is_missing():
    note = analyse(subjects(), [s for s in make(PAPER, 30) if s.model != "small"]).verdicts[0].note
    assert note == "Not finished: the untrained base lacks scores."


def test_what_is_no_share_counts_in_no_mean():
    scores = make(PAPER, 60)
    loss = [replace(s, metric="bleu", values={i: 40 * v for i, v in s.values.items()},
                    value=40 * s.value) for s in scores if s.task == "nq"]  # fmt: skip
    found = analyse(subjects(), [s for s in scores if s.task != "nq"] + loss, bases=SIZES)
    assert {s.parts for s in found.summaries if s.family == "capability"} == {("facts/acc",)}
    assert any(g.metric == "bleu" for g in found.gaps)


def test_what_is_ahead_without_a_gain_of_its_own_is_said_to_be_so():
    levels = {**PAPER, "small-32000": (0.6, 0.05), "large": (0.1, 0.3), "large-32000": (0.6, 0.05)}
    said = sentences(analyse(subjects(), make(levels, 400), bases=SIZES), "small")["scaling"]
    assert said.answer == "unclear"
    assert said.text.startswith(
        "Neither is told to buy anything, though the next base gives more than more data: "
    )


def test_a_worse_base_is_not_the_next_one_where_sizes_are_not_known():
    found = {d.base: d.other for d in analyse(subjects(), make(PAPER, 100)).data_or_base}
    assert found == {"small": "large", "large": ""}
