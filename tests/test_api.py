from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

import epigone
from epigone.api import Study
from epigone.errors import CorpusError, MissingExtra, UserError
from epigone.study.specs import TrainSpec
from epigone.study.templates import CHATML

# Everything that a study can be made of without a download or a network.
TEXT = """\
name: tiny
teacher: {name: t, terms: mit}
bases: [smollm2-135m-instruct]
corpora:
  Talk: {kind: broad, from: [{ref: talk.json, terms: mit}]}
amounts: {Talk: [8k]}
recipe: {preset: adamw, replay_from: [{ref: plain.txt, terms: mit}]}
sweep: {replay: [0, 0.25], template: [chatml, own.jinja]}
feedback:
  ranked: {method: dpo, from: [{ref: pairs.jsonl, terms: mit}], after: Talk}
  alone: {method: revise, from: [pairs.jsonl]}
"""
OWN = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "talk.json").write_text("[]")
    (tmp_path / "plain.txt").write_text("Once upon a time.")
    (tmp_path / "pairs.jsonl").write_text("{}")
    (tmp_path / "own.jinja").write_text(OWN)
    return tmp_path


def study(folder: Path, old: str = "", new: str = "") -> Study:
    assert old in TEXT
    (folder / "study.yaml").write_text(TEXT.replace(old, new, 1) if old else TEXT)
    return Study.load(folder, runs=folder / "runs")


def test_paths_of_recipe_and_feedback_start_at_the_study_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    specs = [s.spec for s in study(folder).expansion().steps if isinstance(s.spec, TrainSpec)]
    assert [s.recipe.template for s in specs] == [CHATML, OWN, CHATML, OWN]
    assert [[r.ref for r in s.replay] for s in specs] == [
        [], [], [str(folder / "plain.txt")], [str(folder / "plain.txt")]
    ]  # fmt: skip
    assert all(r.fingerprint.startswith("sha256:") for s in specs for r in s.replay)


def test_all_data_that_students_learn_from_has_its_terms(folder: Path) -> None:
    found = {name: [t.name for t in terms] for name, terms in study(folder).terms().items()}
    assert found == {
        "Talk": ["permissive"],
        "replay text": ["permissive"],
        "feedback ranked": ["permissive"],
        "feedback alone": ["permissive"],
    }
    study(folder).check_terms("commercial")


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("talk.json, terms: mit", "talk.json, terms: openai", "terms of corpus 'Talk' forbid"),
        ("plain.txt, terms: mit", "plain.txt", "the terms of replay text are not known"),
        ("plain.txt, terms: mit", "plain.txt, terms: mit, licence: CC BY-NC 4.0",
         "the terms of replay text forbid commercial use"),
        ("pairs.jsonl, terms: mit", "pairs.jsonl, teacher: gpt-4, terms: ''",
         "the terms of feedback ranked forbid commercial use"),
        ("{name: t, terms: mit}", "{name: gpt-4}", "the terms of feedback alone forbid"),
    ],
)  # fmt: skip
def test_terms_that_forbid_a_use_stop_a_run_before_any_work(
    folder: Path, old: str, new: str, what: str
) -> None:
    with pytest.raises(CorpusError, match=re.escape(what)):
        study(folder, old, new).run(use="commercial")
    assert not (folder / "runs").exists()


def test_feedback_without_its_extra_stops_a_run_before_any_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "trl" else find(name, *more),
    )
    with pytest.raises(MissingExtra, match=re.escape("pip install 'epigone[feedback]'")):
        study(folder).run()
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("own.jinja", "gone.jinja", "study.yaml:8:47: the chat template cannot be read (No such"),
        ("own.jinja", "talk.json", "study.yaml:8:47: unknown chat template: talk.json"),
        ("plain.txt", "./plane.txt", "study.yaml:7:39: no such file or folder"),
        ("[pairs.jsonl]", "[smollm2-135m-instruct]", "study.yaml:11:34: a model is no corpus"),
    ],
)
def test_files_that_are_not_there_have_their_place(
    folder: Path, old: str, new: str, what: str
) -> None:
    with pytest.raises(UserError) as caught:
        study(folder, old, new).expansion(online=True)
    assert what in str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "amounts", "what"),
    [
        ({"schedule": "cosine"}, [8, 16], "each amount is a run of its own: 8, 16 (train one"),
        ({"warmup": "1 apple"}, [8], "warmup: a warm-up is a share of the run"),
        ({"decay": 0.1}, [8], "a constant schedule has no decay"),
        ({"replay": 0.5}, [8], "replay without plain text"),
        ({"template": "chatmml"}, [8], "did you mean 'chatml'?"),
        ({"replay": 0.5, "replay_from": ["./no.txt"]}, [8], "no such file or folder"),
        ({"lora": {"rank": 8}}, [8], "preset: lora, or optimizer: adamw"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_in_python_too(
    tmp_path: Path, recipe: dict[str, Any], amounts: list[int], what: str
) -> None:
    (tmp_path / "train.parquet").touch()
    with pytest.raises(UserError) as caught:
        epigone.train(
            "smollm2-135m-instruct", tmp_path, tmp_path / "s", amounts=amounts, recipe=recipe
        )
    assert what in str(caught.value)
    assert not (tmp_path / "s").exists()
