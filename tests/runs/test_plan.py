from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from epigone.errors import CorpusError
from epigone.models import references
from epigone.runs import store as store_module
from epigone.runs.plan import asks_endpoint, check_data, memory, plan, work
from epigone.runs.store import Listing, Store, partial_of
from epigone.schema import Conversation, Message, Provenance, Record
from epigone.study import train_file
from epigone.study.file import parse
from epigone.study.specs import BenchmarkSpec, ContinuationsSpec, DataSpec, ModelSpec
from epigone.study.step import Step
from epigone.study.steps import Expansion, expand

TEXT = """\
name: tiny
teacher: {name: t}
bases: [smollm2-135m-instruct]
corpora:
  talk: {kind: broad, from: [sharegpt-v3-part]}
amounts: {talk: [8k]}
evaluate:
  benchmarks: [facts]
  style: {n: 32}
"""


class World:
    def fingerprint(self, ref: str) -> str:
        return f"sha256:{ref}"

    def reference(self, ref: str) -> str:
        return ref

    def data_fingerprint(self, ref: str) -> str:
        return self.fingerprint(ref)

    def provenance(self, ref: str) -> tuple[str, str]:
        return "", ""

    def model_name(self, ref: str) -> str:
        return ref

    def task_version(self, task: str) -> int:
        return 1

    def suite(self, task: str) -> str:
        return ""


def expansion(text: str = TEXT) -> Expansion:
    return expand(parse(text), World())


def corpus_of(found: Expansion) -> Step:
    return next(s for s in found.steps if s.stage == "corpus")


def finish(store: Store, step: Step, **facts: Any) -> None:
    folder = store.folder(step)
    folder.mkdir(parents=True)
    record = Record(
        step.stage, step.slug, step.hash, step.identity, {}, {}, facts, "", "", 1.0, 1, {}
    )
    (folder / "record.json").write_text(json.dumps(record.to_json()))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("EPIGONE_HOME", str(tmp_path / "cache"))
    return Store(tmp_path / "runs" / "tiny")


def test_what_is_done_is_done_and_the_rest_never_ran(store: Store) -> None:
    steps = expansion().steps
    finish(store, steps[0])
    planned = plan(expansion(), store)
    assert planned[0].state == "done"
    assert {p.state for p in planned[1:]} == {"to do"}
    assert {p.why for p in planned[1:]} == {"never ran"}
    assert all(p.seconds > 0 for p in planned[1:])


def test_why_names_the_field_that_changed_and_what_follows_from_it(store: Store) -> None:
    for step in expansion().steps:
        finish(store, step)
    changed = plan(expansion(TEXT.replace("n: 32", "n: 16")), store)
    told = {p.step.stage: p.why for p in changed if p.state != "done"}
    assert told == {
        "generate": "spec.n: 32 -> 16",
        "style": "inputs.model: spec.n: 32 -> 16; inputs.teacher: spec.n: 32 -> 16",
    }
    recipe = plan(expansion(TEXT + "recipe: {lr: 0.001}\n"), store)
    trunk = next(p for p in recipe if p.step.stage == "train")
    assert trunk.why == "spec.recipe.lr: 0.002 -> 0.001"


def test_a_failed_step_says_so(store: Store) -> None:
    partial = partial_of(store.folder(expansion().steps[0]))
    partial.mkdir(parents=True)
    (partial / "failure.json").write_text('{"error": "no space"}')
    planned = plan(expansion(), store)[0]
    assert (planned.state, planned.why) == ("failed", "failed: no space")


def test_another_identity_in_the_folder_is_damage_not_done(store: Store) -> None:
    step = expansion().steps[0]
    finish(store, step)
    file = store.folder(step) / "record.json"
    file.write_text(file.read_text().replace(step.hash, "f" * 64))
    assert plan(expansion(), store)[0].state == "damaged"


def test_amounts_with_no_exchange_in_between_are_refused_before_training(store: Store) -> None:
    found = expansion(TEXT.replace("[8k]", "[5, 6]"))
    finish(store, corpus_of(found), train_tokens=10)
    turns = (Message("user", "q"), Message("assistant", "a"))
    row = Conversation("c", turns, Provenance("s", "t"), 5)
    folder = store.folder(corpus_of(found))
    train_file.write(folder / train_file.NAME, [(row, [5], "en"), (row, [5], "en")])
    with pytest.raises(CorpusError, match="no exchange that fits between two amounts: 5 and 6"):
        check_data(found, store)


def test_an_amount_larger_than_its_corpus_is_refused_before_training(store: Store) -> None:
    found = expansion()
    finish(store, corpus_of(found), train_tokens=7_999)
    with pytest.raises(CorpusError) as caught:
        check_data(found, store)
    assert str(caught.value) == (
        "amount larger than corpus 'talk', which holds 7,999 teacher tokens: 8k "
        "(ask for less, or add sources)"
    )


