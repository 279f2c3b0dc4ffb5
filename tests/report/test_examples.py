from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from browsing import JUDGE, large, score, small
from report_example import HOSTILE

from epigone.evaluation.table import write_table
from epigone.files import write_jsonl
from epigone.findings import judged
from epigone.report import build
from epigone.report.examples import ROOM, examples_of
from epigone.report.items import answer_of, items_of, note_of, question_of, reference_of
from epigone.report.text import script_json
from epigone.schema import Message, Rating, Sample
from epigone.study.specs import BenchmarkSpec, ModelSpec

WORST, STYLED, LOST, GAINED = 1, 2, 4, 8


def title(task, metric):
    return f"{task}/{metric}" if task else metric


def outputs(examples):
    """What is told of each output by item and model."""
    models = [m.get("title", m["name"]) for m in examples.data["models"]]
    return {
        (item["id"], models[o[0]]): o[2] if len(o) > 2 else {}
        for item in examples.data["items"]
        for o in item["outputs"]
    }


def test_what_filters_find_is_what_was_worked_out_by_hand():
    told = outputs(examples_of(small(), title))
    found = {key: rest["found"] for key, rest in told.items() if "found" in rest}
    assert found == {
        ("h1", "b@1k"): WORST | STYLED | LOST,  # right in the judge's eyes was the base alone
        ("h2", "b@2k"): GAINED,
        ("q1", "b@1k"): LOST,
        ("q2", "b@1k"): GAINED,
    }
    # Lists 0 to 1 and words 20 to 50 of 100; words by 10 of 100 and headings away by 1.
    assert told["h1", "b@1k"]["style"] == pytest.approx((1 + 0.3) / 2)
    assert told["h1", "b@2k"]["style"] == pytest.approx((0.1 - 1) / 2)
    assert told["h2", "b@1k"]["style"] == 0
    # The reference tells that what the judge called wrong is right; half right is neither.
    assert told["h1", "b@2k"]["right"] == told["h1", "t"]["right"] == 1
    assert "right" not in told["q2", "b@2k"]
    assert told["q2", "b@2k"]["note"] == "cut at the length limit; passed"
    assert told["h1", "b@1k"]["won"] == [[JUDGE, 1], ["people", 0.25]]


def test_scores_of_an_output_are_those_of_its_item_and_source():
    made = examples_of(small(), title)
    told = outputs(made)

    def named(key):
        values = told[key]["scores"]
        return {made.data["metrics"][k]: v for k, v in zip(values[::2], values[1::2], strict=True)}

    # No correlation, and no score that another source has of an item of the same name.
    correct = f"judge/correct ({JUDGE})"
    assert named(("h1", "b@1k")) == {"list": 1, "unigram": 50, correct: 0}
    assert named(("h1", "b")) == {"list": 0, "more_headings": 0, "unigram": 20, correct: 1}
    assert named(("q1", "b")) == {"quiz/acc": 1, "quiz/f1": 0}


@pytest.fixture(scope="module")
def fifty():
    return large()


@pytest.fixture(scope="module")
def made(fifty):
    return examples_of(fifty, title)


def test_fifty_cells_fit_and_what_is_left_out_is_said(fifty, made):
    assert len(script_json(made.data)) <= ROOM
    counted = Counter(item["source"] for item in made.data["items"])
    assert [counted[k] for k in range(4)] == [s.shown for s in made.sources]
    assert [s.known for s in made.sources] == [32, 200, 200, 200]
    assert made.sources[0].shown == 32
    assert made.drawn
    assert len({*made.data["texts"]}) == len(made.data["texts"])
    whole = {o.text for item in fifty.items for o in item.outputs}
    cut = [made.data["texts"][k] for k in made.data["more"]]
    assert len(cut) == made.cut > 0
    assert {len(t) for t in cut} == {made.limit}
    longer = {t[: made.limit]: len(t) - made.limit for t in whole if len(t) > made.limit}
    for k, more in made.data["more"].items():
        text = made.data["texts"][k]
        assert more == longer.get(text, more)
    assert sorted(o[0] for o in made.data["items"][0]["outputs"]) == [*range(56)]


def test_a_smaller_room_takes_fewer_of_the_same_draw(fifty, made):
    fewer = examples_of(fifty, title, 250_000)
    assert len(script_json(fewer.data)) <= 250_000
    items = {item["id"] for item in made.data["items"]}
    assert {item["id"] for item in fewer.data["items"]} < items


def test_links_name_one_example_each():
    view = small()
    again = [replace(item) for item in (*view.items, *view.items, view.items[2])]
    made = examples_of(replace(view, items=tuple(again)), title)
    keys = [item["id"] for item in made.data["items"]]
    assert len(set(keys)) == len(keys) == 9
    assert keys[:3] == ["held-out/h1", "held-out/h2", "quiz/q1"]
    assert keys[-1] == "quiz/q1~3"


