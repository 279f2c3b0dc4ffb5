from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    Qwen2Config,
    T5Config,
)

from epigone.models import sizes
from epigone.models.references import parameters, shape

Build = tuple[int, Callable[[int], PretrainedConfig]]


def gpt2(width: int, layers: int, heads: int) -> Build:
    return layers, lambda n: GPT2Config(n_embd=width, n_layer=n, n_head=heads)


def llama(
    width: int, layers: int, heads: int, kv: int, mlp: int, vocabulary: int = 32000, **more: Any
) -> Build:
    return layers, lambda n: LlamaConfig(
        hidden_size=width, num_hidden_layers=n, num_attention_heads=heads,
        num_key_value_heads=kv, intermediate_size=mlp, vocab_size=vocabulary, **more,
    )  # fmt: skip


def pythia(width: int, layers: int, heads: int, vocabulary: int = 50304) -> Build:
    return layers, lambda n: GPTNeoXConfig(
        hidden_size=width, num_hidden_layers=n, num_attention_heads=heads,
        intermediate_size=4 * width, vocab_size=vocabulary, tie_word_embeddings=False,
    )  # fmt: skip


def opt(width: int, layers: int, heads: int, **more: Any) -> Build:
    return layers, lambda n: OPTConfig(
        hidden_size=width, num_hidden_layers=n, num_attention_heads=heads,
        ffn_dim=4 * width, **{"word_embed_proj_dim": width, **more},
    )  # fmt: skip


def qwen(
    width: int, layers: int, heads: int, kv: int, mlp: int, tied: bool, vocabulary: int
) -> Build:
    return layers, lambda n: Qwen2Config(
        hidden_size=width, num_hidden_layers=n, num_attention_heads=heads,
        num_key_value_heads=kv, intermediate_size=mlp, vocab_size=vocabulary,
        tie_word_embeddings=tied,
    )  # fmt: skip


def gemma3(width: int, layers: int, mlp: int) -> Build:
    return layers, lambda n: Gemma3TextConfig(
        hidden_size=width, num_hidden_layers=n, num_attention_heads=4, num_key_value_heads=1,
        head_dim=256, intermediate_size=mlp, vocab_size=262144,
    )  # fmt: skip


def t5(width: int, layers: int, heads: int, head: int, mlp: int, gated: bool = False) -> Build:
    return layers, lambda n: T5Config(
        d_model=width, num_layers=n, num_heads=heads, d_kv=head, d_ff=mlp, vocab_size=32128,
        feed_forward_proj="gated-gelu" if gated else "relu",
    )  # fmt: skip


# As the models' authors published them; the counts that follow come out of transformers.
BUILDS: dict[str, Build] = {
    "gpt2": gpt2(768, 12, 12),
    "gpt2-medium": gpt2(1024, 24, 16),
    "gpt2-large": gpt2(1280, 36, 20),
    "gpt2-xl": gpt2(1600, 48, 25),
    "llama-7b": llama(4096, 32, 32, 32, 11008),
    "llama-13b": llama(5120, 40, 40, 40, 13824),
    "llama-30b": llama(6656, 60, 52, 52, 17920),
    "llama-65b": llama(8192, 80, 64, 64, 22016),
    "llama-2-70b": llama(8192, 80, 64, 8, 28672),
    "llama-3-8b": llama(4096, 32, 32, 8, 14336, 128256),
    "llama-3-70b": llama(8192, 80, 64, 8, 28672, 128256),
    "llama-3.2-1b": llama(
        2048, 16, 32, 8, 8192, 128256, head_dim=64, tie_word_embeddings=True
    ),
    "llama-3.2-3b": llama(
        3072, 28, 24, 8, 8192, 128256, head_dim=128, tie_word_embeddings=True
    ),
    "pythia-70m": pythia(512, 6, 8),
    "pythia-160m": pythia(768, 12, 12),
    "pythia-410m": pythia(1024, 24, 16),
    "pythia-1b": pythia(2048, 16, 8),
    "pythia-1.4b": pythia(2048, 24, 16),
    "pythia-2.8b": pythia(2560, 32, 32),
    "pythia-6.9b": pythia(4096, 32, 32, 50432),
    "pythia-12b": pythia(5120, 36, 40, 50688),
    "opt-125m": opt(768, 12, 12),
    "opt-350m": opt(1024, 24, 16, word_embed_proj_dim=512, do_layer_norm_before=False),
    "opt-1.3b": opt(2048, 24, 32),
    "opt-2.7b": opt(2560, 32, 32),
    "opt-6.7b": opt(4096, 32, 32),
    "opt-13b": opt(5120, 40, 40),
    "opt-30b": opt(7168, 48, 56),
    "opt-66b": opt(9216, 64, 72),
    "qwen2.5-0.5b": qwen(896, 24, 14, 2, 4864, True, 151936),
    "qwen2.5-1.5b": qwen(1536, 28, 12, 2, 8960, True, 151936),
    "qwen2.5-3b": qwen(2048, 36, 16, 2, 11008, True, 151936),
    "qwen2.5-7b": qwen(3584, 28, 28, 4, 18944, False, 152064),
    "qwen2.5-14b": qwen(5120, 48, 40, 8, 13824, False, 152064),
    "qwen2.5-32b": qwen(5120, 64, 40, 8, 27648, False, 152064),
    "qwen2.5-72b": qwen(8192, 80, 64, 8, 29568, False, 152064),
    "smollm2-135m": llama(576, 30, 9, 3, 1536, 49152, tie_word_embeddings=True),
    "smollm2-360m": llama(960, 32, 15, 5, 2560, 49152, tie_word_embeddings=True),
    "smollm2-1.7b": llama(2048, 24, 32, 32, 8192, 49152, tie_word_embeddings=True),
    "gemma-3-270m": gemma3(640, 18, 2048),
    "gemma-3-1b": gemma3(1152, 26, 6912),
    "t5-small": t5(512, 6, 8, 64, 2048),
    "t5-base": t5(768, 12, 12, 64, 3072),
    "t5-large": t5(1024, 24, 16, 64, 4096),
    "t5-3b": t5(1024, 24, 32, 128, 16384),
    "t5-11b": t5(1024, 24, 128, 128, 65536),
    "t5-v1.1-small": t5(512, 8, 6, 64, 1024, gated=True),
    "t5-v1.1-base": t5(768, 12, 12, 64, 2048, gated=True),
    "t5-v1.1-large": t5(1024, 24, 16, 64, 2816, gated=True),
    "t5-v1.1-xl": t5(2048, 24, 32, 64, 5120, gated=True),
    "t5-v1.1-xxl": t5(4096, 24, 64, 64, 10240, gated=True),
    "ul2": t5(4096, 32, 16, 256, 16384, gated=True),
}  # fmt: skip

