"""Generation for many prompts: shared prefixes, rows that leave when they stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from epigone.errors import ModelError
from epigone.models import newlines, vllm
from epigone.models.attention import sharing
from epigone.models.encoder_decoder import generate_rows, is_encoder_decoder
from epigone.models.kept import Kept, asked_ids
from epigone.models.kv import Slots, attention_masks, prefix_kv
from epigone.models.sampling import Draws, Sampling, greedy, seeds
from epigone.models.stops import Generated, Hooks, Stops
from epigone.schema import Progress, silent

# A shared prefix shorter than this costs more in an extra forward than it saves.
MIN_PREFIX = 16
# On a CPU a product of 5 to 15 rows takes up to 2.5 times as long as one of 16
# (bench/products.py), so that a few idle rows are cheaper than none.
FEW_ROWS, FULL_ROWS = 4, 16
# How much the keys and values of all rows may take on a CPU, whose memory others use as well: a
# share of the weights, or this many bytes; and a share of what is free on a GPU.
KV_SHARE, KV_LEAST, GPU_SHARE = 0.7, 768 << 20, 0.8
# Most answers end before they are longer.
USUAL = 256


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: frozenset[int],
    stop_texts: Sequence[str] = (),
    tokenizer: Any = None,
    batch_rows: int = 64,
    prefix: Sequence[int] | None = None,
    sampling: Sampling | None = None,
    kept: Kept | None = None,
    folder: Path | None = None,
    progress: Progress = silent,
) -> list[Generated]:
    """Continue each prompt, greedily or by `sampling`, in the order given.

    `prompts` are token ids. `prefix` is computed once for all prompts; None takes the longest
    prefix common to all of them, () shares nothing. A row ends at a stop id, before a stop text,
    after `max_new_tokens`, or where the model's positions end. What is `kept` is not written again.
    Progress counts prompts. The prompts of an encoder-decoder go to its encoder, which has no
    prefixes to share. Where the weights are those of a `folder`, many prompts are answered by vLLM
    if it is installed and can (`vllm.usable`).

    Raises ModelError for an attention type other than full and sliding, and for a prompt that is
    empty or fills the model's context; nothing has been computed then.
    """
    if stop_texts and tokenizer is None:
        raise ValueError("stop_texts need a tokenizer")
    limit, apart = context_limit(model), is_encoder_decoder(model)
    _refuse_long(prompts, limit, apart)
    newline = newlines.mark_id(tokenizer) if apart and tokenizer is not None else None
    stops = Stops(stop_ids, tuple(stop_texts), max_new_tokens, limit, tokenizer, newline)
    engine = vllm.release() if folder and vllm.usable(model, len(prompts), sampling) else None
    keys = [] if kept is None else _keys(model, prompts, stops, sampling, engine)
    known = {i: Generated.of(a) for i, k in enumerate(keys) if kept and (a := kept.get(k))}
    left = [i for i in range(len(prompts)) if i not in known]
    if not left:
        return [known[i] for i in range(len(prompts))]
    asked = [prompts[i] for i in left]
    # A prompt's numbers do not depend on which others are left.
    numbers = [n for i, n in enumerate(seeds(sampling, prompts)) if i not in known]

    def told(done: float, total: float, note: str = "") -> None:
        progress(len(known) + done, len(prompts), note)

    def finished(answers: Mapping[int, Generated]) -> None:
        if kept is not None:
            kept.put({keys[left[j]]: asdict(answer) for j, answer in answers.items()})

    hooks = Hooks(Draws(sampling, numbers).tokens if sampling else greedy, told, finished)
    if engine and folder:
        with vllm.aside(model):
            answers = vllm.generate_rows(
                folder, asked, stops, hooks, dtype=model.dtype, sampling=sampling, seeds=numbers
            )
    else:
        # Of all prompts: what is left would share more, and give other last digits.
        shared = 0 if apart else shared_prefix(prompts, prefix)
        answers = _answers(model, asked, shared, min(batch_rows, len(asked)), stops, hooks)
    known |= zip(left, answers, strict=True)
    return [known[i] for i in range(len(prompts))]


def _answers(
    model: Any,
    prompts: Sequence[Sequence[int]],
    shared: int,
    rows: int,
    stops: Stops,
    hooks: Hooks,
) -> list[Generated]:
    with torch.inference_mode():
        if is_encoder_decoder(model):
            return generate_rows(model, prompts, stops, rows, hooks)
        return _Loop(model, prompts, shared, rows, stops, hooks).run()


def _refuse_long(prompts: Sequence[Sequence[int]], limit: int, apart: bool) -> None:
    for i, prompt in enumerate(prompts):
        # A decoder's answer needs room in the same context.
        if not 0 < len(prompt) <= limit - (not apart):
            raise ModelError(
                f"prompt {i} is empty or does not fit the model's context of {limit} tokens",
                value=f"{len(prompt)} tokens",
                fix="shorten or leave out the prompt",
            )


def _keys(
    model: Any,
    prompts: Sequence[Sequence[int]],
    stops: Stops,
    sampling: Sampling | None,
    engine: str | None,
) -> list[str]:
    """What each answer depends on; a prompt that is asked again is another sample."""
    seen: Counter[tuple[int, ...]] = Counter()
    settings = [
        *(sorted(stops.ids), stops.texts, stops.max_new, sampling and asdict(sampling)),
        *(str(model.dtype), model.device.type, engine),
    ]
    keys = []
    for prompt in map(tuple, prompts):
        keys.append(asked_ids(prompt, "generated", settings, seen[prompt]))
        seen[prompt] += 1
    return keys


def context_limit(model: Any) -> int:
    """How many positions the model has; each half of an encoder-decoder has as many."""
    config = model.config if is_encoder_decoder(model) else model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or 2**31)


def rows_with_room(model: Any, slots: int) -> int:
    """How many rows of so many positions may lie side by side; 2**31 where it cannot be told."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", 0)
    shared = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)
    each = 2 * config.num_hidden_layers * shared * size * slots * model.dtype.itemsize
    if not each:
        return 2**31
    if model.device.type == "cuda":
        rows = int(GPU_SHARE * torch.cuda.mem_get_info(model.device)[0] // each)
        # What is free varies a little, and how many rows there are shows in last digits.
        return 1 << max(0, rows.bit_length() - 1)
    weights = sum({p.data_ptr(): p.numel() * p.element_size() for p in model.parameters()}.values())
    return int(max(KV_SHARE * weights, KV_LEAST) // each)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of leading ids that two sequences share."""
    n = min(len(a), len(b))
    for i in range(n):
        if a[i] != b[i]:
            return i
    return n


def shared_prefix(prompts: Sequence[Sequence[int]], prefix: Sequence[int] | None) -> int:
    """Length of the prefix to compute once; at least one token of each prompt stays outside it.

    Raises ValueError for a `prefix` that does not start every prompt.
    """
    most = min(len(p) for p in prompts) - 1
    if prefix is not None:
        if any(common_prefix(p, prefix) < len(prefix) for p in prompts):
            raise ValueError("the prefix does not start every prompt")
        return min(len(prefix), most)
    # The longest common prefix of a set is that of its least and its greatest member.
    low, high = min(map(tuple, prompts)), max(map(tuple, prompts))
    n = min(common_prefix(low, high), most)
    return n if n >= MIN_PREFIX and len(prompts) > 1 else 0


@dataclass(slots=True)
class _Row:
    prompt: int
    length: int  # tokens whose keys are in the cache
    out: list[int] = field(default_factory=list)


class _Loop:
    """Continuous batching: prompts join in free rows, a row leaves as soon as it stops."""

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        shared: int,
        rows: int,
        stops: Stops,
        hooks: Hooks,
    ) -> None:
        self.model = model
        self.hooks = hooks
        self.prompts = prompts
        self.shared = shared
        self.stops = stops
        # Popped from its end, so longest first: neighbours pad each other little.
        self.pending = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), -i))
        self.rows: list[_Row] = []
        self.done: dict[int, Generated] = {}
        self.new: dict[int, Generated] = {}
        self.tokens = 0
        longest = len(prompts[self.pending[-1]])
        cpu = model.device.type == "cpu"
        prefix = prefix_kv(model, prompts[0][:shared])
        copied = longest - (prefix.get_seq_length() if prefix.shared else 0)
        # Most answers end early, and a CPU's memory gives way; a GPU's does not.
        room = rows_with_room(model, copied + min(stops.max_new, USUAL if cpu else stops.max_new))
        self.capacity = max(1, min(rows, room))
        self.fill = FULL_ROWS if cpu and self.capacity > FEW_ROWS and room >= FULL_ROWS else 0
        # Long and short prompts run together pad each other; a CPU gains nothing from more rows.
        self.budget = 512 if cpu else 4096
        self.cache = Slots(max(self.capacity, self.fill), longest + min(stops.max_new, 64), prefix)

    def run(self) -> list[Generated]:
        if self.stops.max_new < 1:
            for i in range(len(self.prompts)):
                self._finish(i, [], "length")
            self.pending.clear()
        with sharing(self.model, self.cache if self.cache.skipped else None):
            while self.pending or self.rows:
                free = self.capacity - len(self.rows)
                # Joining one by one would run the weights for a few tokens each time.
                if self.pending and (free >= max(1, self.capacity // 4) or not self.rows):
                    self._admit(free)
                if self.rows:
                    self._step()
                self._report()
        return [self.done[i] for i in range(len(self.prompts))]

    def _admit(self, free: int) -> None:
        """Run the next prompts, about a budget's tokens of them, and take their first token."""
        new: list[_Row] = []
        longest = len(self.prompts[self.pending[-1]]) - self.shared
        while self.pending and len(new) < min(free, max(1, self.budget // longest)):
            i = self.pending.pop()
            new.append(_Row(i, len(self.prompts[i])))
        suffixes = [list(self.prompts[r.prompt][self.shared :]) for r in new]
        ids = torch.tensor([s + [s[-1]] * (longest - len(s)) for s in suffixes])
        span = self.shared + longest
        positions = torch.arange(self.shared, span).expand(len(new), -1)
        last = torch.tensor([[len(s) - 1] for s in suffixes])
        self.cache.plan(len(self.rows), span, None)
        first = self._forward(ids, positions, span, last)
        self.rows += new
        self._accept(new, self.hooks.pick(first, [r.prompt for r in new]))

    def _step(self) -> None:
        # Idle rows ask for token 0 at position 0 and write into a slot that nobody reads.
        rows = len(self.rows)
        idle = [[0]] * (self.fill - rows if FEW_ROWS < rows < self.fill else 0)
        ids = torch.tensor([[r.out[-1]] for r in self.rows] + idle)
        positions = torch.tensor([[r.length] for r in self.rows] + idle)
        for row in self.rows:
            row.length += 1
        span = max(r.length for r in self.rows)
        self.cache.plan(0, span, positions[:, 0].to(self.model.device))
        logits = self._forward(ids, positions, span, 1)[:rows]
        self._accept(list(self.rows), self.hooks.pick(logits, [r.prompt for r in self.rows]))

    def _forward(self, ids: Tensor, positions: Tensor, span: int, keep: Tensor | int) -> Tensor:
        device = self.model.device
        positions = positions.to(device)
        logits = self.model(
            input_ids=ids.to(device),
            position_ids=positions,
            attention_mask=attention_masks(self.model, positions, span),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep if isinstance(keep, int) else keep.to(device),
        ).logits
        last: Tensor = logits[:, -1]
        return last

    def _accept(self, rows: Sequence[_Row], tokens: Sequence[int]) -> None:
        for row, token in zip(rows, tokens, strict=True):
            if token in self.stops.ids:
                self._leave(row, "end")
                continue
            row.out.append(token)
            self.tokens += 1
            if self.stops.hit(row.out):
                self._leave(row, "text")
            elif len(row.out) >= self.stops.max_new or row.length >= self.stops.limit:
                self._leave(row, "length")

    def _leave(self, row: _Row, stop: Literal["end", "length", "text"]) -> None:
        self._finish(row.prompt, row.out, stop)
        last = self.rows.pop()
        if last is not row:
            at = next(i for i, r in enumerate(self.rows) if r is row)
            self.rows[at] = last
            self.cache.move(len(self.rows), at, last.length)

    def _finish(self, prompt: int, out: list[int], stop: Literal["end", "length", "text"]) -> None:
        self.done[prompt] = self.new[prompt] = self.stops.result(out, stop)

    def _report(self) -> None:
        if self.new:
            self.hooks.finished(self.new)
            self.new = {}
        part = sum(len(r.out) for r in self.rows) / self.stops.max_new
        self.hooks.progress(len(self.done) + part, len(self.prompts), f"{self.tokens} tokens")
