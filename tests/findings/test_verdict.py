from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import scipy.stats

from epigone.findings import Subject, analyse
from epigone.findings.gaps import NO_GAP, change
from epigone.findings.summary import Part, StyleMetric, mean_contrast, style_closed
from epigone.findings.verdict import percent, points, tokens
from epigone.schema import Score

BASES = ("small", "large")
AMOUNTS = (8000, 32000)


def subjects(bases=BASES, amounts=AMOUNTS):
    found = []
    for base in bases:
        found.append(Subject(base, base))
        found += [Subject(f"{base}-{a}", base, "broad", a) for a in amounts]
    return found


def make(levels, n, seed=0, metrics=("lists", "words"), tasks=("facts", "nq")):
    """Scores with planted means: model -> (style level, capability level), paired by item."""
    rng = np.random.default_rng(seed)
    found = []
    for metric in metrics:
        u = rng.random(n)
        for model, (style, _) in levels.items():
            values = {f"p{i}": float(x < style) for i, x in enumerate(u)}
            found.append(_score(metric, "", model, "style", values, ceiling=1.0))
    for task in tasks:
        u = rng.random(n)
        for model, (_, level) in levels.items():
            noisy = np.where(rng.random(n) < 0.8, u, rng.random(n))
            values = {f"{task}{i}": float(x < level) for i, x in enumerate(noisy)}
            found.append(_score("acc", task, model, "capability", values))
    return found


def _score(metric, task, model, family, values, **kw):
    mean = float(np.mean(list(values.values())))
    return Score(metric, model, family, mean, len(values), values, task=task, **kw)


PAPER = {
    "small": (0.1, 0.3),
    "small-8000": (0.5, 0.3),
    "small-32000": (0.6, 0.3),
    "large": (0.1, 0.6),
    "large-8000": (0.5, 0.6),
    "large-32000": (0.6, 0.6),
}


def sentences(findings, base):
    return {s.kind: s for v in findings.verdicts if v.base == base for s in v.sentences}


def test_the_papers_finding_is_found_where_it_is_planted():
    found = analyse(subjects(), make(PAPER, 400))
    small = sentences(found, "small")
    assert small["style"].answer == "up"
    assert small["capability"].answer == "unclear"
    assert small["scaling"].answer == "up"
    assert "better base" in small["scaling"].text
    assert sentences(found, "large")["scaling"].answer == "unclear"
    assert "lower bound" in small["style"].text
    row = next(r for r in found.gaps if r.subject.model == "small-32000" and r.metric == "lists")
    assert row.teacher.source == "ceiling"
    assert row.closed.value == pytest.approx(5 / 9, abs=0.07)


def test_losses_and_gains_of_data_are_found_where_planted():
    levels = {**PAPER, "small-8000": (0.05, 0.3), "small-32000": (0.02, 0.12)}
    small = sentences(analyse(subjects(), make(levels, 400)), "small")
    assert (small["style"].answer, small["capability"].answer) == ("down", "down")
    levels = {**PAPER, "large": (0.1, 0.3), "small-32000": (0.6, 0.6)}
    small = sentences(analyse(subjects(), make(levels, 400)), "small")
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


def test_more_data_is_compared_at_the_last_step_only():
    levels = {**PAPER, "small-8000": (0.5, 0.5), "small-32000": (0.6, 0.5)}
    text = sentences(analyse(subjects(), make(levels, 400)), "small")["scaling"].text
    assert "8k to 32k" in text
    one = [s for s in subjects() if s.amount != 32000]
    text = sentences(analyse(one, make(levels, 400)), "small")["scaling"].text
    assert "0 to 8k" in text


def test_without_another_base_or_scores_it_says_so():
    alone = subjects(bases=("small",))
    levels = {m: v for m, v in PAPER.items() if m.startswith("small")}
    got = sentences(analyse(alone, make(levels, 100)), "small")
    assert got["scaling"].answer == "missing"
    assert "no other base" in got["scaling"].text
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
    assert small.amount == 8000
    assert "8k of 32k" in small.note
    assert "1 of 2" in small.note
    assert "1 of 2 students" in large.note
    assert "with 8k tokens" in small.sentences[0].text


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
    (summary,) = analyse(people, scores).summaries
    assert summary.seeds == (0, 1)
    by = {(s.model, s.task, s.metric): s.value for s in scores}
    want = np.mean(
        [(by[m, t, "acc"] - by["b", t, "acc"]) for m in ("s0", "s1") for t in ("facts", "nq")]
    )
    assert summary.capability_change.value == pytest.approx(want)


