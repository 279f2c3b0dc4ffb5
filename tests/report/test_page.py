from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise

import altair
import pytest
from report_example import (
    AMOUNTS,
    HOSTILE,
    LARGE,
    NASTY,
    SMALL,
    TEACHER,
    example,
    hostile_view,
    items,
    scores,
    subjects,
)
from report_reading import Page

from epigone.findings import Subject, selected
from epigone.findings.verdict import points
from epigone.report import Step, Teacher, build
from epigone.report.charts import PALETTE
from epigone.report.page import policy as policy_of
from epigone.report.text import visible
from epigone.report.verdicts import cards


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    return Page(build(example(), out).read_text(encoding="utf-8"))


def test_hostile_text_never_becomes_markup(tmp_path, page):
    html = build(hostile_view(), tmp_path).read_text(encoding="utf-8")
    got = Page(html)
    allowed = {t for t, _ in page.tags} | {"img", "ul", "li"} - {"img"}
    assert {t for t, _ in got.tags} <= allowed
    assert len(got.scripts) == len(page.scripts)
    assert len(got.styles) == 1
    handlers = [k for _, attrs in got.tags for k in attrs if k.startswith("on") or k == "style"]
    assert not handlers
    assert visible(NASTY) in " ".join(got.words)
    assert "7*7" in html
    assert got.text.count("49}}") == 0
    for raw in ("\x1b", "\u202e", "\u2028", "\ud800"):
        assert raw not in html
    samples = json.loads(got.json("sample-data"))
    said = [samples["texts"][o[1]] for o in samples["items"][0]["outputs"]]
    assert said[: len(HOSTILE) + 1] == [visible(h) for h in (NASTY, *HOSTILE)]


def test_hostile_text_starts_no_formula_in_the_tables(tmp_path):
    build(hostile_view(), tmp_path)
    for name in ("scores", "gaps", "samples", "steps"):
        with open(tmp_path / "tables" / f"{name}.csv", newline="", encoding="utf-8") as f:
            rows = list(csv.reader(f))
        assert len(rows) > 1
        assert len({len(r) for r in rows}) == 1
        for cell in (c for r in rows[1:] for c in r):
            assert not cell.startswith(("=", "+", "@", "\t"))
            assert "\x1b" not in cell
            if cell.startswith("-"):
                float(cell)


