"""From a GGUF file to a folder of full-precision safetensors that loads in a second and trains."""

from __future__ import annotations

import copy
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors import SafetensorError
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers import modeling_gguf_pytorch_utils as _hf_gguf
from transformers.utils import logging as _hf_logging

from epigone.errors import ModelError
from epigone.files import fsync_dir
from epigone.models.catalogue import disk_error, need_space
from epigone.schema import Progress, silent

# What these return is untyped.
hf_gguf: Any = _hf_gguf
hf_logging: Any = _hf_logging
hf_auto: Any = AutoModelForCausalLM

TOKENIZER_BYTES = 64 << 20

# Vocabularies that were learned with every digit on its own, by their `tokenizer.ggml.pre`.
# transformers takes GPT-2's splitting for them, in which "\n\n1" becomes other tokens.
_SINGLE_DIGITS = frozenset({"smollm"})


def convert_gguf(file: Path, out: Path, progress: Progress = silent) -> None:
    """Write the model and tokenizer of a GGUF file to the folder `out` as fp32 safetensors.

    `out` appears whole or not at all. Raises ModelError for a file that is no GGUF, or whose
    weights are not those of the model that its metadata describe; FetchError for a full disk.
    """
    aside = out.with_name(f".{out.name}.tmp")
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        shutil.rmtree(aside, ignore_errors=True)
        (aside / "source").mkdir(parents=True)
        # Alone in a folder: transformers would mix in a config or tokenizer that lies beside it.
        source = aside / "source" / "model.gguf"
        source.symlink_to(file.resolve(strict=True))
        model = aside / "model"
        with _metadata_read_once(file.name, progress):
            need_space(file.name, aside, _bytes_needed(source))
            progress(0, 1, f"{file.name}: reading")
            _convert_model(source, model)
            _convert_tokenizer(source, model)
        _to_disk(model)
        shutil.rmtree(out, ignore_errors=True)
        os.replace(model, out)
        fsync_dir(out.parent)
    except OSError as error:
        if error.errno is None:
            # transformers raises a bare OSError for a file that it does not understand.
            raise _refused(file, str(error).splitlines()[0]) from error
        raise disk_error(file.name, error) from error
    except SafetensorError as error:
        raise disk_error(file.name, OSError(_os_error(str(error)), str(error))) from error
    except (ValueError, KeyError, IndexError, RuntimeError) as error:
        raise _refused(file, f"{type(error).__name__}: {error}".splitlines()[0]) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    progress(1, 1, f"{file.name}: converted")


def _refused(file: Path, why: str) -> ModelError:
    return ModelError(
        f"{file.name} cannot be converted from GGUF",
        value=why,
        fix="use the model's safetensors folder instead",
    )


def _os_error(message: str) -> int:
    found = re.search(r"os error (\d+)", message)
    return int(found.group(1)) if found else 0


def _bytes_needed(file: Path) -> int:
    weights = 4 * sum(int(t.n_elements) for t in gguf.GGUFReader(file).tensors)
    return weights + TOKENIZER_BYTES


def _convert_model(file: Path, folder: Path) -> None:
    # Without dequantize=True transformers may keep weights packed, which neither save nor train.
    model, info = hf_auto.from_pretrained(
        file.parent,
        gguf_file=file.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
        local_files_only=True,
        output_loading_info=True,
    )
    if info["missing_keys"]:
        # transformers would fill these at random and go on.
        raise ValueError(f"weights are missing from the file: {min(info['missing_keys'])}")
    check_trainable(model)
    model.save_pretrained(folder)


def check_trainable(model: Any) -> None:
    """Raise ModelError unless every parameter is a finite fp32 leaf of the shape the config says.

    The shapes are compared with a model that the config builds without memory.
    """
    with torch.device("meta"):
        expected = hf_auto.from_config(model.config)
    shapes = {name: tuple(p.shape) for name, p in expected.named_parameters()}
    found = {name: tuple(p.shape) for name, p in model.named_parameters()}
    if shapes != found:
        odd = min(name for name in {*shapes, *found} if shapes.get(name) != found.get(name))
        raise ModelError(
            "a weight does not have the shape that the model's config gives it",
            value=f"{odd}: {found.get(odd)} instead of {shapes.get(odd)}",
        )
    for name, parameter in model.named_parameters():
        # A packed weight is of an integer type, which has no gradient.
        if parameter.dtype != torch.float32 or not parameter.is_leaf:
            raise ModelError("a weight cannot be trained", value=f"{name}: {parameter.dtype}")
        if not bool(torch.isfinite(parameter).all()):
            raise ModelError("a weight holds values that are not finite", value=name)
        parameter.requires_grad_(True)


def _convert_tokenizer(file: Path, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    if _split_rule(file) in _SINGLE_DIGITS:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    tokenizer.save_pretrained(folder)


def _split_rule(file: Path) -> str:
    field = gguf.GGUFReader(file).get_field("tokenizer.ggml.pre")
    return "" if field is None else str(field.contents())


def _to_disk(folder: Path) -> None:
    for path in folder.iterdir():
        with open(path, "rb") as f:
            os.fsync(f.fileno())
    fsync_dir(folder)


class _QuickReader(gguf.GGUFReader):
    """The same fields and tensors; numpy's memmap costs three quarters of the reading time."""

    def _get(
        self, offset: int, dtype: Any, count: int = 1, override_order: Any = None
    ) -> np.ndarray[Any, Any]:
        plain: np.ndarray[Any, Any] | None = self.__dict__.get("_plain")
        if plain is None:
            plain = self.__dict__["_plain"] = np.asarray(self.data)
        order = self.byte_order if override_order is None else override_order
        kind = np.dtype(dtype).newbyteorder(order)
        start = int(offset)
        return plain[start : start + kind.itemsize * int(count)].view(kind)


@contextmanager
def _metadata_read_once(name: str, progress: Progress) -> Iterator[None]:
    """transformers parses all metadata anew for config, weights and tokenizer; here it is once.

    That is most of the time of a conversion: a vocabulary of 262,144 tokens is parsed in Python.
    The names are looked up when they are called, so replacing them in their modules is enough.
    """
    slow_load = hf_gguf.load_gguf_checkpoint

    @cache
    def reader(path: str) -> _QuickReader:
        return _QuickReader(path)

    @cache
    def metadata(path: str) -> dict[str, Any]:
        parsed: dict[str, Any] = slow_load(path, return_tensors=False)
        return parsed

    def load(path: Any, return_tensors: bool = False, **options: Any) -> dict[str, Any]:
        if return_tensors:
            full: dict[str, Any] = slow_load(path, return_tensors=True, **options)
            return full
        return {"config": copy.deepcopy(metadata(os.fspath(path))["config"])}

    def counted(tensors: Sequence[Any], **_: Any) -> Iterator[Any]:
        for done, tensor in enumerate(tensors):
            progress(done, len(tensors), f"{name}: unpacking weights")
            yield tensor

    with ExitStack() as stack:
        for module, attribute, new in (
            (gguf, "GGUFReader", lambda path: reader(os.fspath(path))),
            (gguf, "get_tensor_name_map", cache(gguf.get_tensor_name_map)),
            (hf_gguf, "load_gguf_checkpoint", load),
            (hf_gguf, "tqdm", counted),
        ):
            stack.callback(setattr, module, attribute, getattr(module, attribute))
            setattr(module, attribute, new)
        yield
