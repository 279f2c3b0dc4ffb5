"""The section of judges and people: charts, tables, words, links; of a study with planted effects
and hostile names."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from urllib.parse import unquote

import altair
import numpy as np
import pytest
from report_example import NASTY, SMALL, TEACHER, example, subjects
from report_reading import Page

from epigone.findings import fooled, judged
from epigone.findings.explained import FEW, NO_GAIN
from epigone.raters.agreement import judges, krippendorff
from epigone.report import Item, Step, build
from epigone.report.judged import example as link
from epigone.report.judged import section, sentence
from epigone.report.text import visible
from epigone.report.view import Agreed
from epigone.schema import Interval, Message, Rating, Score

N = 60
MODELS = (SMALL, f"{SMALL}@8k", f"{SMALL}@32k")
JUDGE = f"judge {NASTY}"


def judged_view(judge=JUDGE, **changes):
    """The small base and its students, judged by a model and by three people."""
    rng = np.random.default_rng(0)
    ids = [f"p{j}/ü {NASTY}" for j in range(N)]
    lengths, scores, ratings = {TEACHER: dict.fromkeys(ids, 900.0)}, [], []
    for k, model in enumerate(MODELS):
        style, length = k + rng.normal(size=N), 700 + 100 * k + 90 * rng.normal(size=N)
        right = (rng.random(N) < 0.4) * 1.0
        lengths[model] = dict(zip(ids, length, strict=True))
        own = {"model": model, "value": 0.0, "n": N}
        by = dict(zip(ids, style, strict=True))
        scores.append(Score("unigram", family="style", values=by, **own))
        by = dict(zip(ids, right, strict=True))
        scores.append(Score("correct", family="capability", values=by, primary=False, **own))
        won = rng.random(N) < 1 / (1 + np.exp(1.5 - style))
        a, b = sorted((model, TEACHER))
        for item, win in zip(ids, won, strict=True):
            preference = (1 if win else -1) * (1 if a == model else -1)
            one = Rating(item, judge, a, b, preference, "a", workforce="judge")
            ratings += [one, replace(one, left="b")]
            ratings += [
                replace(one, rater=f"r{n}", workforce="private") for n in range(3) if n or win
            ]
    people = [r for r in ratings if r.workforce != "judge"]
    told = judged(ratings, TEACHER, lengths, scores)
    who = [s for s in subjects() if s.model in MODELS]
    parts = {
        "judged": told,
        "fooled": fooled(ratings, told, who, lengths, scores, TEACHER, resamples=100),
        "agreed": Agreed(krippendorff(people), tuple(judges(ratings))),
        "rating": "Ratings by people are pending: 8 of 12 votes.",
        "items": tuple(Item(i, (Message("user", f"{i} {NASTY}"),), "a", ()) for i in ids),
    }
    return example(**(parts | changes))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("judged")
    view = judged_view()
    return view, out, Page(build(view, out).read_text(encoding="utf-8"))


def rows_of(out, name):
    with open(out / "tables" / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_nothing_is_said_where_nobody_judged(tmp_path):
    page = Page(build(example(), tmp_path).read_text(encoding="utf-8"))
    assert "Judges and people" not in page.text
    assert {"href": "#judged"} not in page.all("a")
    assert rows_of(tmp_path, "fooled.csv") == []


def test_charts_hold_what_is_preferred_and_can_be_read_aloud(built):
    view, _, page = built
    specs = json.loads(page.json("chart-data"))
    own = {k: v for k, v in specs.items() if k.startswith(("judged-", "strength-"))}
    assert len(own) == 4
    for spec in own.values():
        altair.LayerChart.from_dict(spec, validate=True)
    rows = [r for rows in own["judged-0"]["datasets"].values() for r in rows]
    found = {
        (r["model"], r["kind"]): (r["value"], r["low"], r["high"]) for r in rows if "kind" in r
    }
    for c in view.judged.pairs:
        if c.rater == JUDGE:
            for kind, i in (
                ("as judged", c.preference.win_rate),
                ("at equal length", c.controlled.win_rate),
            ):
                assert found[c.preference.model, kind] == (i.value, i.low, i.high)
    plots = {a["id"]: a["aria-label"] for a in page.all("div") if a.get("class") == "plot"}
    assert all(m in plots[k] for k in own for m in MODELS)


def test_hostile_names_stay_text(built):
    _, out, page = built
    handlers = [k for _, attrs in page.tags for k in attrs if k.startswith("on") or k == "style"]
    assert not handlers and not page.all("img")
    html = (out / "index.html").read_text(encoding="utf-8")
    assert not any(raw in html for raw in ("\x1b", "\u202e", "\u2028", "\ud800"))
    assert visible(JUDGE) in " ".join(page.words)
    for name in ("fooled", "wrong", "preference"):
        for row in rows_of(out, f"{name}.csv"):
            assert not any(c.startswith(("=", "+", "@")) for c in row.values())


def test_links_lead_to_the_examples_that_are_preferred_and_wrong(built):
    view, out, page = built
    wrong = {visible(i) for c in view.judged.pairs for i in c.wrong.items}
    links = [a["href"] for a in page.all("a") if a["href"].startswith("#example=")]
    assert links and all(re.fullmatch(r"#example=[\w.~%-]+", href) for href in links)
    assert {unquote(href.removeprefix("#example=")) for href in links} <= wrong
    shown = {i["id"] for i in json.loads(page.json("sample-data"))["items"]}
    assert {unquote(href.removeprefix("#example=")) for href in links} <= shown
    assert link("a b/ü&\ud800") == "#example=a%20b%2F%C3%BC%26%EF%BF%BD"
    rows = rows_of(out, "wrong.csv")
    assert len(rows) == sum(len(c.wrong.items) for c in view.judged.pairs)
    assert {r["item"] for r in rows} == wrong
    (top,) = (c for c in view.judged.pairs if (c.rater, c.preference.model) == (JUDGE, MODELS[2]))
    row = next(f for f in view.fooled if (f.rater, f.model) == (JUDGE, MODELS[2]))
    said = f"{len(top.wrong.items)} of {top.wrong.share.n}; in style nearer the teacher than its"
    assert f"{said} base on {row.styled} of {len(top.wrong.items)}" in page.text


def test_the_table_and_the_file_hold_each_student(built):
    view, out, page = built
    rows = {(r["rater"], r["model"]): r for r in rows_of(out, "fooled.csv")}
    assert {m for _, m in rows} == set(MODELS[1:]) and len(rows) == 4
    for f in view.fooled:
        row = rows[visible(f.rater), f.model]
        assert float(row["gain"]) == f.gain.value
        assert row["explained"] == ("" if f.explained.value is None else str(f.explained.value))
        assert sentence(f) in page.text
    for said in ("How far to trust them", "8 of 12 votes", "Krippendorff", "Are they fooled?"):
        assert said in page.text


def test_trust_adds_up_over_the_models(built):
    view, _, _ = built
    trust = {t.rater: t for t in section(view).trust}
    assert (trust[JUDGE].flips, trust[JUDGE].both, trust[JUDGE].comparisons) == (0, 3 * N, 3 * N)
    assert trust[JUDGE].first == 0.5 and trust["people"].beside is None
    own = [c for c in view.judged.pairs if c.rater == JUDGE]
    longer = sum(c.longer * c.longer_n for c in own) / sum(c.longer_n for c in own)
    assert trust[JUDGE].longer == pytest.approx(longer)
    assert trust[JUDGE].beside.direction.value == view.agreed.judges[0].direction.value


def test_sentences_say_what_the_numbers_do(built):
    row = replace(built[0].fooled[0], corrected=None)

    def told(gain, share):
        return sentence(replace(row, gain=Interval(*gain, 40), explained=Interval(*share)))

    gain, loss = (0.2, 0.1, 0.3), (-0.2, -0.3, -0.1)
    assert told(gain, (0.7, 0.4, 0.9, 40)) == (
        "It beats the teacher 20.0 points more often than its base (95% interval +10.0 to +30.0 "
        "points). About 70% of that gain goes with style and length (95% interval 40% to 90%)."
    )
    assert "None of that gain" in told(gain, (-0.1, -0.4, 0.2, 40))
    assert "All of that gain goes with style and length: an estimate of 120%" in told(
        gain, (1.2, 0.8, 1.9, 40)
    )
    assert "How much of that gain goes with style and length cannot be told" in told(
        gain, (0.5, -0.2, 1.4, 40)
    )
    assert "less often" in told(loss, (0.5, 0.2, 0.8, 40))
    assert "50% of that loss" in told(loss, (0.5, 0.2, 0.8, 40))
    assert "nothing to explain" in told((0.0, -0.1, 0.1), (None, None, None, 40, NO_GAIN))
    assert "as often as its base" in told((0.0, -0.1, 0.1), (None, None, None, 40, NO_GAIN))
    assert "too few" in told(gain, (None, None, None, 40, FEW))


def test_what_is_pending_is_shown_before_anything_was_judged(tmp_path):
    steps = (
        Step("judge", "a", "done"),
        Step("judge", "b", "failed"),
        Step("judge", "c", "pending"),
    )
    page = Page(build(example(steps=steps), tmp_path).read_text(encoding="utf-8"))
    assert "Judges and people" in page.text
    assert "2 of 3 of the judge's steps are not done" in page.text