def test_samples_and_continuations_are_counted() -> None:
    model = ModelSpec(kind="base", name="m", ref="smollm2-135m-instruct")

    def programs(samples: int) -> Step:
        spec = BenchmarkSpec(
            model=model, task="humaneval", task_version=1, label="x", samples=samples,
            temperature=0.8,
        )  # fmt: skip
        return Step("benchmark", ("x",), spec, {}, "m")

    start = work(programs(1)) - (work(programs(11)) - work(programs(1))) / 10
    assert 0 < start < work(programs(1))
    # A hundred samples are a hundred times the work of one.
    assert work(programs(100)) - start == pytest.approx(100 * (work(programs(1)) - start))
    prompts = DataSpec(ref="p.jsonl", fingerprint="")
    said = Step("continuations", ("m",), ContinuationsSpec(model=model, prompts=prompts, n=200))
    asked = ModelSpec(kind="teacher", name="t", ref="endpoint:https://host/v1#m")
    told = Step("continuations", ("t",), ContinuationsSpec(model=asked, prompts=prompts, n=200))
    assert work(said) > 10 * work(told)
    # How long the endpoint took must not teach how fast this machine is.
    assert asks_endpoint(told) and not asks_endpoint(said)
    # A model is in memory for the one, nothing but answers for the other.
    assert memory(said) == memory(programs(1)) > memory(told)


LARGE = """\
name: large
teacher: {name: t}
bases: [smollm2-135m-instruct]
corpora:
  talk: {kind: broad, from: [sharegpt-v3-part]}
amounts: {talk: [AMOUNTS]}
seeds: [SEEDS]
recipe: {preset: adamw, schedule: cosine}
evaluate: {style: {n: 32}}
"""


def large(seeds: int, n: int = 32) -> Expansion:
    text = LARGE.replace("AMOUNTS", ", ".join(f"{i}k" for i in range(1, 11)))
    text = text.replace("SEEDS", ", ".join(map(str, range(seeds))))
    return expansion(text.replace("n: 32", f"n: {n}"))


class Counted:
    """What a plan asks of the disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[str] = []
        self.listed: list[str] = []
        read, listed = store_module.read_json, os.listdir

        def reading(path: Path) -> Any:
            self.read.append(str(path))
            return read(path)

        def listing(path: Path) -> list[str]:
            self.listed.append(str(path))
            return listed(path)

        monkeypatch.setattr(store_module, "read_json", reading)
        monkeypatch.setattr(store_module.os, "listdir", listing)


def test_a_plan_lists_each_stage_once_and_reads_each_record_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = large(20).steps
    for step in steps:
        finish(store, step)
    before = len(steps)
    asked = Counted(monkeypatch)
    assert {p.state for p in plan(large(20), store)} == {"done"}
    assert len(asked.read) == before == len({*asked.read})
    assert len(asked.listed) == len({s.stage for s in steps})
    # Every answer changes, and with it its style: their old records say why.
    asked.read.clear()
    told = {p.step.stage: p.why for p in plan(large(20, n=16), store) if p.why}
    assert told["generate"] == "spec.n: 32 -> 16"
    assert told["style"].startswith("inputs.model: spec.n: 32 -> 16")
    assert len(asked.read) == before == len({*asked.read})


def test_a_plan_of_a_new_study_reads_nothing_and_knows_each_base_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = large(70)
    asked, shapes = Counted(monkeypatch), []
    shape = references.shape
    monkeypatch.setattr(references, "shape", lambda ref: (shapes.append(ref), shape(ref))[1])
    planned = plan(found, store)
    assert len(planned) > 2_000
    assert {p.why for p in planned} == {"never ran"}
    assert (asked.read, shapes) == ([], ["smollm2-135m-instruct"])


def test_what_a_corpus_holds_is_looked_up_once_for_all_that_learn_from_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = large(5)
    corpus = corpus_of(found)
    finish(store, corpus, train_tokens=10_000)
    turns = (Message("user", "q"), Message("assistant", "a"))
    row = Conversation("c", turns, Provenance("s", "t"), 500)
    train_file.write(store.folder(corpus) / train_file.NAME, [(row, [500], "en")] * 20)
    asked = Counted(monkeypatch)
    check_data(found, store)
    assert len(asked.read) <= 1 + 10  # the corpus's, and for each amount whether one is trained


def test_names_that_are_no_steps_folders_are_passed_over(store: Store) -> None:
    step = corpus_of(expansion())
    parent = store.folder(step).parent
    parent.mkdir(parents=True)
    for name in ("x", f"{step.slug}-12345678.partial", f"{step.slug}-1234567890"):
        (parent / name).mkdir()
    (parent / f"{step.slug}-87654321").write_text("no folder")
    listing = Listing(store)
    assert [*listing.relatives(step)] == []
    assert listing.record(step) is None
    assert listing.failure(step) is None