# Numbers of parameters that the hub shows for the weights themselves, or that papers name.
PUBLISHED = {
    "gpt2-xl": 1_557_611_200,
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-30b": 32_528_943_616,
    "llama-65b": 65_285_660_672,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "pythia-70m": 70_426_624,
    "pythia-1b": 1_011_781_632,
    "pythia-6.9b": 6_857_302_016,
    "pythia-12b": 11_846_072_320,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-72b": 72_706_203_648,
    "smollm2-135m": 134_515_008,
    "smollm2-1.7b": 1_711_376_384,
    "gemma-3-270m": 268_098_176,
    "gemma-3-1b": 999_885_952,
    "t5-11b": 11_307_321_344,
    "t5-v1.1-xl": 2_849_757_184,
}


def counted(config: PretrainedConfig) -> dict[str, int]:
    """What transformers builds from a configuration, without any weights."""
    double = config.is_encoder_decoder
    with torch.device("meta"):
        model = (AutoModelForSeq2SeqLM if double else AutoModelForCausalLM).from_config(config)
    table = model.get_input_embeddings().weight
    looked_up = {"table": table, "head": model.get_output_embeddings().weight}
    looked_up |= {n: p for n, p in model.named_parameters() if "wpe" in n or "embed_positions" in n}
    # T5's configuration ties what the weights of v1.1 have apart.
    apart = table.numel() if double and config.is_gated_act else 0
    heads = config.num_attention_heads
    head = getattr(config, "head_dim", None) or getattr(config, "d_kv", None)
    head = head or config.hidden_size // heads
    return {
        "parameters": sum(p.numel() for p in model.parameters()) + apart,
        "embeddings": sum({id(p): p.numel() for p in looked_up.values()}.values()) + apart,
        "layers": config.num_decoder_layers if double else config.num_hidden_layers,
        "width": config.hidden_size,
        "vocabulary": config.vocab_size,
        "attention": heads * head,
        "kv": (getattr(config, "num_key_value_heads", None) or heads) * head,
        "encoder": config.num_hidden_layers if double else 0,
    }


def built(build: Build) -> dict[str, int]:
    """The counts of the whole model: one layer's weights are the same in every layer."""
    layers, make = build
    one, two = counted(make(1)), counted(make(2))
    return {name: n + (layers - 1) * (two[name] - n) for name, n in one.items()}


@pytest.mark.parametrize("name", BUILDS)
def test_a_known_size_is_what_transformers_builds(name: str) -> None:
    assert asdict(sizes.known()[name]) == built(BUILDS[name])


def test_extrapolating_from_two_layers_is_exact() -> None:
    for name in ("gpt2-xl", "gemma-3-270m", "t5-v1.1-small"):
        layers, make = BUILDS[name]
        assert built(BUILDS[name]) == counted(make(layers))


def test_known_sizes_are_the_published_ones_and_none_is_unchecked() -> None:
    assert sizes.known().keys() == BUILDS.keys()
    assert {name: sizes.known()[name].parameters for name in PUBLISHED} == PUBLISHED


def test_a_local_folder_is_read_and_not_loaded(tiny_base: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    found = shape(str(tiny_base))
    assert found is not None
    assert asdict(found) == counted(model.config)
    assert parameters(str(tiny_base)) == found.parameters


def test_a_hub_model_is_read_from_the_hubs_cache(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert shape("hf:some/body") is None
    assert parameters("hf:some/body") is None
    snapshot = tmp_path / "models--some--body" / "snapshots" / ("a" * 40)
    shutil.copytree(tiny_base, snapshot)
    assert shape("hf:some/body") == shape(str(tiny_base))


def test_names_are_known_in_any_case_and_revision() -> None:
    assert shape("hf:Huggyllama/LLaMA-7B@main") == sizes.known()["llama-7b"]
    assert shape("smollm2-135m-instruct") == sizes.known()["smollm2-135m"]
    assert parameters("hf:google/flan-ul2") == 19_591_209_984
    assert shape("sharegpt-v3-part") is None


@pytest.mark.parametrize("text", ["", "[]", '{"hidden_size": 8}', '{"hidden_size": "8"}'])
def test_a_configuration_that_tells_nothing_gives_no_shape(
    tiny_base: Path, tmp_path: Path, text: str
) -> None:
    shutil.copytree(tiny_base, tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text(text)
    assert shape(str(tmp_path / "m")) is None
    assert parameters(str(tmp_path / "m")) == parameters(str(tiny_base))
