"""A tiny GGUF made here and converted: the numbers of transformers' own way, and safe failures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.convert_slow_tokenizer import bytes_to_unicode

from epigone.errors import FetchError, ModelError
from epigone.models import convert
from epigone.models.convert import convert_gguf
from epigone.models.references import fingerprint, locate

WIDTH, HEADS, LAYERS, INNER = 32, 4, 2, 64
TEMPLATE = "{% for m in messages %}<|s|>{{ m['role'] }}: {{ m['content'] }}<|e|>{% endfor %}"


def vocabulary() -> tuple[list[str], list[str]]:
    letters = list(bytes_to_unicode().values())
    merges = ["Ċ Ċ", "Ġ Ġ", "h e", "1 2"]
    return ["<|e|>", "<|s|>", *letters, *(m.replace(" ", "") for m in merges)], merges


def tensors() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    size = len(vocabulary()[0])
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (size, WIDTH),
        "output_norm.weight": (WIDTH,),
    }
    for i in range(LAYERS):
        shapes |= {f"blk.{i}.attn_{n}.weight": (WIDTH, WIDTH) for n in ("q", "k", "v", "output")}
        shapes |= {f"blk.{i}.ffn_{n}.weight": (INNER, WIDTH) for n in ("gate", "up")}
        shapes |= {f"blk.{i}.{n}_norm.weight": (WIDTH,) for n in ("attn", "ffn")}
        shapes[f"blk.{i}.ffn_down.weight"] = (WIDTH, INNER)
    return {n: rng.normal(0, 0.1, s).astype(np.float32) for n, s in shapes.items()}


def write_gguf(
    path: Path,
    change: Callable[[dict[str, np.ndarray[Any, Any]]], object] = lambda _: None,
    pre: str = "smollm",
) -> Path:
    """A two-layer llama, its matrices packed to 8 bits, with a byte-level tokenizer."""
    tokens, merges = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_merges(merges)
    writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    made = tensors()
    change(made)
    packed = gguf.GGMLQuantizationType.Q8_0
    for name, tensor in made.items():
        if tensor.ndim == 2:
            data = gguf.quants.quantize(tensor, packed)
            writer.add_tensor(name, data, raw_dtype=packed)
        else:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_equal_to_transformers_own_way(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    plain = AutoModelForCausalLM.from_pretrained(
        tmp_path,
        gguf_file="tiny.gguf",
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    plain.save_pretrained(tmp_path / "plain")
    AutoTokenizer.from_pretrained(tmp_path, gguf_file="tiny.gguf").save_pretrained(
        tmp_path / "plain"
    )
    readers = (gguf.GGUFReader, gguf.get_tensor_name_map)
    convert_gguf(file, tmp_path / "out")
    assert readers == (gguf.GGUFReader, gguf.get_tensor_name_map), "everything is put back"
    ours, theirs = (
        load_file(tmp_path / folder / "model.safetensors") for folder in ("out", "plain")
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert {t.dtype for t in ours.values()} == {torch.float32}
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    rows = [json.loads((tmp_path / f / "tokenizer.json").read_text()) for f in ("out", "plain")]
    for row in rows:
        row.pop("pre_tokenizer")
    assert rows[0] == rows[1]
    embedding = tensors()["token_embd.weight"]
    # One step of an 8-bit block is its largest value / 127; rounding is off by half of that.
    off = np.abs(ours["model.embed_tokens.weight"].numpy() - embedding).max()
    assert 0 < off <= 0.51 * np.abs(embedding).max() / 127


def test_the_converted_folder_loads_and_trains(tmp_path: Path) -> None:
    convert_gguf(write_gguf(tmp_path / "tiny.gguf"), tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.eos_token_id == 0
    assert model.generation_config.eos_token_id == 0
    assert model.generation_config.pad_token_id is None, "the file names none"
    assert tokenizer.apply_chat_template(
        [{"role": "user", "content": "he"}], tokenize=False
    ) == "<|s|>user: he<|e|>"  # fmt: skip
    ids = tokenizer("he said", return_tensors="pt").input_ids
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())


@pytest.mark.parametrize("pre", ["smollm", "gpt-2"])
def test_digits_split_as_the_vocabulary_was_learned(tmp_path: Path, pre: str) -> None:
    convert_gguf(write_gguf(tmp_path / "tiny.gguf", pre=pre), tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    found = tokenizer.tokenize("he\n\n12  1")
    if pre == "smollm":
        assert found == ["he", "ĊĊ", "1", "2", "ĠĠ", "1"]
    else:
        assert found == ["he", "Ċ", "Ċ", "12", "Ġ", "Ġ", "1"]


def test_what_lies_beside_the_file_is_not_mixed_in(tmp_path: Path) -> None:
    folder = tmp_path / "downloads"
    folder.mkdir()
    file = write_gguf(folder / "tiny.gguf")
    convert_gguf(file, tmp_path / "alone")
    (folder / "generation_config.json").write_text('{"temperature": 9.0, "do_sample": true}')
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<wrong>"}')
    (folder / "config.json").write_text('{"model_type": "gpt2", "n_layer": 77}')
    convert_gguf(file, tmp_path / "crowded")
    for path in (tmp_path / "alone").iterdir():
        assert path.read_bytes() == (tmp_path / "crowded" / path.name).read_bytes()


def spoil(made: dict[str, np.ndarray[Any, Any]]) -> None:
    made["output_norm.weight"][3] = np.nan


def shrink(made: dict[str, np.ndarray[Any, Any]]) -> None:
    made["blk.0.ffn_up.weight"] = made["blk.0.ffn_up.weight"][:32]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (spoil, "not finite"),
        (lambda made: made.pop("blk.1.attn_k.weight"), r"missing.*k_proj"),
        (shrink, r"cannot be converted|shape"),
    ],
)
def test_wrong_weights_leave_nothing(tmp_path: Path, change: Any, told: str) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", change)
    with pytest.raises(ModelError, match=told) as caught:
        convert_gguf(file, tmp_path / "models" / "out")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "models").iterdir())


@pytest.mark.parametrize("length", [0, 3, 100, 5000, 30_000])
def test_a_file_that_is_no_whole_gguf(tmp_path: Path, length: int) -> None:
    whole = write_gguf(tmp_path / "tiny.gguf").read_bytes()
    assert len(whole) > 30_000
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[:length])
    with pytest.raises(ModelError, match=r"cut\.gguf cannot be converted"):
        convert_gguf(cut, tmp_path / "models" / "out")
    assert not list((tmp_path / "models").iterdir())


def test_a_killed_conversion_is_done_again(tmp_path: Path) -> None:
    left = tmp_path / "models" / ".out.tmp" / "model"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    convert_gguf(write_gguf(tmp_path / "tiny.gguf"), tmp_path / "models" / "out")
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["out"]
    assert (tmp_path / "models" / "out" / "model.safetensors").stat().st_size > 1000


def test_too_little_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "TOKENIZER_BYTES", 1 << 60)
    with pytest.raises(FetchError, match="not enough free space"):
        convert_gguf(write_gguf(tmp_path / "tiny.gguf"), tmp_path / "out")


def test_a_reference_is_converted_once(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    folder = locate(f"gguf:{file}")
    assert folder.parent == cache / "models"
    assert folder.name.startswith(fingerprint(str(file)).removeprefix("sha256:").partition("+")[0])
    monkeypatch.setattr(convert, "convert_gguf", lambda *_: pytest.fail("converted again"))
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(file.read_bytes())
    assert locate(str(copy)) == folder
