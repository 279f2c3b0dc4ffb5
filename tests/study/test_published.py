from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from epigone.api import Study
from epigone.errors import StudyFileError
from epigone.evaluation.style_metrics import METRICS as STYLE
from epigone.study.file import parse
from epigone.study.publications import Publications, paper, publications
from epigone.study.published import METRICS, Published

ROOT = Path(__file__).parents[2]
STUDY = """\
name: tiny
teacher: {name: t, reported: {choices: {value: 0.7, source: s}}}
bases: [smollm2-135m-instruct, gemma-3-270m]
corpora:
  talk: {kind: broad, from: [sharegpt-v3-part]}
amounts: {talk: [8k, 32k]}
evaluate: {benchmarks: [facts, choices], style: {n: 32}}
reported:
"""
ROW = (
    "  - {metric: facts/exact_match, base: gemma-3-270m, corpus: talk, amount: 32k, "
    'value: 61%, source: "table 3"}\n'
)


def given(folder: Path, text: str) -> Publications:
    (folder / "s.yaml").write_text(text)
    study = Study.load(folder / "s.yaml", runs=folder / "runs")
    return publications(study.declaration, study.expansion(), study.file)


def test_rows_are_put_to_the_models_of_the_grid(tmp_path: Path) -> None:
    teacher = "  - {metric: list, teacher: second, value: 0.9, source: there}\n"
    base = "  - {metric: unigram, base: gemma-3-270m, value: 19.5, source: there}\n"
    found = given(tmp_path, STUDY + ROW + base + teacher).scores
    assert [(r.model, r.row.metric, r.row.value) for r in found] == [
        ("gemma-3-270m:talk:32k:s0", "facts/exact_match", 0.61),
        ("gemma-3-270m", "unigram", 19.5),
        ("t", "list", 0.9),
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("metric: facts", "metric: fact", "s.yaml:9:14: unknown metric of the study: "
         "fact/exact_match (did you mean 'facts/exact_match'?)"),
        ("metric: facts/exact_match", "metric: lists", "(did you mean 'list'?)"),
        ("corpus: talk", "corpus: tall", "s.yaml:9:61: unknown corpus: tall (did you mean"),
        ("32k, value", "30k, value", "no amount of talk in the study: 30000 (amounts: 8k, 32k)"),
        ("base: gemma-3-270m", "base: gemma-3-27m",
         "s.yaml:9:39: unknown base: gemma-3-27m (did you mean 'gemma-3-270m'?)"),
        ("value: 61%", "value: 61", "facts/exact_match lies between 0 and 1: 61.0 (13% is 0.13)"),
        ("value: 61%", "vale: 61%", "unknown key: reported.0.vale (did you mean 'value'?)"),
        ("value: 61%, ", "", "a reported score has a metric, a value and a source: value"),
        (', source: "table 3"', "", "a reported score has a metric, a value and a source: source"),
        ("base: gemma-3-270m", "teacher: first, base: gemma-3-270m", "is of one model (base: NAME"),
        ("amount: 32k, ", "", "a student has a corpus and an amount"),
        ("value: 61", "seed: 4, value: 61", "no seed of the study: 4"),
        ("value: 61", "variant: lr=1, value: 61", "unknown variant: lr=1 (known: none)"),
        (ROW, ROW + ROW, "s.yaml:10:5: a score reported twice: "),
        (ROW, "  - {metric: list, teacher: first, value: 1, source: s}\n", "teacher: second)"),
        (ROW, "  - {metric: choices/acc, teacher: first, value: 1, source: s}\n",
         "a score reported twice: t: choices/acc"),
        (ROW, "  gudibande\n", "unknown file of reported scores: gudibande (did you mean "
         "'gudibande-2023'?)"),
        (ROW, "  - {from: x.yaml, base: gemma-3-270m}\n", "a file of rows has all that is said"),
        (ROW, "  - x.yaml\n", "x.yaml: no such file"),
    ],
)  # fmt: skip
def test_mistakes_have_a_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = STUDY + ROW
    assert old in text
    with pytest.raises(StudyFileError) as caught:
        given(tmp_path, text.replace(old, new, 1))
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW.replace("gemma-3-270m", "gemma"), "x.yaml:3:39: unknown base: gemma"),
        (ROW.replace("61%", "[1]"), "x.yaml:3:87: rows.0.value: input should be a valid number"),
        ("  - {from: y.yaml}\n", "x.yaml:3:5: a file of rows names no other: y.yaml"),
    ],
)
def test_mistakes_of_a_file_are_told_with_its_own_lines(
    tmp_path: Path, row: str, message: str
) -> None:
    (tmp_path / "x.yaml").write_text("cite: them\nrows:\n" + row)
    with pytest.raises(StudyFileError) as caught:
        given(tmp_path, STUDY.rstrip("\n") + " x.yaml\n")
    assert message in str(caught.value)


def test_a_file_tells_whose_its_rows_are(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("cite: them\nrows:\n" + ROW)
    (found,) = given(tmp_path, STUDY.rstrip("\n") + " x.yaml\n").scores
    assert (found.cite, found.row.source) == ("them", "table 3")


def test_the_bounds_are_those_of_the_style_metrics() -> None:
    told = {name: kind for name, kind in METRICS.items() if "/" not in name}
    assert set(told) == set(STYLE)
    for name, metric in STYLE.items():
        signed = metric.better == "zero" or metric.aggregate == "pearson"
        top = 1.0 if metric.aggregate == "pearson" else metric.scale
        low = None if top is None else -top if signed else 0.0
        assert (told[name].low, told[name].high) == (low, top), name


def test_the_papers_numbers_are_those_of_its_tables() -> None:
    by: dict[str, list[float]] = {}
    for row in paper().rows:
        by.setdefault(row.metric, []).append(row.value or 0.0)
    assert by == {
        "nq_open/exact_match": [0.17, 0.10, 0.22, 0.20, 0.15, 0.27, 0.31],
        "list": [0.13, 0.50, 0.67, 0.81, 0.83],
        "summary": [0.02, 0.40, 0.42, 0.48, 0.55],
        "unigram": [19.5, 40.4, 41.9, 42.5, 49.2],
        "length": [-0.11, 0.51, 0.62, 0.62, 0.67],
        "judge/tone": [0.57, 0.99, 0.98, 0.98, 0.98],
    }
    assert all("table" in row.source for row in paper().rows)


def test_a_study_without_reported_scores_has_none() -> None:
    assert parse(STUDY.replace("reported:\n", "")).reported == []


def test_the_page_of_the_documents_has_rows_that_are_read() -> None:
    text = (ROOT / "docs/reported.md").read_text()
    (block,) = text.split("```yaml\n")[1:]
    rows = yaml.safe_load(block.split("```")[0])["reported"]
    assert [Published.model_validate(r).metric for r in rows if isinstance(r, dict)]
