"""The report of the paper's study holds the paper's numbers, and says of them what they say."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from epigone.api import Study
from epigone.errors import UserError
from epigone.findings import Findings, GapRow, analyse
from epigone.findings.gaps import NO_GAP, change, gap_closed, value_interval
from epigone.findings.resample import NO_ITEMS
from epigone.report.reported import with_reported
from epigone.schema import Score
from epigone.study.publications import Publications, publications

PAPER = Path(__file__).parents[2] / "studies/false-promise.yaml"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study.load(PAPER, runs=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def given(study: Study) -> Publications:
    return publications(study.declaration, study.expansion(), study.file)


@pytest.fixture(scope="module")
def findings(study: Study) -> Findings:
    return study.findings()


@pytest.fixture(scope="module")
def page(study: Study) -> Path:
    return study.report()


def gap(findings: Findings, model: str, metric: str) -> GapRow:
    (row,) = [g for g in findings.gaps if (g.subject.model, g.metric) == (model, metric)]
    return row


@pytest.mark.parametrize(
    ("model", "metric", "moved", "closed"),
    [
        # Table 1. 7B: from 17 to 10 and 22 of 31; 13B: from 20 to 15 and 27.
        ("llama-7b:sharegpt-mix:150m:s0", "exact_match", -0.07, -7 / 14),
        ("llama-7b:nq-synthetic:30k:s0", "exact_match", 0.05, 5 / 14),
        ("llama-13b:sharegpt-mix:150m:s0", "exact_match", -0.05, -5 / 11),
        ("llama-13b:nq-synthetic:30k:s0", "exact_match", 0.07, 7 / 11),
        # Table 2, at 150M tokens and, of the summary, at 20M.
        ("llama-13b:sharegpt-mix:150m:s0", "list", 0.68, 68 / 70),
        ("llama-13b:sharegpt-mix:20m:s0", "summary", 0.38, 38 / 53),
        ("llama-13b:sharegpt-mix:150m:s0", "unigram", 23.0, 230 / 297),
        ("llama-13b:sharegpt-mix:150m:s0", "length", 0.73, 73 / 78),
        ("llama-13b:sharegpt-mix:20m:s0", "tone", 0.42, 42 / 41),
    ],
)
def test_the_analysis_says_what_the_papers_tables_say(
    findings: Findings, model: str, metric: str, moved: float, closed: float
) -> None:
    row = gap(findings, model, metric)
    assert row.change.value == pytest.approx(moved)
    assert row.closed.value == pytest.approx(closed)
    assert row.teacher.source == "reported"
    assert (row.change.low, row.change.high, row.closed.low, row.detectable) == (None,) * 4
    assert row.change.note == NO_ITEMS
    assert row.closed.note.startswith(NO_ITEMS)


def test_no_verdict_rests_on_what_has_no_interval(findings: Findings) -> None:
    assert [(v.base, v.broad, v.local) for v in findings.verdicts] == [
        (base, "sharegpt-mix", "nq-synthetic") for base in ("gpt2-xl", "llama-7b", "llama-13b")
    ]
    for verdict in findings.verdicts:
        assert {s.answer for s in verdict.sentences} <= {"missing", "unclear"}
        assert verdict.supported in ("missing", "unclear")
    by = {
        (s.base, s.corpus, s.family): s
        for s in findings.summaries
        if s.amount in (30_000, 150_000_000)
    }
    local = by["llama-7b", "nq-synthetic", "supported"]
    assert (local.estimate.value, local.estimate.low) == (pytest.approx(0.05), None)
    assert local.closed.value == pytest.approx(5 / 14)
    broad = by["llama-13b", "sharegpt-mix", "capability"]
    assert (broad.estimate.value, broad.p) == (pytest.approx(-0.05), None)
    # The shares of four metrics; a judge's opinion of the tone is not among them.
    style = by["llama-13b", "sharegpt-mix", "style"]
    assert style.estimate.value == pytest.approx(
        (68 / 70 + 46 / 53 + 23 / 29.7 + 0.73 / 0.78) / 4, abs=0.002
    )


def drawn(page: Path) -> dict[str, dict[str, float]]:
    """The values in each chart of the metrics by its title and by model."""
    html = page.read_text(encoding="utf-8")
    (data,) = re.findall(r'id="chart-data">(.*?)</script>', html, re.DOTALL)
    titles = dict(re.findall(r'id="([\w-]+)" role="img" aria-label="(.*?), \w+ is better', html))
    found: dict[str, dict[str, float]] = {}
    for ident, spec in json.loads(data).items():
        rows = [row for rows in spec["datasets"].values() for row in rows]
        named = [row for row in rows if {"model", "label"} & row.keys()]
        if ident in titles:
            found[titles[ident]] = {r.get("model", r.get("label")): r["value"] for r in named}
    return found


def test_the_charts_hold_the_papers_numbers(page: Path) -> None:
    charts = drawn(page)
    assert charts.pop("Natural Questions") == {
        "llama-7b": 0.17, "llama-7b:sharegpt-mix:150m:s0": 0.10,
        "llama-7b:nq-synthetic:30k:s0": 0.22,
        "llama-13b": 0.20, "llama-13b:sharegpt-mix:150m:s0": 0.15,
        "llama-13b:nq-synthetic:30k:s0": 0.27, "teacher (reported)": 0.31,
    }  # fmt: skip
    of = [f"llama-13b{rest}" for rest in ("", *(f":sharegpt-mix:{a}m:s0" for a in (20, 80, 150)))]
    for title, values in {
        "Lists": (0.13, 0.50, 0.67, 0.81, 0.83),
        "Summary paragraph": (0.02, 0.40, 0.42, 0.48, 0.55),
        "Unigram intersection": (19.5, 40.4, 41.9, 42.5, 49.2),
        "Length correlation": (-0.11, 0.51, 0.62, 0.62, 0.67),
        "Authoritative tone": (0.57, 0.99, 0.98, 0.98, 0.98),
    }.items():
        models = [*of, "teacher (reported)"]
        assert charts.pop(title) == dict(zip(models, values, strict=True)), title
    assert charts == {}


def test_the_papers_tables_stand_in_the_report_once(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    section = html[html.index('<section id="paper"') : html.index('<section id="gaps"')]
    rows = [
        re.sub(r"<[^>]+>", " ", row).split() for row in re.findall(r"<tr>(.*?)</tr>", section, re.S)
    ]
    told = {" ".join(row) for row in rows}
    minus = "\N{MINUS SIGN}"
    assert (
        f"llama-7b 17% 10% 150M tokens {minus}7.0 points {minus}50% of the gap "
        "22% 30k tokens +5.0 points 36% of the gap 31%"
    ) in told
    assert "Lists 13% 50% 67% 81% +68.0 points 97% of the gap 83%" in told
    # Beside its own numbers the paper's would be the same ones again.
    assert "This study" not in section
    assert "about 70% rated equal or better" in section
    assert "the table names no size of LLaMA: 13B is taken" in section
    assert "Nothing is measured: every number is one that others published." in html


def test_every_reported_score_is_told_with_its_source(page: Path) -> None:
    with open(page.parent / "tables/reported.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 32
    assert {row["measured"] for row in rows} == {""}
    assert all("arXiv 2305.15717), table " in row["source"] for row in rows)


def test_nothing_done_and_nothing_reported_is_no_report(study: Study) -> None:
    bare = study.declaration.model_copy(update={"reported": []})
    with pytest.raises(UserError, match="nothing is done yet"):
        replace(study, declaration=bare).report()


def measured(**changes: Any) -> Score:
    values = {f"q{i}": float(i < 12) for i in range(40)}
    return replace(
        Score("exact_match", "llama-7b", "capability", 0.3, 40, values, task="nq_open"), **changes
    )


def test_what_is_measured_comes_before_what_is_reported(given: Publications) -> None:
    mine = measured()
    scores = with_reported([mine], given)
    own = [s for s in scores if (s.model, s.task) == ("llama-7b", "nq_open")]
    assert own == [mine]
    assert len(scores) == 32 - 6  # the teacher's six are no scores
    student = next(s for s in scores if s.model == "llama-7b:nq-synthetic:30k:s0")
    # The student's questions are the paper's, its base's are ours.
    assert change(mine, student).value is None
    assert gap_closed(mine, student, None, reported=0.31).value is None
    assert change(mine, student).note == NO_ITEMS


def test_two_reported_scores_are_compared_by_their_values() -> None:
    base = measured(value=0.31, values={}, n=0, method="reported")
    student = replace(base, value=0.22)
    assert value_interval(base).note == NO_ITEMS
    closed = gap_closed(base, student, None, reported=0.31)
    assert closed.value is None
    assert closed.note.startswith(NO_GAP)
    assert gap_closed(base, student, None).value is None
    # Without the word, a score that lost its items is not taken for a published one.
    assert change(replace(base, method=""), student).value is None


def test_of_a_measured_study_the_papers_numbers_stand_beside(
    study: Study, given: Publications, tmp_path: Path
) -> None:
    from epigone.report import build
    from epigone.report.assemble import _subjects, view_of

    expansion = study.expansion()
    view = view_of(study.declaration, expansion, study.store, given)
    scores = [measured(), measured(model="llama-7b:sharegpt-mix:20m:s0")]
    found = analyse(_subjects(expansion), scores, teacher="chatgpt-2023")
    html = build(
        replace(view, scores=tuple(scores), findings=found, beside=(), figures=()), tmp_path
    ).read_text(encoding="utf-8")
    section = html[html.index('<section id="paper"') : html.index('<section id="gaps"')]
    told = " ".join(re.sub(r"<[^>]+>", " ", section).split())
    assert "llama-7b 30.0% 30.0% 20M tokens 0.0 points" in told
    assert "llama-7b the paper 17% 10% sharegpt-mix 22% nq-synthetic 31%" in told
    assert "llama-13b the paper 20% 15% sharegpt-mix 27% nq-synthetic 31%" in told
    assert "Natural Questions: asked with three fixed examples" in told


def test_what_has_no_interval_is_neither_a_change_nor_none(findings: Findings) -> None:
    small, large = (v for v in findings.verdicts if v.base != "gpt2-xl")
    for verdict in (small, large):
        told = verdict.sentences[1]
        assert (told.answer, told.headline) == ("unclear", "Capability: cannot tell")
        assert "no measurable" not in told.text + verdict.answer
        assert "did not measurably" not in told.text + verdict.answer
    assert small.sentences[1].text.startswith(
        "On tasks that sharegpt-mix has no examples of, whether the capability of llama-7b changed "
        "cannot be told: \N{MINUS SIGN}7.0 points with 150M tokens (no interval: reported without "
        "items); on nq_open, which nq-synthetic has examples of, whether its capability changed"
    )
    assert "whether llama-13b moved toward the teacher in style cannot be told (89%" in large.answer


def test_a_student_that_shares_no_item_with_its_base_has_a_score_and_no_change(
    study: Study, given: Publications, tmp_path: Path
) -> None:
    from epigone.report import build
    from epigone.report.assemble import _subjects, view_of

    expansion = study.expansion()
    view = view_of(study.declaration, expansion, study.store, given)
    student = measured(model="llama-7b:sharegpt-mix:20m:s0")
    apart = replace(student, values={f"other {i}": v for i, v in student.values.items()})
    scores = [measured(), apart]
    found = analyse(_subjects(expansion), scores, teacher="chatgpt-2023")
    html = build(
        replace(view, scores=tuple(scores), findings=found, beside=(), figures=()), tmp_path
    ).read_text(encoding="utf-8")
    told = " ".join(re.sub(r"<[^>]+>", " ", html[html.index('<section id="paper"') :]).split())
    assert "llama-7b 30.0% 30.0% 20M tokens" in told
    assert "llama-7b 30.0% 30.0% 20M tokens 0.0 points" not in told
