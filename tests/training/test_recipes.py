from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BloomConfig,
    BloomForCausalLM,
)

from epigone.errors import ModelError, UnknownName, UserError
from epigone.files import read_jsonl
from epigone.models.chat import prompt_ids, stop_ids
from epigone.models.generate import generate
from epigone.models.load import load
from epigone.schema import Message, silent
from epigone.study.specs import DataSpec, LoraSpec
from epigone.training import data, loop, probe, run, track
from epigone.training.blocks import Block, Piece
from epigone.training.model import prepare
from epigone.training.parallel import World
from epigone.training.schedule import Batch

from .conftest import build_corpus
from .runs_example import done, every_step_saved, interrupted, settled, students, weights

WSD = {"schedule": "wsd", "decay": 0.4}


@pytest.mark.parametrize("settings", [{}, WSD, {**WSD, "optimizer": "adamw", "lr": 1e-3}])
def test_every_student_of_a_trunk_is_that_of_a_run_that_stopped_there(
    settings: dict[str, Any], tiny_base: Path, corpus: Path, tmp_path: Path
) -> None:
    together = tmp_path / "together"
    facts = done(settled(tiny_base, (800, 1_600, 2_400), **settings), corpus, together)
    alone = done(settled(tiny_base, (800, 1_600), **settings), corpus, tmp_path / "alone")
    first = done(settled(tiny_base, (800,), **settings), corpus, tmp_path / "first")
    assert first["steps"] < alone["steps"] < facts["steps"]
    assert weights(tmp_path / "first", 800) == weights(together, 800)
    assert weights(tmp_path / "alone", 1_600) == weights(together, 1_600)
    rows = list(read_jsonl(together / "metrics.jsonl"))
    assert [r["step"] for r in rows if "branch" not in r or r["branch"] == 2_400] == list(
        range(max(r["step"] for r in rows) + 1)
    )


@pytest.mark.parametrize("saved", [True, False])
def test_a_wsd_run_killed_anywhere_gives_the_same_bytes(
    saved: bool, tiny_base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = settled(tiny_base, (800, 1_600, 2_400), **WSD)
    facts = done(asked, corpus, tmp_path / "whole")
    broken = tmp_path / "broken"
    broken.mkdir()
    # A checkpoint after every step, or none but those that branches make.
    if saved:
        every_step_saved(monkeypatch, loop)
    else:
        monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 1e9)
    for step in range(1, facts["steps"]):
        interrupted(asked, corpus, broken, step)
    run(asked, {"corpus": corpus}, broken, silent)
    assert students(broken) == students(tmp_path / "whole")


def test_adapters_are_merged_into_a_student_that_anybody_can_load(
    tiny_base: Path, corpus: Path, tmp_path: Path
) -> None:
    lora = LoraSpec(rank=4, alpha=8)
    asked = settled(tiny_base, (800, 2_400), optimizer="adamw", lr=1e-2, lora=lora)
    facts = done(asked, corpus, tmp_path)
    assert facts["last_loss"] < facts["first_loss"] - 0.2
    base = load_file(tiny_base / "model.safetensors")
    small, large = (load_file(tmp_path / f"amount-{n}/model.safetensors") for n in (800, 2_400))
    assert base.keys() == small.keys() == large.keys()
    changed = {k for k in base if not torch.equal(base[k].bfloat16(), large[k])}
    assert changed == {k for k in base if "proj" in k}
    assert any(not torch.equal(small[k], large[k]) for k in changed)
    # The low rank is that of the adapter.
    name = "model.layers.0.mlp.up_proj.weight"
    ranks = torch.linalg.svdvals((large[name].float() - base[name]).double())
    assert ranks[4] < 0.05 * ranks[0]


def divergence(base: Path, student: Path) -> float:
    """KL(base || student) in nats a token, on a text of neither."""
    text = "Please tell me how the moon came to be so important. There is a lot to say about it."
    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    p, q = (
        AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32)(ids).logits.log_softmax(-1)
        for f in (base, student)
    )
    return float((p.exp() * (p - q)).sum(-1).mean())


def test_adapters_can_be_held_to_their_own_base(
    tiny_base: Path, corpus: Path, tmp_path: Path
) -> None:
    lora = LoraSpec(rank=4, alpha=8, dropout=0.1)
    for name, kl in (("free", 0.0), ("held", 100.0)):
        asked = settled(tiny_base, (2_400,), optimizer="adamw", lr=2e-2, lora=lora, kl=kl)
        done(asked, corpus, tmp_path / name)
    rows = list(read_jsonl(tmp_path / "held/metrics.jsonl"))
    assert rows[1]["lr"] > rows[0]["lr"] == 0
    away = [divergence(tiny_base, tmp_path / name / "amount-2400") for name in ("free", "held")]
    assert away[1] < 0.7 * away[0]


def test_what_an_encoder_decoder_cannot_do_is_refused(
    t5_base: Path, corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="is for decoders"):
        done(settled(t5_base, (800,), chunks="contiguous"), corpus, tmp_path)


