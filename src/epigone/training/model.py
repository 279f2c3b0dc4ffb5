"""A base made ready for training: template, tokens, adapters, slices, shards."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from epigone.errors import ModelError
from epigone.models.encoder_decoder import is_encoder_decoder
from epigone.models.load import Loaded, compute_dtype, load
from epigone.models.references import locate, parameters
from epigone.schema import Progress
from epigone.study.specs import LoraSpec, TrainSpec
from epigone.study.templates import BUILT_IN
from epigone.training.isolation import by_piece, flash, hidden, isolates
from epigone.training.loss import (
    Micro,
    finished,
    hidden_states,
    plain_head,
    supervised_loss,
)
from epigone.training.parallel import World, local, shard_
from epigone.training.slices import slice_

# Markers of turns, as chat templates write them.
_MARKERS = re.compile(r"<\|[A-Za-z0-9_]+\|>")
# For tokenizers that have no token to end a text with.
_END = "<|endoftext|>"


class Trainee(nn.Module):
    """A model whose forward is the loss of a micro-batch, so that wrappers see one call."""

    def __init__(
        self, model: Any, base: Any, compute: torch.dtype, *, plain: bool, direct: bool
    ) -> None:
        super().__init__()
        self.model = model
        # Not a submodule: it is never trained, saved or counted.
        self._base = [base]
        self._plain, self._direct, self._compute = plain, direct, compute

    def forward(self, micro: Micro) -> tuple[Tensor, Tensor]:
        """As `supervised_loss`."""
        return supervised_loss(
            self.model,
            micro,
            plain=self._plain,
            direct=self._direct,
            base=self._base[0],
            compute=self._compute,
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """A base that can be trained.

    `parameters` are those that are trained, by the model's own names; `base` has their first
    values where they are pulled back to them. `partial` names parameters whose gradients have to
    be summed over slices. `packs` says whether several pieces can lie in one row, `flat` whether a
    micro-batch is one row without padding; `start` is the token with which a decoder starts, None
    without an encoder.
    """

    trainee: Trainee
    model: Any
    tokenizer: Any
    world: World
    compute: torch.dtype
    parameters: Mapping[str, Tensor]
    base: Mapping[str, Tensor]
    partial: tuple[str, ...]
    packs: bool
    flat: bool
    start: int | None


def prepare(spec: TrainSpec, world: World, progress: Progress) -> Prepared:
    """Load and change a base as the recipe asks.

    Raises ModelError for models that cannot be trained so.
    """
    folder = locate(spec.base.ref, progress, fingerprint=spec.base.fingerprint)
    # On a machine of eight GPUs, eight whole copies in fp32 would be more than its memory.
    with world.in_turn(_bytes_to_load(folder, spec)):
        return _prepared(spec, world, folder)


def _bytes_to_load(folder: Path, spec: TrainSpec) -> float:
    copies = 2 if spec.recipe.kl and spec.recipe.lora is None else 1
    return 4.0 * copies * (parameters(str(folder)) or 0)


def _prepared(spec: TrainSpec, world: World, folder: Path) -> Prepared:
    recipe = spec.recipe
    split = world.layout.shard * world.layout.tensor > 1
    # What is split goes to the GPU in parts, and below adapters in the products' precision: no GPU
    # has to hold the whole in fp32.
    aside = split or recipe.lora is not None
    loaded = load(folder, train=True, device=torch.device("cpu") if aside else world.device)
    tokenizer = loaded.tokenizer
    model: Any = loaded.model
    compute = compute_dtype(recipe.precision, world.device)
    new = _give_template(loaded, recipe.template)
    _refuse(spec, loaded, world, new)
    _check_head(model)
    flat = not loaded.encoder_decoder and by_piece(model, recipe.block)
    packs = not loaded.encoder_decoder and (flat or isolates(model))
    base: Any = None
    if recipe.lora is not None:
        # Shards gather parameters of one dtype only, and cast them themselves.
        _adapt(model, recipe.lora, spec.seed, compute if world.layout.shard == 1 else None)
    if not split:
        model.to(world.device)
        flat = (packs and flash(model, compute, recipe.block)) or flat
    if recipe.kl:
        base = _frozen(model, compute) if recipe.lora is None else _Unadapted(model)
    partial = slice_(model, world)
    if recipe.kl and recipe.lora is None:
        slice_(base, world)
    trainee = Trainee(
        model, base, compute, plain=plain_head(model), direct=world.alone and recipe.lora is None
    )
    shard_(trainee, model, world, compute)
    if recipe.kl and recipe.lora is None:
        shard_(base, base, world, compute)
    if split:
        trainee.to(world.device)
        if isinstance(base, nn.Module):
            base.to(world.device)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    start = model.config.decoder_start_token_id if loaded.encoder_decoder else None
    return Prepared(
        trainee=trainee,
        model=model,
        tokenizer=tokenizer,
        world=world,
        compute=compute,
        parameters=trained,
        base=_first_values(trained) if recipe.decay_to_base else {},
        partial=tuple(partial),
        packs=packs,
        flat=flat,
        start=start,
    )


def _refuse(spec: TrainSpec, loaded: Loaded, world: World, new: Sequence[str]) -> None:
    recipe = spec.recipe
    if recipe.lora is not None and new:
        # Their rows would stay the mean of all others, which no greedy answer ever chooses.
        raise ModelError(
            f"adapters do not train tokens that {spec.base.name} lacks",
            value=", ".join(new),
            fix="take a template without them, as chatml, or train all weights",
        )
    if recipe.lora is not None and world.layout.tensor > 1:
        raise ModelError("adapters cannot be sliced", fix="take shard=N or replicate=N instead")
    if loaded.encoder_decoder and recipe.chunks == "contiguous":
        raise ModelError(
            f"chunks: contiguous is for decoders, and {spec.base.name} has an encoder",
            fix="leave it out of the recipe",
        )


def _check_head(model: Any) -> None:
    # Logits are computed from hidden states here, and not by the model: both have to agree.
    device = next(model.parameters()).device
    ids = torch.arange(3, 8, device=device)[None] % model.get_input_embeddings().weight.shape[0]
    positions = torch.arange(5, device=device)[None]
    named = {"input_ids": ids, "use_cache": False}
    if is_encoder_decoder(model):
        named["decoder_input_ids"] = ids
        columns = torch.arange(1, 6, device=device)
        micro = Micro(ids, positions, torch.zeros_like(columns), columns, torch.ones(5), None, ids)
        with torch.no_grad():
            states = hidden_states(model, micro)
    else:
        states = hidden(model, ids, positions)
    with torch.no_grad():
        own, theirs = finished(model, states).float(), model(**named).logits[0].float()
    if not torch.allclose(own, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max())):
        raise ModelError(
            "the model does something to its logits that training does not know",
            value=model.config.model_type,
        )


def _give_template(loaded: Loaded, template: str) -> list[str]:
    """Set a chat template, and add the tokens that it needs and the vocabulary lacks; which."""
    model: Any = loaded.model
    tokenizer = loaded.tokenizer
    new: list[str] = []
    if template:
        tokenizer.chat_template = template
    if template and template not in BUILT_IN.values():
        # A marker that falls into several tokens would be text that any answer may contain.
        new = [
            m
            for m in dict.fromkeys(_MARKERS.findall(template))
            if len(tokenizer(m, add_special_tokens=False)["input_ids"]) != 1
        ]
        tokenizer.add_special_tokens(
            {"additional_special_tokens": new}, replace_extra_special_tokens=False
        )
    if tokenizer.eos_token_id is None:
        tokenizer.add_special_tokens({"eos_token": _END})
        new.append(_END)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        _resize(model, len(tokenizer), rows)
    return new


def _resize(model: Any, size: int, rows: int) -> None:
    model.resize_token_embeddings(size, mean_resizing=False)
    # New tokens start as the mean of all others: their logits are then unremarkable, not extreme.
    for module in {
        id(m): m for m in (model.get_input_embeddings(), model.get_output_embeddings())
    }.values():
        with torch.no_grad():
            module.weight[rows:] = module.weight[:rows].mean(dim=0)
            if getattr(module, "bias", None) is not None:
                module.bias[rows:] = module.bias[:rows].mean()


def _adapt(model: Any, lora: LoraSpec, seed: int, frozen: torch.dtype | None) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(seed)
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    try:
        inject_adapter_in_model(
            LoraConfig(
                r=lora.rank,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                target_modules=targets,
            ),
            model,
        )
    except ValueError as error:
        raise ModelError("adapters do not fit", value=str(error).splitlines()[0]) from None
    if any(len(getattr(m, "lora_embedding_A", ())) for m in model.modules()):
        raise ModelError(
            "adapters on embeddings are not supported", fix="leave them out of targets"
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "lora_" in name
        if not parameter.requires_grad and frozen is not None:
            # The base stays as it is, so it needs no finer weights than the products have.
            parameter.data = parameter.data.to(frozen)


class _Unadapted:
    """The base below a model with adapters: the same weights, with the adapters switched off."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, **inputs: Any) -> Any:
        # Not by enable_adapters, which would freeze and thaw their parameters as well.
        layers = [m for m in self._model.modules() if hasattr(m, "_disable_adapters")]
        training = self._model.training
        self._model.eval()
        for layer in layers:
            layer._disable_adapters = True
        try:
            return self._model(**inputs)
        finally:
            for layer in layers:
                layer._disable_adapters = False
            self._model.train(training)


def _frozen(model: Any, compute: torch.dtype) -> Any:
    base = copy.deepcopy(model).to(compute).eval()
    base.requires_grad_(False)
    return base


def _first_values(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, p in parameters.items():
        own = local(p).detach()
        half = own.to(torch.bfloat16)
        # Most bases are published in bf16, which holds them exactly in half the space.
        found[name] = half if torch.equal(half.to(own.dtype), own) else own.clone()
    return found
