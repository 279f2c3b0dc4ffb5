from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from statistics import fmean

import altair
import pytest
from report_example import GRID, LARGE, NASTY, SMALL, TEACHER, CellState, example, grid_view
from report_reading import Page

from epigone.findings import Base, SizeTrend, Subject, Trend, analyse
from epigone.findings.verdict import points
from epigone.report import build
from epigone.report.cells import grid
from epigone.report.charts import all_series
from epigone.report.choice import choices, hours_are
from epigone.report.paper import tables
from epigone.report.plane import plane
from epigone.report.slopes import size_words, trend_words
from epigone.report.text import dollars, p_value, visible
from epigone.report.verdicts import cards
from epigone.schema import Interval

MINUS = "\N{MINUS SIGN}"
BASES = ("tiny-100m", "mid-400m")
BASES_OF_ONE_SEED = (SMALL, LARGE)


@pytest.fixture(scope="module")
def view():
    return grid_view(BASES, n=30, resamples=200)


@pytest.fixture(scope="module")
def out(view, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sections")
    build(view, folder)
    return folder


@pytest.fixture(scope="module")
def page(out):
    return Page((out / "index.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def charts(page):
    return json.loads(page.json("chart-data"))


def rows_of(chart, key):
    return [row for rows in chart["datasets"].values() for row in rows if key in row]


def test_every_chart_is_valid_and_has_a_place_and_words(page, charts):
    places = {a["id"]: a for a in page.all("div") if "plot" in a.get("class", "").split()}
    assert set(places) == set(charts)
    assert all(a["role"] == "img" and len(a["aria-label"]) > 40 for a in places.values())
    kinds = {i.partition("-")[0] for i in charts}
    assert kinds == {"imitation", "mean", "style", "capability", "preference", "safety", "size"}
    altair.LayerChart.from_dict(charts["size-0"], validate=True)


def test_the_plane_holds_what_each_cell_closed(view, charts):
    cells = {(r["line"], r["amount"]): r for r in rows_of(charts["imitation-plane"], "seen")}
    found = {}
    for s in view.findings.summaries:
        if s.family in ("style", "capability"):
            found.setdefault((f"{s.base} on {s.corpus}", s.amount), {})[s.family] = s.closed
    assert len(cells) == len(found) == 16
    for key, both in found.items():
        assert cells[key]["x"] == pytest.approx(both["style"].value)
        assert cells[key]["y"] == pytest.approx(both["capability"].value)
    corners = rows_of(charts["imitation-plane"], "label")
    assert {"x": 1.0, "y": 1.0, "label": "teacher"} in corners


def test_without_a_gap_of_capability_the_plane_shows_the_change_and_says_so(view, tmp_path):
    own = [s for s in view.scores if s.model != TEACHER]
    bare = analyse(view.subjects, own, TEACHER, resamples=200)
    series = all_series(bare.values)
    made = plane(bare.summaries, series)
    assert made is not None
    assert not made.shares
    change = {
        (f"{s.base} on {s.corpus}", s.amount): s.estimate.value
        for s in bare.summaries
        if s.family == "capability"
    }
    cells = {(r["line"], r["amount"]): r["y"] for r in rows_of(made.spec, "seen")}
    assert cells == pytest.approx(change)
    titles = json.dumps(made.spec)
    assert "change of capability, in points" in titles
    assert '"teacher"' not in titles
    # A study of style alone has no plane, and none of its verdicts links to one.
    style = [s for s in own if s.family == "style"]
    found = analyse(view.subjects, style, TEACHER, resamples=200)
    assert plane(found.summaries, series) is None
    html = build(replace(view, findings=found, scores=tuple(style)), tmp_path)
    alone = Page(html.read_text(encoding="utf-8"))
    assert not {"#plane", "#choice", "#safety"} & {a.get("href") for a in alone.all("a")}


def test_a_cell_that_has_no_share_is_named_beside_the_plane(view):
    found = [
        replace(s, closed=Interval(None, None, None, 0, "no gap"))
        if (s.family, s.base, s.amount) == ("capability", BASES[0], 8_000)
        else s
        for s in view.findings.summaries
    ]
    made = plane(found, all_series(view.findings.values))
    assert made.shares
    assert made.left_out == tuple(
        f"{BASES[0]} on {c}, 8k tokens: no gap" for c in ("sharegpt", "nq-synthetic")
    )


def test_sentences_lead_to_figures_and_contents_to_sections(page):
    ids = {a["id"] for _, a in page.tags if "id" in a}
    links = [a["href"] for a in page.all("a") if a.get("href", "").startswith("#")]
    assert all(link[1:] in ids for link in links)
    for figure in ("#plane", "#amounts", "#choice"):
        assert links.count(figure) == 1 + len(BASES), figure
    assert {"#sizes", "#safety", "#gaps", "#made"} < set(links)
    # Nothing was judged item by item, and the paper has no such metrics.
    assert "#judged" not in links


SLOPE = Trend(
    "small", "talk", "capability", "quiz", "acc", (8_000, 32_000), Interval(0.012, 0.004, 0.02, 50),
    "too few amounts",
)  # fmt: skip


@pytest.mark.parametrize(
    ("trend", "better", "said"),
    [
        (SLOPE, "higher", "+1.2 points [+0.4 to +2.0]"),
        (replace(SLOPE, shape="saturating", half=Interval(9_400.0, 1.0, None, 50)), "higher",
         "+1.2 points [+0.4 to +2.0]; levels off, half of the gain by 9.4k tokens"),
        (replace(SLOPE, shape="straight", needed=Interval(64_000.0, 40_000.0, None, 50)), "higher",
         "+1.2 points [+0.4 to +2.0]; goes on straight; at this slope 64k tokens would match the "
         "teacher, 2.0 times all there is (95% interval 40k to more than 10 times that amount)"),
        (replace(SLOPE, slope=Interval(0.0, -0.01, 0.01, 50)), "higher",
         f"0.0 points [{MINUS}1.0 to +1.0]; the slope is not above zero"),
        (replace(SLOPE, slope=Interval(0.01, -0.01, 0.03, 50), family="safety"), "lower",
         f"+0.010 [{MINUS}0.010 to +0.030]; the slope is not below zero"),
        (replace(SLOPE, slope=Interval(0.01, None, None, 0, "no items")), "higher",
         "+1.0 points [no interval: no items]"),
        (replace(SLOPE, slope=Interval(None, None, None, 0, "not measured")), "higher",
         "no slope: not measured"),
    ],
)  # fmt: skip
def test_slopes_in_words(trend, better, said):
    assert trend_words(trend, better) == said


def test_slopes_stand_under_their_charts(view, page):
    for t in view.findings.trends:
        if (t.task, t.metric) == ("facts", "exact_match"):
            assert f"{t.base} on {t.corpus}: {trend_words(t)}" in page.text
    size = SizeTrend("", 0, "capability", "", "capability", "loss", BASES,
                     Interval(0.1, 0.05, 0.15, 9))  # fmt: skip
    assert size_words(size) == "+10.0 points [+5.0 to +15.0] for 0.1 bits a byte less loss"


def test_bases_stand_at_their_size_with_the_mean_of_their_tasks(view, charts):
    marks = {r["model"]: r for r in rows_of(charts["size-0"], "weights")}
    for base in BASES:
        own = [s.value for s in view.scores if (s.model, s.family) == (base, "capability")]
        assert marks[base]["size"] == GRID[base]
        assert marks[base]["value"] == pytest.approx(fmean(own))
        assert marks[base]["low"] is None
    assert len(marks) == len(BASES) * (1 + 2 * 2)
    at = [{r["size"] for r in rows_of(c, "weights")} for i, c in charts.items() if "size" in i]
    losses = {b.loss for b in view.findings.bases}
    # The mean and both tasks.
    assert at.count(losses) == 3


def test_gains_are_shown_for_an_hour_and_for_a_dollar(view):
    made = {(c.found.base, c.found.corpus): c for c in choices(view.findings)}
    assert len(made) == 4
    tiny = made["tiny-100m", "nq-synthetic"]
    assert tiny.found.other == "mid-400m"
    assert (tiny.found.data_hours, tiny.found.base_hours) == (4.0, 8.0)
    assert tiny.found.data_dollars == pytest.approx(10.24)
    gain = 100 * tiny.found.data_gain.value
    assert tiny.data_per_hour == f"{gain / 4:+.1f} an hour".replace("-", MINUS)
    assert tiny.data_per_dollar == f"{gain / 10.24:+.1f} a dollar".replace("-", MINUS)
    assert len(tiny.bars) == 2
    # Nothing is larger than the largest base, and recorded answers have no price.
    assert len(made["mid-400m", "sharegpt"].bars) == 1
    assert made["mid-400m", "sharegpt"].data_per_dollar == ""
    assert hours_are(view) == "hours of training"


def test_tables_hold_every_row_of_the_findings(view, out):
    found = view.findings
    wanted = {
        "summaries": found.summaries, "trends": found.trends, "sizes": found.sizes,
        "data_or_base": found.data_or_base, "local_broad": found.local_broad, "bases": found.bases,
    }  # fmt: skip
    for name, rows in wanted.items():
        with open(out / "tables" / f"{name}.csv", newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        assert len(table) == len(rows) > 0, name
        assert all(None not in row and None not in row.values() for row in table)
    with open(out / "tables/summaries.csv", newline="", encoding="utf-8") as file:
        first = next(csv.DictReader(file))
    assert float(first["estimate"]) == found.summaries[0].estimate.value


def test_the_card_has_a_bar_for_each_half_of_capability(view, page):
    for card in cards(view.findings):
        assert [b.label.partition(" (")[0] for b in card.capability] == [
            "Capability on other tasks", "Capability on its own tasks",
        ]  # fmt: skip
        # Of the broad corpus all tasks are other tasks.
        assert len(card.rows) == 4 * 4 + 4 * 6
    for sentence in (s for v in view.findings.verdicts for s in v.sentences):
        assert sentence.text in page.text


def test_holes_are_shown_with_their_reason(view, page):
    assert "2 of 34 models are not finished" in page.text
    assert "seed 0 failed, 2 of 6 steps" in page.text
    assert "seed 1 missing, 0 of 6 steps" in page.text
    assert "train tiny: out of memory" in page.text
    amounts, lines = grid(view.cells)
    assert amounts == [0, 8_000, 32_000, 128_000, 512_000]
    assert [(b, line) for b, line, _ in lines][:3] == [
        (BASES[0], "untrained"), (BASES[0], "sharegpt"), (BASES[0], "nq-synthetic"),
    ]  # fmt: skip
    assert len(lines[1][2][8_000]) == 2


def test_what_the_study_names_is_no_markup(tmp_path):
    made = example(
        cells=(CellState(Subject(NASTY, NASTY, NASTY, 8_000), "failed", 1, 2, NASTY),),
        text=NASTY,
        locked={NASTY: NASTY},
    )
    plain = Page(build(example(), tmp_path / "a").read_text(encoding="utf-8"))
    got = Page(build(made, tmp_path / "b").read_text(encoding="utf-8"))
    assert len(got.scripts) == len(plain.scripts)
    assert {t for t, _ in got.tags} <= {t for t, _ in plain.tags} | {"pre"}
    assert " ".join(got.words).count(visible(NASTY)) >= 5


def test_scores_without_items_are_shown_without_intervals(tmp_path):
    grid = grid_view(BASES, seeds=(0,), n=10, resamples=50)
    told = tuple(replace(s, values={}, n=0, method="reported") for s in grid.scores)
    size = [Base(b, GRID[b]) for b in BASES]
    found = analyse(grid.subjects, told, TEACHER, bases=size, resamples=50)
    page = Page(build(replace(grid, scores=told, findings=found), tmp_path)
                .read_text(encoding="utf-8"))  # fmt: skip
    specs = json.loads(page.json("chart-data"))
    assert all(r["low"] is None for r in rows_of(specs["capability-0"], "model"))
    assert "nan" not in page.json("chart-data").lower()
    assert not any(math.isnan(c.found.data_gain.value) for c in choices(found))
    assert "None" not in page.text


def test_small_numbers_are_not_nothing():
    assert (dollars(0.0), dollars(0.0042), dollars(1234.5)) == ("$0.00", "$0.0042", "$1,234.50")
    assert (p_value(0.0004), p_value(0.0349)) == ("under 0.001", "0.035")


def test_the_papers_tables_say_what_stands_in_them():
    view = example()
    found = tables(view)
    assert [t.title for t in found] == [
        "Table 1: Choices, broad imitation",
        "Table 1: Facts, broad imitation",
        *(f"Table 2: style of {b} on sharegpt beside the teacher's" for b in BASES_OF_ONE_SEED),
    ]
    row = next(g for g in view.findings.gaps if g.metric == "list" and g.subject.amount == 32_000)
    low, high = (points(x).removesuffix(" points") for x in (row.change.low, row.change.high))
    lists = next(r for r in found[2].rows if r.name == "Lists")
    assert f"[{low} to {high}]" in lists.cells[2].below
    assert all(c.value.endswith("%") and "." in c.value for c in lists.cells[:3])
    # What a measure is, is said once.
    assert found[2].notes and not found[3].notes
