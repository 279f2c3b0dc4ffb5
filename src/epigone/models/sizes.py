"""How large a model is, without loading or downloading it."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from epigone.errors import ModelError
from epigone.files import read_json
from epigone.models import catalogue
from epigone.study.cost import Shape

if TYPE_CHECKING:
    from epigone.models.references import Reference

_HEADER = 100 << 20
# Parts of the names that token and position tables and heads have.
_TABLES = ("embed_tokens", "embed_positions", "embed_in", "embed_out", "wte", "wpe", "lm_head",
           "shared.weight")  # fmt: skip


@cache
def _table() -> tuple[Mapping[str, Shape], Mapping[str, str]]:
    """Shapes by name, and names by hub repository or catalogue name in small letters."""
    text = Path(__file__).with_name("sizes.yaml").read_text(encoding="utf-8")
    # libyaml is six times as fast, and every plan reads this.
    rows = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    shapes = {}
    for name, row in rows.items():
        size = row["size"]
        attention = size.setdefault("attention", size["width"])
        shapes[name] = Shape(**{"kv": attention, **size})
    return shapes, {repo.lower(): name for name, row in rows.items() for repo in row["repos"]}


def known() -> Mapping[str, Shape]:
    """The shapes of the models that need no file to be known."""
    return _table()[0]


def shape(reference: Reference) -> Shape | None:
    """What of a model decides its cost: of a known name, a local folder, or the hub's cache."""
    if reference.kind in ("hf", "catalogue"):
        name = _table()[1].get(reference.value.lower())
        if name is not None:
            return known()[name]
    folder = _folder(reference)
    return None if folder is None else _of_folder(folder)


def parameters(reference: Reference) -> int | None:
    """How many weights a model has, where that is known without a download, else None."""
    if reference.kind == "catalogue":
        return catalogue.find(reference.value).parameters
    if reference.kind == "folder":
        # Counted even where the configuration is of no known kind.
        return sum(_sizes(Path(reference.value)).values()) or None
    found = shape(reference)
    return found.parameters if found else None


def _folder(reference: Reference) -> Path | None:
    if reference.kind == "folder":
        return Path(reference.value)
    if reference.kind != "hf":
        return None
    # The hub's own library would take longer to import than the plan takes.
    home = os.environ.get("HF_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"
    )
    cached = os.path.expanduser(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub"))
    own = os.path.join(cached, "models--" + reference.value.replace("/", "--"))
    if not os.path.isdir(own):
        return None  # as for most models of a plan, which asks this of each step
    return next(iter(sorted(p.parent for p in Path(own).glob("snapshots/*/config.json"))), None)


def _of_folder(folder: Path) -> Shape | None:
    """The shape of a model folder, or None where its configuration or its weights do not tell."""
    try:
        config = read_json(folder / "config.json")
    except (OSError, ValueError):
        return None
    weights = _sizes(folder)
    if not isinstance(config, dict) or not weights:
        return None
    width = _first(config, "hidden_size", "n_embd", "d_model")
    layers = _first(config, "num_hidden_layers", "n_layer", "num_layers")
    heads = _first(config, "num_attention_heads", "n_head", "num_heads")
    vocabulary = _first(config, "vocab_size")
    if not (width and layers and heads and vocabulary):
        return None
    head = _first(config, "head_dim", "d_kv") or width // heads
    double = config.get("is_encoder_decoder") is True
    return Shape(
        parameters=sum(weights.values()),
        embeddings=sum(n for name, n in weights.items() if any(t in name for t in _TABLES)),
        layers=(_first(config, "num_decoder_layers") or layers) if double else layers,
        width=width,
        vocabulary=vocabulary,
        attention=heads * head,
        kv=(_first(config, "num_key_value_heads") or heads) * head,
        encoder=layers if double else 0,
    )


def _first(config: Mapping[str, Any], *names: str) -> int:
    values = (config.get(name) for name in names)
    return next((v for v in values if isinstance(v, int) and v > 0), 0)


def _sizes(folder: Path) -> dict[str, int]:
    """Numbers in each tensor of a folder's safetensors files."""
    found: dict[str, int] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= _header(file)
    return found


def _header(file: Path) -> dict[str, int]:
    try:
        with open(file, "rb") as f:
            (length,) = struct.unpack("<Q", f.read(8))
            header = json.loads(f.read(min(length, _HEADER)))
        return {n: _count(t["shape"]) for n, t in header.items() if n != "__metadata__"}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            "not a safetensors file", value=str(file), fix="download or save it again"
        ) from error


def _count(sides: Sequence[int]) -> int:
    size = 1
    for n in sides:
        size *= int(n)
    return size
