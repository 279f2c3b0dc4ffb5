from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from epigone.models import sizes
from epigone.runs.estimate import Estimate, estimate, gpus_needed, rows_of
from epigone.runs.machine import Here, gpus_told
from epigone.runs.plan import memory, work
from epigone.runs.store import Store
from epigone.schema import Conversation, Message, Provenance, Record
from epigone.study import cost, train_file
from epigone.study.cost import MACHINES
from epigone.study.file import parse
from epigone.study.specs import DataSpec, FeedbackSpec, GenerateSpec, ModelSpec
from epigone.study.step import Step
from epigone.study.steps import Expansion, expand

TEXT = """\
name: tiny
teacher: {name: t}
bases: [hf:huggyllama/llama-7b, hf:huggyllama/llama-13b]
corpora:
  talk: {kind: broad, from: [sharegpt-v3-part]}
  task: {kind: local, from: [sharegpt-v3-part]}
amounts: {talk: [20m, 150m], task: [1m]}
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
        return ref.rsplit("/", 1)[-1]

    def task_version(self, task: str) -> int:
        return 1

    def suite(self, task: str) -> str:
        return ""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("EPIGONE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return Store(tmp_path / "runs" / "tiny")


def expansion(text: str = TEXT) -> Expansion:
    return expand(parse(text), World())


def estimated(store: Store, text: str = TEXT, usd: float | None = None) -> Estimate:
    found = expansion(text)
    return estimate(found, store, found.steps, usd)


def finish(store: Store, step: Step, **facts: Any) -> Path:
    folder = store.folder(step)
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(
        step.stage, step.slug, step.hash, step.identity, {}, {}, facts, "", "", 1.0, 1, {}
    )
    (folder / "record.json").write_text(json.dumps(record.to_json()))
    return folder


def test_a_bill_is_the_sum_of_its_runs_and_of_what_is_measured(store: Store) -> None:
    found = estimated(store)
    assert [(r.spec.base.name, r.corpus) for r in found.runs] == [
        ("llama-7b", "talk"), ("llama-7b", "task"), ("llama-13b", "talk"), ("llama-13b", "task"),
    ]  # fmt: skip
    assert [len(r.cells) for r in found.runs] == [2, 1, 2, 1]
    for bill in found.bills:
        gpu = bill.machine.gpu
        trained = sum(r.training.flops for r in found.runs) / (gpu.peak * cost.MFU) / 3600
        assert bill.training == pytest.approx(trained)
        # Each base and each of its three students: 32 answers of 256 tokens, and the facts.
        measured = sum(
            4
            * (
                cost.answer_seconds(shape, gpu, 32, cost.PROMPT_TOKENS, 256)
                + cost.answer_seconds(shape, gpu, 201, cost.TASKS["facts"].prompt, 16)
            )
            for shape in (sizes.known()["llama-7b"], sizes.known()["llama-13b"])
        )
        assert bill.measuring == pytest.approx(measured / 3600)
        assert bill.feedback == 0
        assert bill.wall_hours * bill.machine.count == pytest.approx(bill.gpu_hours)
        assert bill.usd == pytest.approx(bill.gpu_hours * bill.machine.usd)
    assert [b.usd for b in estimated(store, usd=2.0).bills] == [
        pytest.approx(2 * b.gpu_hours) for b in found.bills
    ]
    assert found.not_counted == ()


def test_continuations_are_on_the_bill(store: Store) -> None:
    said = TEXT + "  toxicity: {prompts: p.jsonl, scorers: [proxy], n: 100, samples: 10}\n"
    for with_them, without in zip(
        estimated(store, said).bills, estimated(store).bills, strict=True
    ):
        gpu = with_them.machine.gpu
        more = sum(
            4 * cost.answer_seconds(shape, gpu, 1000, cost.START_TOKENS, 20) / 3600
            for shape in (sizes.known()["llama-7b"], sizes.known()["llama-13b"])
        )
        assert with_them.measuring - without.measuring == pytest.approx(more)


def test_what_is_done_costs_nothing(store: Store) -> None:
    found = expansion()
    assert all(b.gpu_hours == 0 for b in estimate(found, store, []).bills)


def test_a_size_that_is_not_known_is_said_and_not_guessed(store: Store) -> None:
    found = estimated(store, TEXT.replace("huggyllama/llama-13b", "nobody/knows"))
    assert found.not_counted == ("the size of hf:nobody/knows is not known without a download",)
    assert [r.shape is None for r in found.runs] == [False, False, True, True]
    alone = estimated(store, TEXT.replace(", hf:huggyllama/llama-13b", ""))
    assert found.bills[0].gpu_hours == pytest.approx(alone.bills[0].gpu_hours)


def test_the_share_of_the_teachers_tokens_is_measured_where_it_can_be(store: Store) -> None:
    found = expansion()
    talk = next(s for s in found.steps if s.stage == "corpus" and s.slug == "talk")
    shares = {r.corpus: r.share for r in estimated(store).runs}
    assert shares["talk"].value == cost.SUPERVISED["broad"]
    assert shares["task"].value == cost.SUPERVISED["local"]
    assert shares["task"].known == "assumed for local data"
    folder = finish(store, talk, train_tokens=10)
    turns = (Message("user", "q" * 30), Message("assistant", "a" * 10))
    train_file.write(
        folder / train_file.NAME, [(Conversation("c", turns, Provenance("s", "t"), 5), [5], "en")]
    )
    share = next(r.share for r in estimated(store).runs if r.corpus == "talk")
    assert (share.value, share.known) == (0.25, "measured on the corpus's characters")
    trunk = next(s for s in found.steps if s.stage == "train" and s.inputs["corpus"] == talk)
    # Rows of an encoder-decoder tell nothing of the corpus.
    finish(store, trunk, supervised_share=0.1, packed=False)
    assert next(r.share for r in estimated(store).runs if r.corpus == "talk") == share
    finish(store, trunk, supervised_share=0.5, packed=True)
    share = next(r.share for r in estimated(store).runs if r.corpus == "talk")
    assert (share.value, share.known) == (0.5, "measured in training")


def test_an_encoder_decoder_takes_a_row_for_each_answer(store: Store, t5_base: Path) -> None:
    text = TEXT.replace("hf:huggyllama/llama-13b", str(t5_base))
    decoder, double = (
        next(
            r
            for r in estimated(store, text).runs
            if r.corpus == "task" and is_t5 is bool(r.shape and r.shape.encoder)
        )
        for is_t5 in (False, True)
    )
    # One million tokens in answers of 20, 32 a step; or in blocks of 2,048 that are 0.95 full.
    assert double.training.steps == -(-1_000_000 // (20 * 32))
    blocks = math.ceil(1_000_000 / (2048 * 0.95 * 0.25))
    assert decoder.training.steps == math.ceil(blocks / 32)
    contiguous = text + "recipe: {chunks: contiguous}\n"
    assert any("will fail" in line for line in estimated(store, contiguous).warnings)


def test_files_that_are_not_there_are_named(store: Store, tmp_path: Path) -> None:
    gone = tmp_path / "no" / "data.json"
    found = estimated(store, TEXT.replace("kind: local, from: [sharegpt-v3-part]",
                                          f"kind: local, from: [{gone}]"))  # fmt: skip
    assert found.not_here == (str(gone),)


def test_gpus_needed_are_the_fewest_that_hold_the_training(store: Store) -> None:
    run = next(r for r in estimated(store).runs if r.spec.base.name == "llama-13b")
    assert run.shape is not None
    eight, one = MACHINES
    asked, count = gpus_needed(run.shape, run.spec, one)
    assert asked > one.gpu.memory
    assert count == 2
    assert cost.train_memory(run.shape, run.spec.recipe, 2, recomputed=True) <= one.gpu.memory
    assert gpus_needed(run.shape, run.spec, eight)[1] == 8
    # What does not fit is computed again; one layer's activations have to.
    for block, most in ((16_384, 8), (1 << 20, None)):
        recipe = run.spec.recipe.model_copy(update={"block": block})
        spec = run.spec.model_copy(update={"recipe": recipe})
        assert cost.train_memory(run.shape, recipe, 8) > eight.gpu.memory
        assert gpus_needed(run.shape, spec, eight)[1] == most


def feedback(path: Path, method: str = "dpo") -> Step:
    base = ModelSpec(kind="base", name="b", ref="hf:huggyllama/llama-7b")
    source = DataSpec(ref=str(path), fingerprint="f")
    spec = FeedbackSpec(method=method, base=base, sources=(source,), lr=1e-6)
    return Step("feedback", ("b", "fb"), spec)


def test_feedback_is_counted_by_the_rows_of_its_files(store: Store, tmp_path: Path) -> None:
    lines = tmp_path / "pairs.jsonl"
    lines.write_text('{"prompt": "a"}\n\n{"prompt": "b"}\n')
    whole = tmp_path / "pairs.json"
    whole.write_text(json.dumps([{"prompt": "a"}] * 3))
    for path, rows in ((lines, 2), (whole, 3)):
        assert rows_of([DataSpec(ref=str(path), fingerprint="f")]) == (rows, path.stat().st_size)
    found = expansion()
    step = feedback(lines)
    bill = estimate(found, store, [step]).bills[0]
    shape = sizes.known()["llama-7b"]
    flops = cost.feedback_flops(shape, step.spec, 2, lines.stat().st_size)  # type: ignore[arg-type]
    assert bill.feedback == pytest.approx(cost.flop_seconds(flops, cost.A100) / 3600)
    assert memory(step) > 17 * 6.7e9
    # Its student is measured as large as its base.
    student = ModelSpec(kind="student", name="s", amount=0)
    answers = Step("generate", ("s",), GenerateSpec(model=student, n=32), {"student": step})
    same = Step("generate", ("b",), GenerateSpec(model=step.spec.base, n=32))  # type: ignore[attr-defined]
    assert work(answers) == work(same)
    assert estimate(found, store, [answers]).bills[0].measuring > 0


@pytest.mark.parametrize("text", ["[", "[" * 100_000, None])
def test_feedback_whose_rows_cannot_be_counted_is_said_to_be_unknown(
    store: Store, tmp_path: Path, text: str | None
) -> None:
    path = tmp_path / "pairs.json"
    if text is not None:
        path.write_text(text)
    found = estimate(expansion(), store, [feedback(path)])
    assert found.bills[0].feedback == 0
    assert found.not_counted == ("feedback b_fb: how many rows its files have is not known yet",)
    assert work(feedback(path)) > 0


def test_bases_with_the_same_amounts_are_warned_of_once(store: Store) -> None:
    warnings = estimated(store).warnings
    assert [w.split(":")[0] for w in warnings[:2]] == ["talk", "task"]
    assert len(warnings) == 4
    assert warnings[3].startswith("no amount would end inside the warm-up with")


def test_the_gpus_of_a_machine_are_read_from_the_driver() -> None:
    told = "NVIDIA H200, 143771\nNVIDIA A100-SXM4-80GB, 81920\n"
    gpus = gpus_told(told)
    assert gpus[1] == ("NVIDIA A100-SXM4-80GB", 80 << 30)
    here = Here(10, gpus)
    assert here.room == 143771 << 20
    assert replace(here, gpus=()).room == 10
