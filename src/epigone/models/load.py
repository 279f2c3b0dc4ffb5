"""A model folder in memory: safetensors only, never remote code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)

# Every architecture imports it, which takes seconds. Imported here, a worker does so once before it
# forks, and not each of its steps.
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import logging as hf_logging

from epigone.errors import ModelError
from epigone.models.encoder_decoder import is_encoder_decoder, start_id

# How transformers ends the names of classes that write text.
_WRITES = ("ForCausalLM", "ForConditionalGeneration", "Model")
# Where the second is not said, transformers asks on stdin whether to run a folder's own code.
_LOCAL: Mapping[str, Any] = {"local_files_only": True, "trust_remote_code": False}

Precision = Literal["auto", "bf16", "fp32"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A language model in eval mode with its tokenizer."""

    model: PreTrainedModel
    tokenizer: Any
    dtype: torch.dtype
    device: torch.device
    folder: Path

    @property
    def encoder_decoder(self) -> bool:
        """Whether prompts go to an encoder and answers to a decoder (T5, UL2)."""
        return is_encoder_decoder(self.model)


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


def load(
    folder: Path,
    precision: Precision = "auto",
    *,
    train: bool = False,
    device: torch.device | None = None,
) -> Loaded:
    """Load a model folder for inference, or in fp32 for training.

    With `auto`, weights are rounded to bf16 whatever the products are computed in, as students
    are when they are saved: else a base would be measured with finer weights than its students.
    Raises ModelError for a folder that is no causal or encoder-decoder language model in
    safetensors format, and for a tokenizer of another model.
    """
    device = device or best_device()
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
        config = AutoConfig.from_pretrained(folder, **_LOCAL)
        kind = model_class(config, folder.name)
        tokenizer = AutoTokenizer.from_pretrained(folder, **_LOCAL)
        auto: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model, info = auto.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            **_LOCAL,
            use_safetensors=True,
            # Some architectures add to the attention's scores what sdpa cannot take.
            attn_implementation="sdpa" if kind._supports_sdpa else "eager",
            output_loading_info=True,
            # Else the library raises an error that names none of them.
            ignore_mismatched_sizes=True,
        )
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(
            f"{folder.name} cannot be loaded as a language model",
            value=str(error).splitlines()[0],
            fix="models that need remote code are not supported",
        ) from error
    _refuse_other_weights(folder.name, kind.__name__, info)
    _refuse_other_tokenizer(tokenizer, model, folder)
    if is_encoder_decoder(model):
        model.config.decoder_start_token_id = start_id(model)
    model.to(device)
    model.eval()
    if not train and precision == "auto":
        _round(model)
    return Loaded(model, tokenizer, dtype, device, folder)


def _refuse_other_weights(name: str, kind: str, info: Mapping[str, Any]) -> None:
    # transformers would fill these at random and go on.
    if info["mismatched_keys"]:
        weight, stored, asked = min(info["mismatched_keys"])
        raise ModelError(
            f"{name}: a weight has another shape than its configuration says",
            value=f"{weight}: {[*stored]}, not {[*asked]}",
            fix="use the configuration that the weights were saved with",
        )
    if info["missing_keys"]:
        raise ModelError(
            f"{name} has not all weights of a {kind}",
            value=min(info["missing_keys"]),
            fix="use a folder of a whole language model",
        )


def _refuse_other_tokenizer(tokenizer: Any, model: Any, folder: Path) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) <= rows:
        return
    # Of special tokens, some models have names for which they have no weights.
    unknown = [t for t, i in tokenizer.get_vocab().items() if i >= rows]
    if left := sorted(set(unknown) - set(tokenizer.all_special_tokens)):
        raise ModelError(
            f"the tokenizer of {folder.name} has {len(left):,} tokens for which the model has no "
            "weights",
            value=left[0],
            fix="use the tokenizer that the model was trained with",
        )


def model_class(config: Any, name: str) -> Any:
    """The transformers class that answers with a model of this configuration.

    Raises ModelError for an architecture that is no language model, as BERT's masked one: its
    weights fit a causal class, which would give numbers that mean nothing.
    """
    mapping: Any = MODEL_FOR_CAUSAL_LM_MAPPING
    if config.is_encoder_decoder:
        mapping = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    architecture = (getattr(config, "architectures", None) or [config.model_type])[0]
    if type(config) in mapping:
        found = mapping[type(config)]
        # Old checkpoints name a class without its head; missing weights are found in loading.
        if architecture in (found.__name__, config.model_type) or architecture.endswith(_WRITES):
            return found
    raise ModelError(
        f"{name} is neither a causal nor an encoder-decoder language model",
        value=architecture,
        fix="name a model that writes text, such as Llama, GPT-2 or T5",
    )


def _round(model: Any) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dtype == torch.float32:
                weight.copy_(weight.to(torch.bfloat16))