def test_mean_over_tasks_of_one_task_is_the_paired_change():
    rng = np.random.default_rng(0)
    a, b = (
        _score(
            "acc", "t", m, "capability", {str(i): float(v) for i, v in enumerate(rng.random(50))}
        )
        for m in "ab"
    )
    got = mean_contrast([Part("t", ((1.0, b), (-1.0, a)))], resamples=20_000)[0]
    want = change(a, b, resamples=20_000)
    assert (got.value, got.n) == (pytest.approx(want.value), want.n)
    assert (got.low, got.high) == pytest.approx((want.low, want.high), abs=0.01)


def test_independent_tasks_add_their_variances():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 200))
    s = [
        _score("acc", f"t{k}", "m", "capability", {f"{k}-{i}": float(x) for i, x in enumerate(v)})
        for k, v in enumerate(values)
    ]
    got = mean_contrast([Part(x.task, ((1.0, x),)) for x in s], resamples=10_000)[0]
    error = np.sqrt((values.var(axis=1) / 200).sum()) / 4
    assert got.high - got.low == pytest.approx(2 * 1.97 * error, rel=0.05)


@pytest.mark.parametrize(("few", "many"), [(1.0, 6.0), (1.0, 1.0), (1.0, 0.1)])
def test_tasks_of_very_different_sizes_have_welchs_interval(few, many):
    rng = np.random.default_rng(3)
    x, y = rng.normal(0.5, few, 12), rng.normal(0.2, many, 201)
    parts = [
        Part(t, ((1.0, _score("acc", t, "m", "capability", {f"{i}": float(a) for i, a in v})),))
        for t, v in (("few", enumerate(x)), ("many", enumerate(y)))
    ]
    got = mean_contrast(parts, resamples=40_000)[0]
    # The mean of x and y is half of the difference between x and -y.
    want = scipy.stats.ttest_ind(x, -y, equal_var=False).confidence_interval(0.95)
    assert got.value == pytest.approx((x.mean() + y.mean()) / 2)
    assert got.high - got.low == pytest.approx((want.high - want.low) / 2, rel=0.05)


def test_lower_is_better_counts_as_a_gain_when_it_falls():
    a = _score("loss", "t", "a", "capability", {str(i): 2.0 + i % 3 for i in range(30)})
    b = _score("loss", "t", "b", "capability", {str(i): 1.0 + i % 2 for i in range(30)})
    a, b = replace(a, better="lower"), replace(b, better="lower")
    assert mean_contrast([Part("t", ((1.0, b), (-1.0, a)))])[0].value == pytest.approx(1.5)


def test_style_metrics_share_the_resampled_prompts():
    # The same metric twice is no more evidence than once: the interval must not shrink.
    scores = {s.model: s for s in make(PAPER, 60, metrics=("lists",)) if s.family == "style"}
    one = StyleMetric(scores["small"], (scores["small-8000"],), None, None)
    once, twice = style_closed([one]), style_closed([one, one])
    assert twice.interval.low == pytest.approx(once.interval.low)
    assert twice.interval.high == pytest.approx(once.interval.high)
    assert once.lower_bound


def test_style_metrics_on_some_of_the_prompts_join_the_mean():
    rng = np.random.default_rng(1)

    def style(metric, level, items):
        return _score(
            metric, "", "m", "style", {i: float(rng.random() < level) for i in items}, ceiling=1.0
        )

    every, some = [f"p{i}" for i in range(60)], [f"p{i}" for i in range(0, 60, 4)]
    metrics = [
        StyleMetric(style("words", 0.1, every), (style("words", 0.5, every),), None, None),
        StyleMetric(style("lists", 0.1, some), (style("lists", 0.9, some),), None, None),
    ]
    got = style_closed(metrics)
    parts = [style_closed([m]).interval.value for m in metrics]
    assert got.interval.value == pytest.approx(np.mean(parts))
    assert got.interval.n == 60
    assert got.interval.low is not None
    unknown = StyleMetric(replace(metrics[0].base, ceiling=None), metrics[0].students, None, None)
    partial = style_closed([metrics[1], unknown])
    assert partial.metrics == ("lists",)
    assert "1 of 2 metrics" in partial.interval.note