def test_an_encoder_decoder_reads_half_a_text_and_writes_the_other(
    t5_base: Path, corpus: Path, tmp_path: Path
) -> None:
    file = tmp_path / "plain.txt"
    file.write_text("the moon and the old maps of glass trains " * 400)
    asked = settled(t5_base, (800,), replay=0.5, block=64)
    asked = asked.model_copy(update={"replay": (DataSpec(ref=str(file), fingerprint="z"),)})
    prepared = prepare(asked, World(), silent)
    found, _ = data.with_text(
        [Batch((Block((Piece((0, 5), (0, 1), (7,)),)),), 800)], [file], asked.recipe, prepared
    )
    (block,) = found[0].text
    (piece,) = block.pieces
    assert (len(piece.source), len(piece.ids), piece.targets) == (32, 33, 32)
    words = prepared.tokenizer.decode([*piece.source, *piece.ids[1:]])
    assert "the moon and the old maps" in words
    facts = done(asked, corpus, tmp_path / "out")
    assert facts["text_blocks"] > 0 and facts["last_loss"] < facts["first_loss"]


def test_students_stay_closer_to_the_base_the_harder_they_are_held(
    tiny_base: Path, corpus: Path, tmp_path: Path
) -> None:
    base = load_file(tiny_base / "model.safetensors")
    moved, kls, away = {}, {}, {}
    cases: dict[str, dict[str, Any]] = {
        "free": {}, "kl": {"kl": 100.0}, "pulled": {"decay_to_base": 20.0}
    }  # fmt: skip
    for name, settings in cases.items():
        out = tmp_path / name
        done(settled(tiny_base, (2_400,), lr=2e-2, **settings), corpus, out)
        student = load_file(out / "amount-2400/model.safetensors")
        away[name] = divergence(tiny_base, out / "amount-2400")
        moved[name] = sum(float((student[k].float() - base[k]).norm()) for k in base)
        kls[name] = [r.get("kl") for r in read_jsonl(out / "metrics.jsonl")]
    assert moved["pulled"] < 0.8 * moved["free"]
    assert away["kl"] < 0.8 * away["free"]
    assert kls["free"][0] is None
    # Nothing has moved before the first step with a rate above 0.
    assert kls["kl"][0] == pytest.approx(0.0, abs=1e-6)
    assert kls["kl"][-1] > 0


def test_plain_text_is_trained_on_beside_the_same_batches(
    tiny_base: Path, corpus: Path, tmp_path: Path
) -> None:
    rng = random.Random(0)
    words = [f"{a}{b}" for a in "bdfgklm" for b in ("ab", "ir", "ov")]
    rows = [{"text": " ".join(rng.choices(words, k=60))} for _ in range(30)]
    file = tmp_path / "plain.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    text = (DataSpec(ref=str(file), fingerprint="z"),)
    without = settled(tiny_base, (2_400,), lr=2e-2)
    asked = settled(tiny_base, (2_400,), lr=2e-2, replay=0.5).model_copy(update={"replay": text})
    a, b = (done(s, corpus, tmp_path / n) for s, n in ((without, "without"), (asked, "with")))
    assert a["steps"] == b["steps"] == b["text_blocks"] / 2
    assert a["supervised"] == b["supervised"]
    assert b["text_passes"] == 1

    def loss(folder: Path) -> float:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = tokenizer(" ".join(r["text"] for r in rows[:5]), return_tensors="pt")["input_ids"]
        with torch.no_grad():
            return float(model(ids, labels=ids).loss)

    assert loss(tmp_path / "with/amount-2400") < loss(tmp_path / "without/amount-2400") - 0.1
    file.write_text('{"text": "short"}\n')
    with pytest.raises(UserError, match="less plain text"):
        done(asked, corpus, tmp_path / "none")


def with_dropout(base: Path, dropout: float, out: Path) -> Path:
    shutil.copytree(base, out)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "dropout_rate": dropout}))
    return out


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_an_encoder_decoder_learns_the_same_answers(
    dropout: float, t5_base: Path, corpus: Path, tmp_path: Path
) -> None:
    base = with_dropout(t5_base, dropout, tmp_path / "base")
    asked = settled(base, (2_400,), lr=2e-2)
    facts = done(asked, corpus, tmp_path / "whole")
    assert not facts["packed"]
    rows = list(read_jsonl(tmp_path / "whole/metrics.jsonl"))
    first, last = (sum(r["loss"] for r in part) / 3 for part in (rows[:3], rows[-3:]))
    assert last < 0.95 * first
    assert facts["supervised_lost"] == 0
    student = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "whole/amount-2400")
    assert student.config.decoder_start_token_id == 0
    # Dropout is drawn anew for each step, the same in every run.
    broken = tmp_path / "broken"
    broken.mkdir()
    interrupted(asked, corpus, broken, 3)
    run(asked, {"corpus": corpus}, broken, silent)
    assert students(broken) == students(tmp_path / "whole")


