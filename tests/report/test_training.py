from __future__ import annotations

import csv
import json
import re
from dataclasses import replace

import altair
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_example import HOSTILE, NASTY, example
from report_reading import Page

from epigone.report import Curve, Point, Trunk, build
from epigone.report.text import visible
from epigone.report.training import curves_of, cut, most_points, statistics, thinned

FACTS = {
    "conversations": 12, "blocks": 40, "tokens": 5000, "supervised": 4000,
    "supervised_share": 0.8, "padding": 1250, "efficiency": 0.8,
    "parts_of_long_conversations": 3, "chunks_of_long_exchanges": 0, "supervised_lost": 2,
    "source_tokens_lost": 0, "unsupervised_dropped": 150, "conversations_without_targets": 0,
    "steps": 9, "warmup_steps": 2, "device": "cpu", "layout": "replicate=1,shard=2,tensor=4",
    "compute": "bfloat16", "master_weights": "fp32", "seconds_training": 60.0,
    "first_loss": 3.5, "last_loss": 1.25, "resumed_at_step": 0,
}  # fmt: skip


def rows(n, branch=None, start=0, kl=None):
    made = []
    for i in range(start, start + n):
        row = {"step": i, "loss": 3 - i / 10, "supervised": 7 * (i + 1), "tokens": 99}
        row |= {"lr": i / 1000, "gradient_norm": 1 + i}
        made.append(
            row | ({"branch": branch} if branch else {}) | ({} if kl is None else {"kl": kl * i})
        )
    return made


