from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import flex_attention
from transformers import AutoModelForCausalLM, AutoTokenizer, BloomConfig, BloomForCausalLM

from epigone.errors import ModelError
from epigone.models.chat import conversation_tokens
from epigone.schema import Message, silent
from epigone.study.declare import Recipe
from epigone.study.specs import LoraSpec, ModelSpec, TrainSpec
from epigone.study.templates import BUILT_IN
from epigone.training import model as model_module
from epigone.training.isolation import isolates
from epigone.training.model import Prepared, prepare
from epigone.training.parallel import World

from .conftest import llama

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def prepared(base: Path, **settings: Any) -> Prepared:
    spec = TrainSpec(
        base=ModelSpec(kind="base", name="tiny", ref=str(base), fingerprint="x"),
        amounts=(1_000,),
        recipe=Recipe(block=64).resolved().model_copy(update=settings),
    )
    return prepare(spec, World(), silent)


def test_positions_isolate_pieces_in_models_that_read_them_and_not_in_others(tiny: Any) -> None:
    assert isolates(tiny.eval())
    torch.manual_seed(0)
    alibi = BloomForCausalLM(BloomConfig(vocab_size=128, hidden_size=32, n_layer=2, n_head=4))
    assert not isolates(alibi.eval())


@pytest.mark.parametrize("attention", ["eager", "flex_attention"])
def test_packing_isolates_in_other_attentions_too(
    attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = llama().eval()
    model.set_attn_implementation(attention)
    # Uncompiled, flexible attention computes the same, and ten seconds earlier.
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    assert isolates(model)


def test_a_model_with_every_key_visible_would_be_found_out(tiny: Any) -> None:
    forward = tiny.forward

    def contaminated(**inputs: Any) -> Any:
        ids = inputs["input_ids"]
        return forward(**{**inputs, "attention_mask": torch.ones_like(ids)})

    tiny.eval()
    tiny.forward = contaminated
    assert not isolates(tiny)


def test_markers_of_a_template_become_tokens_only_where_they_are_none(tiny_base: Path) -> None:
    before = AutoTokenizer.from_pretrained(tiny_base)
    own = prepared(tiny_base, template=CHATML)
    assert len(own.tokenizer) == len(before) + 2
    rows = own.model.get_input_embeddings().weight
    # The tiny model has two spare rows, which are used before new ones are made.
    assert rows.shape[0] == max(len(own.tokenizer), 512)
    assert own.model.get_output_embeddings().weight is rows
    again = prepared(tiny_base)
    assert len(again.tokenizer) == len(before)
    tokens = conversation_tokens(own.tokenizer, (Message("user", "a"), Message("assistant", "b")))
    last = max(i for i, s in enumerate(tokens.supervised) if s)
    assert own.tokenizer.convert_ids_to_tokens(tokens.ids[last]) == "<|im_end|>"


def test_the_built_in_template_adds_no_token(tiny_base: Path) -> None:
    before = AutoTokenizer.from_pretrained(tiny_base)
    own = prepared(tiny_base, template=BUILT_IN["chatml"])
    assert len(own.tokenizer) == len(before)
    tokens = conversation_tokens(own.tokenizer, (Message("user", "a"), Message("assistant", "b")))
    assert "<|im_start|>assistant" in own.tokenizer.decode(tokens.ids)


def test_adapters_are_refused_where_a_token_would_have_to_be_learnt(
    tiny_base: Path, tmp_path: Path
) -> None:
    lora = LoraSpec(rank=4, alpha=8)
    with pytest.raises(ModelError, match=r"lacks: <\|im_start\|>, <\|im_end\|>"):
        prepared(tiny_base, optimizer="adamw", lora=lora, template=CHATML)
    prepared(tiny_base, optimizer="adamw", lora=lora, template=BUILT_IN["chatml"])
    folder = tmp_path / "endless"
    shutil.copytree(tiny_base, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match="endoftext"):
        prepared(folder, optimizer="adamw", lora=lora)


def test_new_rows_are_the_mean_of_the_old_ones(tiny_base: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    rows = model.get_input_embeddings().weight.shape[0]
    mean = model.get_input_embeddings().weight.detach().mean(dim=0)
    model_module._resize(model, rows + 3, rows)
    assert model.config.vocab_size == rows + 3
    for row in model.get_input_embeddings().weight[rows:]:
        torch.testing.assert_close(row, mean)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_a_tokenizer_without_an_end_is_given_one(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "endless"
    shutil.copytree(tiny_base, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    own = prepared(folder)
    assert own.tokenizer.eos_token == "<|endoftext|>"
    assert own.tokenizer.eos_token_id < own.model.get_input_embeddings().weight.shape[0]


def test_adapters_alone_are_trained_and_change_nothing_at_first(tiny_base: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_base).eval()
    own = prepared(tiny_base, optimizer="adamw", lora=LoraSpec(rank=4, alpha=8))
    names = set(own.parameters)
    assert names and all("lora_" in n for n in names)
    # every matrix but the head, in each of two layers, two adapters' matrices each
    assert len(names) == 7 * 2 * 2
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(own.model.eval()(ids).logits, base(ids).logits)


def test_adapters_on_modules_that_are_not_there_are_refused(tiny_base: Path) -> None:
    with pytest.raises(ModelError, match="adapters do not fit"):
        prepared(tiny_base, lora=LoraSpec(rank=4, alpha=8, targets=("nowhere",)))


def test_adapters_on_embeddings_are_refused(tiny_base: Path) -> None:
    with pytest.raises(ModelError, match="on embeddings"):
        prepared(tiny_base, lora=LoraSpec(rank=4, alpha=8, targets=("embed_tokens", "q_proj")))


def test_a_model_that_changes_its_logits_in_an_unknown_way_is_refused(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = tiny.forward

    def doubled(**inputs: Any) -> Any:
        out = forward(**inputs)
        out.logits = out.logits * 2
        return out

    model_module._check_head(tiny.eval())
    tiny.forward = doubled
    with pytest.raises(ModelError, match="logits"):
        model_module._check_head(tiny)