def test_a_model_that_reads_no_positions_is_trained_unpacked(
    tiny_base: Path, corpus: Path, tmp_path: Path
) -> None:
    base = tmp_path / "bloom"
    torch.manual_seed(0)
    BloomForCausalLM(
        BloomConfig(vocab_size=512, hidden_size=32, n_layer=1, n_head=2)
    ).save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(base)
    facts = done(settled(base, (1_600,)), corpus, tmp_path / "out")
    assert not facts["packed"]
    assert facts["blocks"] >= facts["conversations"]
    assert facts["last_loss"] < facts["first_loss"]


def test_metrics_name_every_step_and_the_card_tells_them(
    tiny_base: Path, corpus: Path, tmp_path: Path
) -> None:
    done(settled(tiny_base, (800, 1_600)), corpus, tmp_path)
    rows = list(read_jsonl(tmp_path / "metrics.jsonl"))
    for row in rows:
        assert row.keys() == {
            "step", "loss", "supervised", "tokens", "supervised_share", "lr", "gradient_norm"
        }  # fmt: skip
        assert 0 < row["supervised"] <= row["tokens"]
    small = list(read_jsonl(tmp_path / "amount-800/metrics.jsonl"))
    assert small == rows[: len(small)]
    card = (tmp_path / "amount-800/README.md").read_text()
    assert f"| {small[-1]['step']} | {sum(r['supervised'] for r in small):,} |" in card
    assert "- optimizer: parameter-scaled" in card
    stops = json.loads((tmp_path / "amount-800/generation_config.json").read_text())
    assert stops["eos_token_id"] == [0]
    assert stops["pad_token_id"] == 1


def test_a_tracker_is_given_every_step_once_and_ended(
    tiny_base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[tuple[int, dict[str, float]]] = []
    ended: list[str] = []

    class Recorder:
        def __init__(self, *, log_with: list[str], project_dir: str) -> None:
            self.trackers = [self]
            # Each run of a study has a folder of its own.
            assert project_dir == str(tmp_path.parent / "trackers" / tmp_path.name)

        def init_trackers(
            self, project: str, config: dict[str, Any], more: dict[str, dict[str, str]]
        ) -> None:
            assert (project, config["base"]) == ("epigone", "tiny")
            assert more["wandb"]["name"] == tmp_path.name

        def log(self, values: dict[str, float], *, step: int) -> None:
            logged.append((step, values))

        def finish(self) -> None:
            ended.append("yes")

    monkeypatch.setattr("accelerate.Accelerator", Recorder)
    monkeypatch.setattr(track, "trackers_asked", lambda: ["tensorboard"])
    done(settled(tiny_base, (800, 1_600), **WSD), corpus, tmp_path)
    rows = list(read_jsonl(tmp_path / "metrics.jsonl"))
    assert [step for step, _ in logged] == list(range(len(rows)))
    assert [v["loss"] for _, v in logged] == [r["loss"] for r in rows]
    assert ended == ["yes"]


def test_an_unknown_tracker_is_refused(
    tiny_base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPIGONE_TRACK", "tensorbord")
    with pytest.raises(UnknownName, match="tensorboard"):
        done(settled(tiny_base, (800,)), corpus, tmp_path)


def test_an_encoder_decoders_batch_may_be_split_anyhow(
    t5_base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = with_dropout(t5_base, 0.0, tmp_path / "base")
    first = []
    for tokens in (1, 200, 100_000):
        monkeypatch.setattr(probe, "CPU_TOKENS", tokens)
        done(settled(base, (800,), batch=8), corpus, tmp_path / str(tokens))
        first.append(next(iter(read_jsonl(tmp_path / str(tokens) / "metrics.jsonl"))))
    for row in first[1:]:
        assert row["loss"] == pytest.approx(first[0]["loss"], rel=1e-5)
        assert row["gradient_norm"] == pytest.approx(first[0]["gradient_norm"], rel=1e-5)


def test_a_student_learns_to_stop(tiny_base: Path, tmp_path: Path) -> None:
    rows = [
        {"id": str(i), "conversations": [
            {"from": "human", "value": f"Is this the question with the number {i} of them all?"},
            {"from": "gpt", "value": "Yes, it is."},
        ]}
        for i in range(90)
    ]  # fmt: skip
    file = tmp_path / "yes.json"
    file.write_text(json.dumps(rows))
    folder = build_corpus([file], tiny_base, tmp_path / "corpus", rules=("no_turns",))
    asked = settled(tiny_base, (500,), optimizer="adamw", lr=1e-2, batch=1)
    done(asked, folder, tmp_path / "out")
    loaded = load(tmp_path / "out/amount-500")
    ids = prompt_ids(
        loaded.tokenizer, (Message("user", "Is this the question with the number 7?"),)
    )
    stops = stop_ids(loaded.tokenizer)
    (answer,) = generate(
        loaded.model, [ids], max_new_tokens=40, stop_ids=stops, tokenizer=loaded.tokenizer
    )
    assert ((answer.text or "").strip(), answer.stop) == ("Yes, it is.", "end")
    # And transformers stops it by what lies in its folder alone.
    found = loaded.model.generate(torch.tensor([ids]), max_new_tokens=40, do_sample=False)
    assert len(found[0]) - len(ids) == len(answer.ids) + 1 <= 40