def trunk(n=9, **changes):
    curves = tuple(curves_of(rows(n)))
    parts = {
        "name": "t_s0", "base": "small", "line": "talk", "seed": 0, "curves": curves,
        "taken": {8000: curves[0].points[n // 2].seen, 32000: curves[0].points[-1].seen},
        "facts": FACTS, "seconds": 65.0, "peak_bytes": 2_000_000_000,
    }  # fmt: skip
    return Trunk(**(parts | changes))


@given(
    losses=st.lists(st.floats(0, 20), min_size=1, max_size=60), most=st.integers(1, 70)
)  # fmt: skip
def test_thinning_takes_means_and_forgets_no_step(losses, most):
    points = [Point(i, i, 3 * i + 1, x, i / 7, 2 * x, x / 2) for i, x in enumerate(losses)]
    thin = thinned(points, most)
    assert len(thin) == min(most, len(points))
    covered = [i for p in thin for i in range(p.first, p.last + 1)]
    assert covered == list(range(len(points)))
    for p in thin:
        own = losses[p.first : p.last + 1]
        assert p.loss == pytest.approx(sum(own) / len(own))
        assert p.gradient_norm == pytest.approx(2 * p.loss)
        assert p.kl == pytest.approx(p.loss / 2)
        assert (p.seen, p.lr) == (points[p.last].seen, points[p.last].lr)
    sizes = {p.last - p.first + 1 for p in thin}
    assert max(sizes) - min(sizes) <= 1


def test_a_decays_tokens_are_those_of_its_own_way_from_the_base():
    # As a wsd run writes them: the decay of the first amount leaves the trunk before step 3,
    # and the trunk goes on from there; that of the last amount ends it.
    log = [*rows(3), *rows(2, branch=10, start=3), *rows(4, start=3), *rows(3, branch=20, start=7)]
    curves = curves_of(log)
    assert [c.branch for c in curves] == [None, 10, 20]
    for c, end in zip(curves[1:], (4, 9), strict=True):
        lineage = {r["step"]: r for r in log if r.get("branch") in (None, c.branch)}
        lineage |= {r["step"]: r for r in log if r.get("branch") == c.branch}
        own = [r["supervised"] for step, r in lineage.items() if step <= end]
        assert c.points[-1].seen == sum(own)
        assert c.points[-1].last == end
    assert [p.last for p in curves[0].points] == list(range(7))
    assert curves_of(rows(3, branch=5))[0].branch == 5
    assert curves_of(rows(3, kl=0.5))[0].points[2].kl == 1.0


def test_a_page_of_many_curves_gives_each_fewer_points():
    assert most_points([trunk()]) == 500
    assert most_points([trunk()] * 100) == 200
    assert most_points([trunk()] * 10_000) == 60


def test_facts_are_told_in_words():
    told = statistics(FACTS, 65.0, 2_000_000_000)
    assert told["Supervised"] == "4,000 tokens, 80.0% of all"
    assert told["Packing"] == "1,250 tokens of padding, efficiency 80.0%"
    assert told["Steps"] == "9, 2 of them warm-up"
    assert told["Computed"].startswith("2 shards x 4 tensor slices on cpu, products in bfloat16")
    assert told["Time"].startswith("1 min 05 s")
    assert told["Memory"].startswith("2.0 GB")
    assert "Continued" not in told
    assert cut(FACTS) == (
        "3 pieces of conversations longer than a block, 2 supervised tokens lost, "
        "150 tokens dropped after the last supervised one"
    )
    assert cut({}) == "nothing"
    again = statistics(FACTS | {"resumed_at_step": 5, "layout": "replicate=1,shard=1,tensor=1"},
                       1.0, 1)  # fmt: skip
    assert again["Continued"] == "at step 5"
    assert again["Computed"].startswith("one process")


def read(out, *trunks):
    html = build(example(trunks=trunks), out).read_text(encoding="utf-8")
    page = Page(html)
    charts = json.loads(page.json("chart-data"))
    return page, {k: v for k, v in charts.items() if k.startswith("training-")}


def drawn(spec, mark):
    data = [layer["data"] for layer in spec["layer"] if layer["mark"]["type"] == mark]
    return [spec["datasets"][d["name"]] if "name" in d else d["values"] for d in data]


def test_every_trunk_is_a_line_and_every_student_a_mark(tmp_path):
    made = (trunk(), trunk(seed=1), trunk(line="talk, kl=0.1"), trunk(base="large"))
    page, charts = read(tmp_path, *made)
    assert len(charts) == 3
    for spec in charts.values():
        altair.LayerChart.from_dict(spec, validate=True)
    first = charts["training-0"]
    assert [len(d) for d in drawn(first, "line")] == [9, 9]
    point = drawn(first, "circle")[1][4]
    want = made[1].curves[0].points[4]
    assert (point["seen"], point["loss"], point["run"]) == (want.seen, want.loss, "seed 1")
    assert (point["steps"], point["rate"], point["norm"]) == ("5", "0.004", "5.00")
    marks = {r["student"]: r["seen"] for d in drawn(first, "text") for r in d}
    assert marks == {"8k": 7 * 15, "32k": 7 * 45}
    plots = {a["id"]: a["aria-label"] for a in page.all("div") if a.get("class") == "plot"}
    assert set(charts) <= set(plots)
    assert "seed 1: loss 3.00 at 7" in plots["training-0"]
    for said in ("small on talk", "large on talk", "4k of 5k", "80%", "3.50", "1.25", "1 min 05"):
        assert said in page.text
    assert len(page.all("caption")) == len(page.all("table"))
    assert all("scope" in a for a in page.all("th"))


def test_decays_start_where_they_leave_the_trunk(tmp_path):
    log = [*rows(3), *rows(2, branch=8000, start=3), *rows(4, start=3)]
    page, charts = read(tmp_path, trunk(curves=tuple(curves_of(log))))
    whole, decay = drawn(charts["training-0"], "line")
    assert decay[0] == {k: whole[2][k] for k in ("seen", "loss")}
    assert len(decay) == 3
    assert "dashed: the decay toward an amount" in page.text


def test_the_axis_is_logarithmic_where_tokens_span_decades(tmp_path):
    def scale(n):
        (spec,) = read(tmp_path, trunk(n))[1].values()
        return spec["layer"][-1]["encoding"]["x"]["scale"].get("type")

    assert [scale(9), scale(40)] == [None, "log"]


def test_a_long_run_is_thinned_and_says_so_while_the_table_is_whole(tmp_path):
    page, charts = read(tmp_path, trunk(2000))
    assert [len(d) for d in drawn(charts["training-0"], "line")] == [500]
    assert "a point is the mean of about 4 steps" in page.text
    with open(tmp_path / "tables/training.csv", newline="", encoding="utf-8") as f:
        found = list(csv.DictReader(f))
    assert [int(r["step"]) for r in found] == list(range(2000))
    assert float(found[3]["loss"]) == 3 - 3 / 10
    assert "a point a step" in read(tmp_path / "b", trunk())[0].text


def test_what_is_not_done_is_not_there(tmp_path):
    page, charts = read(tmp_path)
    assert charts == {}
    assert "No student has been trained yet" in page.text


def test_hostile_names_stay_text(tmp_path):
    plain = Page(build(example(trunks=(trunk(),)), tmp_path / "a").read_text(encoding="utf-8"))
    made = trunk(base=NASTY, line=NASTY, name=NASTY)
    html = build(example(trunks=(made,)), tmp_path / "b").read_text(encoding="utf-8")
    got = Page(html)
    assert [t for t, _ in got.tags] == [t for t, _ in plain.tags]
    assert visible(NASTY) in " ".join(got.words)
    for raw in ("\x1b", "\u202e", "\ud800"):
        assert raw not in html
    for hostile in HOSTILE[:2]:
        assert hostile not in html
    assert not re.search(r"^[=+@]", (tmp_path / "b/tables/training.csv").read_text(), re.MULTILINE)


def test_one_step_is_a_dot(tmp_path):
    one = Curve(None, (Point(0, 0, 5, 2.0, 1e-3, 1.0),))
    (spec,) = read(tmp_path, replace(trunk(), curves=(one,), taken={8: 5}))[1].values()
    (circle,) = [x["mark"] for x in spec["layer"] if x["mark"]["type"] == "circle"]
    assert circle["opacity"] == 1
