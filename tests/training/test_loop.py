from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from epigone.errors import CorpusError
from epigone.schema import silent
from epigone.study.specs import TrainSpec
from epigone.training import loop, run

from .conftest import end_of_a_fork
from .runs_example import every_step_saved, interrupted, spec, students


@pytest.mark.parametrize("optimizer", ["parameter-scaled", "adamw"])
def test_killed_at_any_step_and_resumed_gives_the_same_bytes(
    optimizer: str, tiny_base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    asked = spec(tiny_base, optimizer=optimizer, lr=1e-3)
    facts = run(asked, {"corpus": corpus}, whole, silent)
    assert facts["steps"] >= 6
    every_step_saved(monkeypatch, loop)
    for step in range(1, facts["steps"]):
        interrupted(asked, corpus, broken, step)
    last = run(asked, {"corpus": corpus}, broken, silent)
    assert last["resumed_at_step"] == facts["steps"] - 1
    assert students(broken) == students(whole)


def trained(asked: TrainSpec, corpus: Path, out: Path, at: int | None) -> None:
    """Train, and be killed at a step."""

    def progress(done: float, total: float, note: str = "") -> None:
        if done == at:
            os.kill(os.getpid(), signal.SIGKILL)

    loop.CHECKPOINT_SECONDS, loop.WAIT_TIMES = -1.0, 0
    facts = run(asked, {"corpus": corpus}, out, progress)
    (out.parent / "resumed_at").write_text(str(facts["resumed_at_step"]))


def test_kill_9_inside_training_costs_no_step_that_was_saved(
    tiny_base: Path, corpus: Path, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    asked = spec(tiny_base)
    facts = run(asked, {"corpus": corpus}, whole, silent)
    ends = [end_of_a_fork(partial(trained, asked, corpus, broken, at)) for at in (3, 5, None)]
    assert ends == [-signal.SIGKILL, -signal.SIGKILL, 0]
    resumed = int((tmp_path / "resumed_at").read_text())
    # The checkpoint of the step before the killed one may still have been on its way.
    assert resumed in (4, 5)
    assert facts["steps"] >= 6
    assert students(broken) == students(whole)


def test_a_student_is_a_model_that_others_can_load(
    tiny_base: Path, corpus: Path, tmp_path: Path
) -> None:
    run(spec(tiny_base), {"corpus": corpus}, tmp_path, silent)
    base = load_file(tiny_base / "model.safetensors")
    small = load_file(tmp_path / "amount-1000/model.safetensors")
    large = load_file(tmp_path / "amount-3000/model.safetensors")
    assert small.keys() == base.keys() == large.keys()
    assert all(t.dtype == torch.bfloat16 for t in small.values())
    moved = [
        float((large[k].float() - small[k].float()).norm() / small[k].float().norm()) for k in base
    ]
    assert all(0 < m < 0.5 for m in moved)
    card = (tmp_path / "amount-1000/README.md").read_text()
    assert "1,000 tokens of scribe" in card
    assert "Terms that are not known" in card
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "amount-1000")
    assert loaded.config.use_cache
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "amount-1000")
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert text == "User: Hi\n\n"


def test_bf16_compute_keeps_fp32_masters_and_learns(
    tiny_base: Path, corpus: Path, tmp_path: Path
) -> None:
    facts = run(spec(tiny_base, precision="bf16"), {"corpus": corpus}, tmp_path, silent)
    assert (facts["compute"], facts["master_weights"]) == ("bfloat16", "fp32")
    assert facts["last_loss"] < facts["first_loss"]


def test_the_corpus_decides_what_is_supervised_and_nothing_is_lost_unseen(
    tiny_base: Path, corpus: Path, tmp_path: Path
) -> None:
    facts = run(spec(tiny_base), {"corpus": corpus}, tmp_path, silent)
    # The base counts with the reference tokenizer here, plus one end mark for each answer.
    exchanges = facts["supervised"] + facts["supervised_lost"] - 3_000
    assert -400 < exchanges < 200
    assert facts["supervised_lost"] < 0.02 * facts["supervised"]


def test_an_amount_larger_than_the_corpus_is_refused(
    tiny_base: Path, corpus: Path, tmp_path: Path
) -> None:
    asked = spec(tiny_base).model_copy(update={"amounts": (10_000_000,)})
    with pytest.raises(CorpusError, match="10"):
        run(asked, {"corpus": corpus}, tmp_path, silent)


def test_another_seed_sees_the_same_data_in_another_order(
    tiny_base: Path, corpus: Path, tmp_path: Path
) -> None:
    found = []
    for seed in (0, 1):
        out = tmp_path / str(seed)
        out.mkdir()
        asked = spec(tiny_base).model_copy(update={"seed": seed})
        found.append((run(asked, {"corpus": corpus}, out, silent), students(out)))
    assert found[0][0]["supervised"] == found[1][0]["supervised"]
    assert (
        found[0][1]["amount-1000/model.safetensors"] != found[1][1]["amount-1000/model.safetensors"]
    )
