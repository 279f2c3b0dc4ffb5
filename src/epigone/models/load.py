"""A model folder in memory: safetensors only, never remote code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

# Every architecture imports it, which takes seconds. Imported here, a worker does so once before it
# forks, and not each of its steps.
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import logging as hf_logging

from epigone.errors import ModelError

Precision = Literal["auto", "bf16", "fp32"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A causal language model in eval mode with its tokenizer."""

    model: PreTrainedModel
    tokenizer: Any
    dtype: torch.dtype
    device: torch.device
    folder: Path


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of matrix products: bf16 where the hardware multiplies it natively, else fp32.

    A CPU without bf16 instructions emulates them at about a quarter of its fp32 speed, so
    `auto` takes fp32 there.
    """
    if precision == "fp32":
        return torch.float32
    if precision == "bf16" or native_bf16(device):
        return torch.bfloat16
    return torch.float32


def native_bf16(device: torch.device) -> bool:
    """Whether the device has bf16 matrix instructions."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    features = torch.cpu.get_capabilities()
    return any(bool(features.get(name)) for name in ("amx_bf16", "amx_tile", "avx512_bf16", "bf16"))


def best_device() -> torch.device:
    """The first GPU, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load(folder: Path, precision: Precision = "auto", *, train: bool = False) -> Loaded:
    """Load a model folder for inference, or in fp32 for training.

    With `auto`, weights are rounded to bf16 whatever the products are computed in, as students
    are when they are saved: else a base would be measured with finer weights than its students.
    Raises ModelError for a folder that is no causal language model in safetensors format.
    """
    device = best_device()
    dtype = torch.float32 if train else compute_dtype(precision, device)
    quiet: Any = hf_logging
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            "no safetensors file in the model folder",
            value=str(folder),
            fix="convert the model with save_pretrained; pickle formats are refused",
        )
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            attn_implementation="sdpa",
        )
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(
            f"{folder.name} cannot be loaded as a causal language model",
            value=str(error).splitlines()[0],
            fix="models that need remote code are not supported",
        ) from error
    model.to(device)
    model.eval()
    if not train and precision == "auto":
        _round(model)
    return Loaded(model, tokenizer, dtype, device, folder)


def _round(model: Any) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dtype == torch.float32:
                weight.copy_(weight.to(torch.bfloat16))
