"""Variants and feedback as lines of their own, from the study file to the page."""

from __future__ import annotations

import pytest
from report_example import example

from epigone.findings import Subject, analyse
from epigone.report import build
from epigone.report.assemble import _setting, _subjects
from epigone.report.charts import all_series, chart
from epigone.schema import Score
from epigone.study.file import parse
from epigone.study.specs import LoraSpec
from epigone.study.steps import expand
from epigone.study.templates import CHATML

TEXT = """\
name: tiny
teacher: {name: t}
bases: [one]
corpora: {talk: {kind: broad, from: [x.json]}}
amounts: {talk: [8k, 32k]}
sweep: {kl: [0, 0.1], lr: [1e-3, 2e-3]}
feedback:
  ranked: {method: dpo, from: [p.jsonl], after: talk}
  raw: {method: dpo, from: [p.jsonl]}
"""


class World:
    def fingerprint(self, ref):
        return f"sha256:{ref}"

    data_fingerprint = fingerprint

    def reference(self, ref):
        return ref

    model_name = reference

    def provenance(self, ref):
        return "", ""


def subjects():
    return _subjects(expand(parse(TEXT), World()))


def scores(values):
    return [
        Score("acc", model, "capability", value, 40, {f"i{k}": value for k in range(40)}, task="q")
        for model, value in values.items()
    ]


def test_every_variant_and_every_feedback_is_a_line():
    lines = dict.fromkeys((s.corpus, s.feedback) for s in subjects() if not s.untrained)
    plain = [f"talk, kl={kl}, lr={lr}" for kl in ("0", "0.1") for lr in ("0.001", "0.002")]
    assert list(lines) == [
        *((line, False) for line in plain),
        *((f"{line}, ranked", True) for line in plain),
        ("feedback raw", True),
    ]
    assert [s.model for s in subjects() if s.untrained] == ["one"]
    raw = next(s for s in subjects() if s.corpus == "feedback raw")
    assert raw == Subject("one:raw:s0", "one", "feedback raw", 0, 0, feedback=True)


def drawn(spec, mark):
    """The data of every layer of a mark."""
    data = [layer["data"] for layer in spec["layer"] if layer["mark"]["type"] == mark]
    return [spec["datasets"][d["name"]] if "name" in d else d["values"] for d in data]


def test_lines_can_be_told_apart_and_hold_their_own_points():
    values = {s.model: k / 32 for k, s in enumerate(subjects())}
    found = analyse(subjects(), scores(values))
    series = all_series(found.values)
    assert len(series) == 9
    assert len({(s.colour, s.shape) for s in series}) == 9
    made = chart("c", "Q", "", found.values, series, None)
    marks = drawn(made.spec, "point")
    assert len(marks) == 9
    for line, points in zip(series, marks, strict=True):
        own = [s for s in subjects() if s.untrained or s.corpus == line.corpus]
        assert {p["model"]: p["value"] for p in points} == {s.model: values[s.model] for s in own}
    assert [p["when"] for p in marks[-1]] == ["untrained", "none, then feedback"]
    paths = drawn(made.spec, "line")
    # The base and its student by feedback are two points of no tokens, not one of their mean.
    assert [p["value"] for p in paths[-1]] == [values["one"], values["one:raw:s0"]]


def test_the_page_names_the_lines(tmp_path):
    every = subjects()
    found = analyse(every, scores({s.model: k / 32 for k, s in enumerate(every)}))
    view = example(findings=found, subjects=every, scores=(), items=(), reported={})
    page = build(view, tmp_path).read_text()
    for line in ("talk, kl=0.1, lr=0.002", "talk, kl=0.1, lr=0.002, ranked", "feedback raw"):
        assert f"one on {line}" in page
    table = (tmp_path / "tables/gaps.csv").read_text()
    assert '"talk, kl=0.1, lr=0.002, ranked",32000' in table
    assert ",feedback raw,0," in table


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("lora", None, "none"),
        ("lora", LoraSpec(rank=8, alpha=16.0, targets=("q", "v")),
         "rank 8, alpha 16, dropout 0, on q, v"),
        ("template", "", "the base's own"),
        ("template", CHATML, "chatml"),
        ("template", "{{ messages }}", "the study's own, sha256 "),
        ("lr", 2e-5, "2e-05"),
    ],
)  # fmt: skip
def test_settings_are_shown_in_words(name, value, shown):
    assert _setting(name, value).startswith(shown)
