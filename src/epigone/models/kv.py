"""Keys and values: a prefix that many rows share, and the rows of a running batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from epigone.errors import ModelError
from epigone.models.attention import KV, shareable


def attention_masks(model: Any, positions: Tensor, span: int) -> Tensor | dict[str, Tensor]:
    """Additive masks for keys that lie in the slot of their own position.

    `positions` (rows, queries) are the queries' positions; `span` slots are looked at. The
    result is (rows, 1, queries, span), one for each layer type where the model has several.
    """
    config = model.config.get_text_config()
    if config.model_type == "bloom" or getattr(config, "alibi", None) is True:
        # It reads distances off a mask of a row of zeros and ones.
        raise ModelError(
            "a model with ALiBi inside its masks cannot be run",
            value=config.model_type,
            fix="use a model with rotary or learned positions",
        )
    slots = torch.arange(span, device=positions.device)
    distance = positions[:, None, :, None] - slots
    window = getattr(config, "sliding_window", None)

    def additive(sliding: bool) -> Tensor:
        hidden = distance < 0
        if sliding and window is not None:
            hidden = hidden | (distance >= window)
        mask = torch.zeros(hidden.shape, dtype=model.dtype, device=positions.device)
        return mask.masked_fill_(hidden, torch.finfo(model.dtype).min)

    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        return additive(sliding=True)
    unknown = set(kinds) - {"full_attention", "sliding_attention"}
    if unknown:
        raise ModelError(
            "a model with this kind of layer cannot be run",
            value=", ".join(sorted(unknown)),
            fix="use a model with full or sliding-window attention only",
        )
    return {kind: additive(kind == "sliding_attention") for kind in sorted(set(kinds))}


class PrefixKV(Cache):  # type: ignore[misc]
    """Keys and values of one prefix, filled by a first forward and then only read.

    Once `frozen`, `update` stores nothing, so one object serves every batch. It gives the new
    tokens alone where attention reads the prefix in its place (`attention.sharing`), and else
    prefix plus new tokens for any number of rows, of which one layer's copy is alive at a time.
    """

    def __init__(self, *, shared: bool = False) -> None:
        """An empty prefix that the first forward fills; `shared` is read without copies."""
        super().__init__(layers=[])
        self.kv: list[KV] = []
        self.frozen = False
        self.shared = shared
        self.split: dict[int, tuple[Tensor, Tensor | None, Tensor]] = {}
        self._given: tuple[Tensor, int] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> KV:
        """Take or extend the prefix; tensors are (rows, heads, tokens, size)."""
        if not self.frozen:
            assert layer_idx == len(self.kv)
            self.kv.append((key_states, value_states))
        if not self.frozen or not self.kv:
            return key_states, value_states
        if self.shared:
            self._given = key_states, layer_idx
            return key_states, value_states
        rows = key_states.shape[0]
        keys, values = self.kv[layer_idx]
        return (
            torch.cat((keys.expand(rows, -1, -1, -1), key_states), dim=2),
            torch.cat((values.expand(rows, -1, -1, -1), value_states), dim=2),
        )

    def before(self, key: Tensor) -> KV | None:
        """See `attention.Reader`."""
        if not self.frozen or not self.kv:
            return None
        return self.kv[given_layer(self._given, key)]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens of the prefix."""
        return int(self.kv[layer_idx][0].shape[2]) if len(self.kv) > layer_idx else 0


def given_layer(given: tuple[Tensor, int] | None, key: Tensor) -> int:
    """The layer whose keys were given last; RuntimeError where attention was handed others."""
    if given is None or given[0] is not key:
        raise RuntimeError("attention was not handed the keys that the cache gave")
    return given[1]


def prefix_kv(model: Any, ids: Sequence[int]) -> PrefixKV:
    """Run a prefix once; no ids give an empty prefix that can be extended all the same."""
    cache = PrefixKV(shared=bool(ids) and shareable(model))
    if ids:
        tokens = torch.tensor([ids], device=model.device)
        positions = torch.arange(len(ids), device=model.device)[None]
        model(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=attention_masks(model, positions, len(ids)),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    cache.frozen = True
    return cache


class Slots(Cache):  # type: ignore[misc]
    """Keys and values of the rows at work: a token of position p lies in slot p of its row.

    There is no padding between tokens, so sliding windows see true distances, a row can leave
    by having the last row moved into its place, and another can join with any length. A shared
    prefix lies in no row: slots begin after it.
    """

    def __init__(self, rows: int, slots: int, prefix: PrefixKV) -> None:
        """Room for rows of `slots` positions that all begin with the prefix."""
        super().__init__(layers=[])
        self.rows = rows
        self.prefix = prefix
        self.skipped = prefix.get_seq_length() if prefix.shared else 0
        self.slots = slots - self.skipped
        self.kv: list[KV] = []
        self.first = 0
        self.span = 0
        self.positions: Tensor | None = None
        self.split = prefix.split
        self._given: tuple[Tensor, int] | None = None

    def plan(self, first: int, span: int, positions: Tensor | None) -> None:
        """Say where the next forward writes: rows from `first` on.

        `positions` (rows,) are those of one token each; None means consecutive tokens that end
        at `span`, right after the prefix.
        """
        self.first, self.span = first, span - self.skipped
        # An idle row's token may stand before the first slot.
        self.positions = None if positions is None else (positions - self.skipped).clamp(min=0)
        if self.span > self.slots:
            self.slots = max(self.span, self.slots + max(64, self.slots // 8))
            # One layer after the other: both sizes of all would need twice the room.
            for layer, (keys, values) in enumerate(self.kv):
                self.kv[layer] = self._grown(keys), self._grown(values)

    def _grown(self, old: Tensor) -> Tensor:
        new = old.new_zeros(*old.shape[:2], self.slots, old.shape[3])
        new[:, :, : old.shape[2]] = old
        return new

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> KV:
        """Write the new tokens; give the planned rows' slots up to `span`, as views."""
        if layer_idx == len(self.kv):
            # Zeros, not empty: a masked slot weighs 0, and 0 times a stray NaN is NaN.
            shape = (self.rows, key_states.shape[1], self.slots)
            keys = key_states.new_zeros(*shape, key_states.shape[3])
            self.kv.append((keys, value_states.new_zeros(*shape, value_states.shape[3])))
        copied = self.prefix.kv[layer_idx] if self.prefix.kv and not self.skipped else (None, None)
        keys = self._write(self.kv[layer_idx][0], key_states, copied[0])
        self._given = keys, layer_idx
        return keys, self._write(self.kv[layer_idx][1], value_states, copied[1])

    def _write(self, buffer: Tensor, new: Tensor, prefix: Tensor | None) -> Tensor:
        rows = buffer[self.first : self.first + new.shape[0]]
        if self.positions is not None:
            rows[torch.arange(len(rows), device=new.device), :, self.positions] = new[:, :, 0]
        else:
            start = self.span - new.shape[2]
            if prefix is not None:
                rows[:, :, :start] = prefix
            rows[:, :, start : self.span] = new
        return rows[:, :, : self.span]

    def before(self, key: Tensor) -> KV | None:
        """See `attention.Reader`."""
        return self.prefix.kv[given_layer(self._given, key)] if self.skipped else None

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row's first `length` positions over another row."""
        for buffers in self.kv:
            for buffer in buffers:
                own = length - self.skipped
                buffer[target, :, :own] = buffer[source, :, :own]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions in use."""
        return self.span + self.skipped