def test_chosen_prompts_stand_beside_random_ones(tmp_path, page):
    assert "Chosen against random prompts" not in page.text
    lines = [replace(s, corpus=f"{c}{NASTY}") for c in ("picked", "chance")
             for s in subjects((SMALL,)) if s.amount == AMOUNTS[0]]  # fmt: skip
    lines = [replace(s, model=f"m{i}") for i, s in enumerate(lines)]
    made = [replace(s, model=m.model) for s, m in zip(scores()[:2], lines, strict=True)]
    made[1] = replace(made[1], task=made[0].task, metric=made[0].metric, better=made[0].better)
    rows = selected(lines, made, {f"picked{NASTY}": f"chance{NASTY}"})
    assert len(rows) == 1
    got = Page(build(replace(example(), selected=rows), tmp_path).read_text(encoding="utf-8"))
    assert "Chosen against random prompts" in got.text
    assert visible(f"picked{NASTY}") in " ".join(got.words)
    with open(tmp_path / "tables" / "selection.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["change"] == str(rows[0].change.value)


def test_the_same_view_gives_the_same_bytes(tmp_path):
    for k in "ab":
        build(example(), tmp_path / k)
    names = ["index.html", *(f"tables/{n}.csv" for n in ("scores", "gaps", "samples", "steps"))]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_nothing_is_loaded_from_anywhere(page):
    for tag, attrs in page.tags:
        assert "src" not in attrs
        assert tag not in ("link", "iframe", "object", "base")
        href = attrs.get("href", "#")
        assert href.startswith(("#", "tables/"))
    assert "url(" not in page.styles[0][1]
    assert "@import" not in page.styles[0][1]
    assert "http" not in page.json("chart-data")


def test_the_policy_allows_exactly_what_is_written(page):
    policy = next(a["content"] for a in page.all("meta") if "http-equiv" in a)
    run = [body for attrs, body in page.scripts if attrs.get("type") != "application/json"]
    want = [base64.b64encode(hashlib.sha256(b.encode()).digest()).decode() for b in run]
    script = re.search(r"script-src ([^;]*)", policy).group(1)
    assert script.split() == [f"'sha256-{h}'" for h in want]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert policy == policy_of(run, page.styles[0][1])


def test_the_verdict_comes_first_with_numbers_and_intervals(page):
    text = page.text
    order = [
        "moved toward the teacher in style (",
        "Scores against amount",
        "Gaps to the teacher",
        "All scores",
        "Samples side by side",
        "The corpus",
        "How it was made",
        "What the numbers mean",
    ]
    places = [text.index(order[0]), *(text.rindex(o) for o in order[1:])]
    assert places == sorted(places)
    assert text.count("95% interval") > 4
    assert SMALL in text
    assert LARGE in text


def test_every_score_is_in_the_table_with_its_items(tmp_path, page):
    view = example()
    cells = [w.strip() for w in page.words]
    assert cells.count("untrained") >= 10
    build(view, tmp_path)
    with open(tmp_path / "tables/scores.csv", newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == len(view.scores)
    by = {(s.model, s.task, s.metric): s for s in view.scores}
    for r in rows:
        s = by[r["model"], r["task"], r["metric"]]
        assert float(r["value"]) == pytest.approx(s.value)
        assert int(r["value_n"]) == len(s.values)


def test_charts_hold_the_scores_with_their_intervals(page):
    view, charts = example(), json.loads(page.json("chart-data"))
    means = {"mean-style", "mean-capability", "imitation-plane"}
    assert len(set(charts) - means) == 5
    assert set(charts) > means
    assert all("$schema" not in c for c in charts.values())
    own = [c for ident, c in charts.items() if ident not in means]
    rows = [row for c in own for data in c["datasets"].values() for row in data]
    points = {(r["model"], round(r["value"], 12)): r for r in rows if "model" in r}
    for v in view.findings.values:
        row = points[v.model, round(v.value.value, 12)]
        assert (row["amount"], row["low"]) == (v.subject.amount, v.value.low)
    for c in charts.values():
        altair.LayerChart.from_dict(c, validate=True)
    plots = [a for a in page.all("div") if "plot" in a.get("class", "").split()]
    assert {p["id"] for p in plots} == set(charts)
    assert all(p["role"] == "img" and SMALL in p["aria-label"] for p in plots)


def test_an_unknown_teacher_is_said_and_not_drawn(tmp_path):
    bare = tuple(replace(s, ceiling=None) for s in scores())
    view = example(scores=bare, reported={}, teacher=Teacher(TEACHER), items=items((None,)))
    page = Page(build(view, tmp_path).read_text(encoding="utf-8"))
    assert "teacher not known" in page.text
    assert "not known" in page.text
    samples = json.loads(page.json("sample-data"))
    roles = [samples["models"][o[0]]["role"] for o in samples["items"][0]["outputs"]]
    assert "teacher" not in roles
    assert "identical answers" not in page.json("chart-data")
    assert all(g.closed.value is None for g in view.findings.gaps)


def test_pending_and_failed_steps_are_shown(tmp_path):
    done = tuple(s for s in scores() if s.model not in (f"{SMALL}@32k",))
    steps = (
        Step("corpus", "sharegpt", "done", 3.0),
        Step("train", f"{SMALL}_s0", "failed", None, "", "out of memory"),
        Step("benchmark", f"{SMALL}@32k", "pending"),
    )
    page = Page(build(example(scores=done, steps=steps), tmp_path).read_text(encoding="utf-8"))
    assert "1 of 3 steps are done, 1 pending, 1 failed" in page.text
    assert "out of memory" in page.text
    assert "5 scores are missing" in page.text
    assert "Not finished: the largest amount measured is 8k of 32k tokens" in page.text


def test_a_study_with_nothing_measured_still_has_a_page(tmp_path):
    view = example(scores=(), items=(), corpora=(), steps=(), provenance={}, remarks=())
    page = Page(build(view, tmp_path).read_text(encoding="utf-8"))
    for said in ("No scores yet", "No samples yet", "No corpus yet", "Nothing can be said about"):
        assert said in page.text
    empty = example(subjects=(), scores=(), items=())
    assert "no bases" in Page(build(empty, tmp_path / "b").read_text(encoding="utf-8")).text


def test_several_corpora_and_seeds_get_lines_of_their_own(tmp_path):
    people = [s for s in subjects() if s.base == SMALL]
    people += [Subject(f"{LARGE}@{a // 1000}k", SMALL, "local", a, 1) for a in AMOUNTS]
    page = Page(build(example(subjects=tuple(people)), tmp_path).read_text(encoding="utf-8"))
    assert f"{SMALL} on sharegpt" in page.text
    assert f"{SMALL} on local" in page.text
    assert "seed 1" in page.text


def test_the_page_can_be_read_by_machines_for_people(page):
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    levels = [int(t[1]) for t, _ in page.tags if re.fullmatch(r"h[1-6]", t)]
    assert all(b - a <= 1 for a, b in pairwise(levels))
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attrs in page.tags:
        for name in (attrs.get("aria-labelledby") or "").split():
            assert name in ids
        if (attrs.get("href") or "").startswith("#"):
            assert attrs["href"][1:] in ids
    assert len(page.all("caption")) == len(page.all("table"))
    assert all("scope" in a for a in page.all("th"))


def _luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    high, low = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_have_enough_contrast_in_both_schemes():
    css = files("epigone.report").joinpath("static/style.css").read_text(encoding="utf-8")
    light, dark = (
        {k: v + v[1:] if len(v) == 4 else v for k, v in re.findall(r"--([\w-]+): (#\w+)", block)}
        for block in re.findall(r":root \{(.*?)\}", css, re.S)[:2]
    )
    for scheme in (light, dark):
        for ground in ("bg", "panel", "soft"):
            for ink in ("ink", "dim", "accent"):
                assert contrast(scheme[ink], scheme[ground]) >= 4.5, (ink, ground)
        for ink in ("good", "bad", "warn"):
            assert contrast(scheme[ink], scheme[f"{ink}-soft"]) >= 4.5, ink
        for colour in PALETTE:
            assert contrast(colour, scheme["panel"]) >= 3, colour


def test_vendored_files_are_the_ones_described_and_fit_altair():
    vendor = files("epigone.report").joinpath("vendor")
    readme = vendor.joinpath("README.md").read_text(encoding="utf-8")
    rows = re.findall(r"`([\w.-]+\.js)` \| ([\w-]+) ([\d.]+).*`([0-9a-f]{64})`", readme)
    assert len(rows) == 3
    for name, package, version, digest in rows:
        content = vendor.joinpath(name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        assert version.encode() in content or package == "vega-embed"
        assert vendor.joinpath(f"LICENSE-{package}.txt").is_file()
    versions = {package: version for _, package, version, _ in rows}
    assert f"v{versions['vega-lite']}" == altair.SCHEMA_VERSION
    assert versions["vega"].split(".")[0] == altair.VEGA_VERSION
    assert versions["vega-embed"].split(".")[0] == altair.VEGAEMBED_VERSION


def test_a_card_shows_what_its_sentences_are_about():
    last = (f"{SMALL}@32k", f"{LARGE}@32k")
    own = tuple(s for s in scores() if (s.model in last, s.family) != (True, "capability"))
    view = example(scores=own)
    for card in cards(view.findings):
        early = next(
            s for s in view.findings.summaries
            if (s.base, s.amount, s.family) == (card.verdict.base, AMOUNTS[0], "unsupported")
        )  # fmt: skip
        size = points(early.detectable, signed=False)
        assert card.detectable == (size,)
        assert size in next(s.text for s in card.verdict.sentences if s.kind == "capability")
        assert card.rows == tuple(
            s for s in view.findings.summaries
            if s.base == card.verdict.base and s.family != "capability"
        )  # fmt: skip
    # Style measured at the small amount only: its ceiling still names the end of the axis.
    own = tuple(s for s in scores() if (s.model in last, s.family) != (True, "style"))
    ends = {c.style.track.marks[-1][1] for c in cards(example(scores=own).findings)}
    assert ends == {"identical answers"}
