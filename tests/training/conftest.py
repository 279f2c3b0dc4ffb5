from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from epigone.corpus import build
from epigone.schema import silent
from epigone.study.specs import CorpusSpec, DataSpec, SourceSpec
from epigone.training.launch import _forget_state


def llama() -> Any:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=128, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
            tie_word_embeddings=True, attn_implementation="sdpa",
        )
    )  # fmt: skip


def _gemma() -> Any:
    return Gemma3ForCausalLM(
        Gemma3TextConfig(
            vocab_size=128, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, head_dim=16, sliding_window=8,
            max_position_embeddings=128, layer_types=["sliding_attention", "full_attention"],
            attn_implementation="sdpa",
        )
    )  # fmt: skip


def _gpt2() -> Any:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=128, n_embd=32, n_layer=2, n_head=4, n_positions=128, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, attn_implementation="sdpa",
        )
    )  # fmt: skip


@pytest.fixture(params=["llama", "gemma3", "gpt2"])
def tiny(request: pytest.FixtureRequest) -> Any:
    makers: dict[str, Callable[[], Any]] = {"llama": llama, "gemma3": _gemma, "gpt2": _gpt2}
    torch.manual_seed(0)
    return makers[request.param]().float().train()


def in_a_fork(work: Callable[[], object]) -> None:
    """Do what joins processes in one that has torch already, and is none of the tests' own."""
    assert end_of_a_fork(work) == 0


def end_of_a_fork(work: Callable[[], object]) -> int:
    """The exit code of such a process, which may be killed at its work."""
    if not (child := os.fork()):
        code = 1
        try:
            signal.alarm(600)
            _forget_state()
            # Threads that this process started before are not in the fork.
            torch.set_num_threads(1)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def build_corpus(files: list[Path], base: Path, out: Path, **settings: Any) -> Path:
    """A corpus of files of conversations, counted with a base's tokenizer."""
    out.mkdir(exist_ok=True)
    spec = CorpusSpec(
        kind="broad",
        sources=tuple(DataSpec(ref=str(f), fingerprint="x") for f in files),
        tokenizer=SourceSpec(ref=str(base), fingerprint="y"),
        teacher="scribe",
        held_out=4,
        **settings,
    )
    build(files, spec, base / "tokenizer.json", out, silent)
    return out


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, talk: Path, tiny_base: Path) -> Path:
    return build_corpus([talk], tiny_base, tmp_path_factory.mktemp("corpus"))