def choice(*values, target="1", **changes):
    outputs = [json.dumps(v) for v in values]
    row = {"item": "q1", "part": "quiz", "subject": "", "prompt_sha256": "", "target": target,
           "outputs": outputs, "stops": [], "verdicts": [], "learnt": False,
           "metrics": {"acc": 1.0}}  # fmt: skip
    return row | changes


def test_choices_are_called_by_their_letters():
    row = choice([-2.5, False], [-0.5, True], [-float("inf"), False])
    assert answer_of(row["outputs"], []) == reference_of(row) == "choice B"
    assert answer_of(choice(-1.0, -3.0)["outputs"], []) == "choice A"
    known = {"name": "q1", "question": "Which?", "text": "Which? Sea Land Air"}
    asked = question_of(known, row)[0].content
    assert asked == "Which?\n\nChoices, in order: Sea Land Air"
    # What was written, even a number, is no choice; and the rest of its text tells the answer.
    own = choice(target="4", outputs=["4"], stops=["end"])
    assert (answer_of(["4"], ["end"]), reference_of(own)) == ("4", "4")
    assert answer_of(["1", "2"], ["end", "end"]) == "[1 of 2]\n1\n\n[2 of 2]\n2"
    assert answer_of(["    return x\n"], ["end"]) == "    return x\n"
    assert answer_of([], []) == ""
    assert question_of(known, own)[0].content == "Which?"
    assert question_of(None, own) == ()
    assert note_of(choice(verdicts=["failed: NameError"], learnt=True)) == (
        "failed: NameError; stands in what the model was trained on"
    )


def step(tmp_path, stage, model, spec=None, axes=(), done=True):
    folder = tmp_path / f"{stage}-{model or axes[0]}"
    folder.mkdir()
    record = SimpleNamespace() if done else None
    made = SimpleNamespace(stage=stage, model=model, spec=spec, axes=axes, folder=folder)
    return SimpleNamespace(step=made, record=record)


def test_examples_are_read_from_finished_steps(tmp_path):
    store = SimpleNamespace(folder=lambda step: step.folder)
    planned = [step(tmp_path, "items", "", axes=("quiz",))]
    write_jsonl(planned[0].step.folder / "items.jsonl",
                [{"name": "q1", "question": "Which?", "text": "Which? Sea Land"}])  # fmt: skip
    for model, text in (("t", "The Baltic."), ("b", HOSTILE[0])):
        planned.append(step(tmp_path, "generate", model))
        sample = Sample("h1", model, (Message("user", "Name it."),), text, "end")
        write_jsonl(planned[-1].step.folder / "samples.jsonl", [sample.to_json()])
    for model, outputs in (("refused", []), ("b", [[-2.0, False], [-1.0, True]])):
        spec = BenchmarkSpec(task="quiz", task_version=1, label="quiz, chat",
                             model=ModelSpec(kind="base", name=model))  # fmt: skip
        planned.append(step(tmp_path, "benchmark", model, spec))
        write_table(planned[-1].step.folder / "samples.parquet", [choice(*outputs)])
    planned.append(step(tmp_path, "benchmark", "pending", spec, done=False))

    first = Rating("h1", JUDGE, "b", "t", 2, "a", "judge")
    ratings = [first, replace(first, preference=1, left="b")]
    held, quiz = items_of(planned, store, "t", ratings)
    assert (held.id, held.answer, held.source) == ("h1", "The Baltic.", "")
    assert held.outputs[0].text == HOSTILE[0]
    assert held.outputs[0].preferred == {JUDGE: 1.0}
    assert (quiz.source, quiz.reference, quiz.answer) == ("quiz, chat", "choice B", None)
    assert quiz.prompt[0].content == "Which?\n\nChoices, in order: Sea Land"
    assert [(o.model, o.text) for o in quiz.outputs] == [("refused", ""), ("b", "choice B")]


def test_preferred_but_wrong_are_those_of_the_findings():
    view = small()
    ratings = [
        Rating(item, JUDGE, "b@1k", "t", 2 if win else -2, left, "judge")
        for item, win in (("h1", True), ("h2", False))
        for left in ("a", "b")
    ]
    (pair,) = judged(ratings, "t", {}, view.scores).pairs
    assert pair.wrong is not None
    told = outputs(examples_of(view, title))
    found = {item for (item, model), rest in told.items()
             if model == "b@1k" and rest.get("found", 0) & WORST}  # fmt: skip
    assert found == {*pair.wrong.items} == {"h1"}


def test_the_tables_hold_what_the_page_leaves_out(tmp_path):
    view = small()
    build(view, tmp_path)
    rows = (tmp_path / "tables/samples.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "source,item,role,model,stop,note,text"
    assert "quiz,q1,reference,,,,choice A" in rows
    assert "quiz,q2,output,b,length,passed,la" in rows
    assert len(rows) == 1 + 3 + 1 + 1 + 12  # prompts, a teacher's answer, a reference, outputs


def test_a_score_that_is_no_number_is_not_shown():
    view = small()
    bad = score("b", "unigram", {"h1": float("inf")}, scale=100.0)
    made = examples_of(replace(view, scores=(bad,)), title)
    assert made.data["metrics"] == []