def test_a_style_metric_on_few_prompts_is_judged_by_those_prompts():
    # A gap of 1, 1, 1, 1 and 0 on five prompts is not sure, however many prompts the others have.
    def style(metric, values):
        items = {f"p{i}": float(v) for i, v in enumerate(values)}
        return _score(metric, "", "m", "style", items, ceiling=1.0)

    wide = StyleMetric(style("words", [0, 1] * 100), (style("words", [1, 1] * 100),), None, None)
    few = StyleMetric(style("lists", [0, 0, 0, 0, 1]), (style("lists", [1] * 5),), None, None)
    got = style_closed([wide, few])
    assert got.metrics == ("words",)
    assert NO_GAP in got.interval.note
    # The same on every one of its prompts: a base that never does it has a gap for sure.
    never = StyleMetric(style("lists", [0] * 8), (style("lists", [1, 0] * 4),), None, None)
    assert style_closed([wide, never]).metrics == ("words", "lists")


def test_both_amounts_are_named_where_style_and_capability_were_measured_apart():
    levels = {**PAPER, "small-8000": (0.5, 0.5)}
    scores = [s for s in make(levels, 400) if (s.model, s.family) != ("small-32000", "capability")]
    (answer,) = (v.answer for v in analyse(subjects(), scores).verdicts if v.base == "small")
    assert "After 32k tokens of imitation, small moved toward the teacher in style (" in answer
    assert "; a lower bound)" in answer
    assert "and after 8k tokens its capability rose" in answer
    text = sentences(analyse(subjects(), scores), "small")["capability"].text
    assert "rose with 8k tokens" in text
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


def test_a_variant_is_judged_as_if_it_were_there_alone():
    scores = make(VARIANTS, 400)
    whole = analyse(lines(), scores)
    assert [v.corpus for v in whole.verdicts] == [
        "talk, kl=0", "talk, kl=0.1", "talk, kl=0.1, ranked", "feedback raw"
    ]  # fmt: skip
    for verdict in whole.verdicts:
        own = [s for s in lines() if s.corpus in (None, verdict.corpus)]
        names = {s.model for s in own}
        apart = analyse(own, [s for s in scores if s.model in names])
        assert apart.verdicts == (verdict,)


def test_a_base_with_feedback_alone_is_no_untrained_base():
    found = analyse(lines(), make(VARIANTS, 400))
    assert {g.subject.model for g in found.gaps} == set(VARIANTS) - {"small"}
    gap = next(g for g in found.gaps if g.subject.model == "alone" and g.task == "facts")
    assert gap.base == pytest.approx(0.3, abs=0.06)
    assert gap.student == pytest.approx(0.5, abs=0.06)
    verdict = found.verdicts[-1]
    assert verdict.answer.startswith("After feedback alone, small moved away")
    assert "its capability rose" in verdict.answer
    told = " ".join([verdict.answer, *(s.text for s in verdict.sentences)])
    assert "Feedback did not move the style of small" in told
    assert "0 tokens" not in told


def test_feedback_is_no_step_of_data():
    found = analyse(lines(), make(VARIANTS, 400))
    fed, alone = found.verdicts[-2:]
    assert fed.answer.startswith("After 32k tokens of imitation and feedback, small moved toward")
    assert "with 32k tokens and feedback" in fed.sentences[1].text
    for verdict in (fed, alone):
        assert verdict.scaling is None
        assert verdict.sentences[2].answer == "missing"
        assert "without feedback" in verdict.sentences[2].text
        assert verdict.note == ""
    assert found.verdicts[0].scaling is not None


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
        found.append(_score("acc", "mmlu", model, "capability", values, **more))
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
