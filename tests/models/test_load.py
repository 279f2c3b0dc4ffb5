"""What is loaded as which kind of model, and what is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)

from epigone.errors import ModelError
from epigone.models.load import load


def changed(folder: Path, to: Path, **config: Any) -> Path:
    """A copy of a model folder with other values in config.json; None takes a key out."""
    shutil.copytree(folder, to)
    file = to / "config.json"
    found = json.loads(file.read_text()) | config
    file.write_text(json.dumps({k: v for k, v in found.items() if v is not None}))
    return to


def test_what_kind_a_folder_is(tiny_base: Path, tiny_t5: Path) -> None:
    assert not load(tiny_base, "fp32").encoder_decoder
    loaded = load(tiny_t5, "fp32")
    assert loaded.encoder_decoder
    assert loaded.model.config.decoder_start_token_id == 0
    assert loaded.model.config._attn_implementation == "sdpa"


def test_logits_are_those_of_the_plain_class(tiny_t5: Path) -> None:
    plain: Any = T5ForConditionalGeneration.from_pretrained(tiny_t5, attn_implementation="eager")
    ids, said = torch.tensor([[5, 9, 11, 1]]), torch.tensor([[0, 7, 8]])
    with torch.no_grad():
        want = plain(input_ids=ids, decoder_input_ids=said).logits
        got = load(tiny_t5, "fp32").model(input_ids=ids, decoder_input_ids=said).logits
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
        # The scale of tied embeddings, and the head of v1.1, are in there.
        tied = tiny_t5.name.endswith("v1.0")
        assert (plain.lm_head.weight is plain.shared.weight) == tied
        hidden = plain.encoder(input_ids=ids).last_hidden_state
        last = plain.decoder(input_ids=said, encoder_hidden_states=hidden).last_hidden_state
        by_hand = (last * 32**-0.5 if tied else last) @ plain.lm_head.weight.T
    torch.testing.assert_close(got, by_hand, atol=1e-4, rtol=1e-4)


def test_auto_rounds_as_students_are_saved(tiny_t5: Path) -> None:
    for weight in load(tiny_t5).model.parameters():
        assert torch.equal(weight, weight.to(torch.bfloat16).to(weight.dtype))


def test_an_unknown_architecture_is_named(tmp_path: Path, tiny_base: Path) -> None:
    bert: Any = BertForMaskedLM(
        BertConfig(
            vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16,
        )
    )  # fmt: skip
    bert.save_pretrained(tmp_path / "bert")
    encoder: Any = T5EncoderModel(
        T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    )
    encoder.save_pretrained(tmp_path / "encoder")
    for name, told in (("bert", "BertForMaskedLM"), ("encoder", "T5EncoderModel")):
        for file in tiny_base.glob("tokenizer*"):
            shutil.copy(file, tmp_path / name)
        with pytest.raises(ModelError, match="neither a causal nor") as caught:
            load(tmp_path / name)
        assert told in str(caught.value) and "\n" not in str(caught.value)


def test_code_that_a_folder_brings_is_never_run(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A person who says yes to whatever is asked.
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    ours = {"AutoConfig": "ours.Config", "AutoModelForCausalLM": "ours.Model"}
    for kind in ("llama", "ours"):
        folder = changed(tiny_base, tmp_path / kind, model_type=kind, auto_map=ours)
        (folder / "ours.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    assert load(tmp_path / "llama", "fp32").model.config.model_type == "llama"
    with pytest.raises(ModelError, match="remote code"):
        load(tmp_path / "ours", "fp32")
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path, tiny_t5: Path) -> None:
    folder = changed(tiny_t5, tmp_path / "headless")
    weights = load_file(folder / "model.safetensors")
    del weights["decoder.final_layer_norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="not all weights") as caught:
        load(folder)
    assert "decoder.final_layer_norm.weight" in str(caught.value)


def test_weights_of_another_shape_are_named(tmp_path: Path, tiny_base: Path) -> None:
    wide = json.loads((tiny_base / "config.json").read_text())["intermediate_size"] * 2
    folder = changed(tiny_base, tmp_path / "wide", intermediate_size=wide)
    with pytest.raises(ModelError, match=r"another shape .*: model\.layers\.0\.mlp\..*not \["):
        load(folder)


def test_a_decoder_without_a_start_is_refused(tmp_path: Path, tiny_t5: Path) -> None:
    folder = changed(tiny_t5, tmp_path / "t5", decoder_start_token_id=None)
    (folder / "generation_config.json").unlink()
    with pytest.raises(ModelError, match="decoder starts with"):
        load(folder)
    (folder / "generation_config.json").write_text('{"decoder_start_token_id": 3}')
    assert load(folder).model.config.decoder_start_token_id == 3


def test_the_tokenizer_of_another_model_is_refused(tmp_path: Path, tiny_base: Path) -> None:
    config = LlamaConfig.from_pretrained(tiny_base)
    config.vocab_size = 50
    LlamaForCausalLM(config).save_pretrained(tmp_path / "small")
    for file in tiny_base.glob("tokenizer*"):
        shutil.copy(file, tmp_path / "small")
    with pytest.raises(ModelError, match="tokens for which the model has no weights") as caught:
        load(tmp_path / "small")
    assert "\n" not in str(caught.value)
    # A name for a special token that never got weights does no harm.
    whole = changed(tiny_base, tmp_path / "whole")
    tokenizer = AutoTokenizer.from_pretrained(whole)
    rows = load(whole).model.get_input_embeddings().weight.shape[0]
    more = [f"<extra_{i}>" for i in range(rows - len(tokenizer) + 1)]
    tokenizer.add_special_tokens({"additional_special_tokens": more})
    tokenizer.save_pretrained(whole)
    assert len(load(whole).tokenizer) == rows + 1
