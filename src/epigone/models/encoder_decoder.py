"""Encoder-decoders (T5, UL2): the prompt goes to the encoder, the answer to the decoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from epigone.errors import ModelError
from epigone.models.kept import Kept
from epigone.models.likelihood import MOST_LOGITS, Request, Result, gather, known_or
from epigone.models.stops import Generated, Hooks, Stops
from epigone.schema import Progress, silent

# Request -> its targets. A decoder row: its ids, and the targets of the requests that it answers.
_Targets = dict[int, tuple[int, ...]]
_Row = tuple[tuple[int, ...], _Targets]


def is_encoder_decoder(model: Any) -> bool:
    """Whether a model reads with an encoder and writes with a decoder."""
    return bool(getattr(model.config, "is_encoder_decoder", False))


def start_id(model: Any) -> int:
    """Id that the decoder starts with, looked for where transformers' `generate` looks.

    Raises ModelError where neither configuration names one.
    """
    for name in ("decoder_start_token_id", "bos_token_id"):
        for config in (model.generation_config, model.config):
            found = getattr(config, name, None)
            if isinstance(found, int):
                return found
    raise ModelError(
        "the model's configuration does not say which token its decoder starts with",
        fix="set decoder_start_token_id in config.json; T5's is the id of <pad>",
    )


def stated_limit(model: Any, tokenizer: Any) -> int | None:
    """Longest input that the model was made for, in tokens, where it or its tokenizer says so.

    A T5 runs beyond it, since its positions are relative, but has learned nothing about it.
    """
    for name in ("n_positions", "max_position_embeddings"):
        found = getattr(model.config, name, None)
        if isinstance(found, int):
            return found
    # transformers writes 1e30 for "none".
    most = tokenizer.model_max_length
    return int(most) if most < 2**31 else None


def generate_rows(
    model: Any,
    prompts: Sequence[Sequence[int]],
    stops: Stops,
    rows: int,
    hooks: Hooks,
) -> list[Generated]:
    """Answer each prompt, in the order given; at most `rows` of like length together."""
    writer = _Writer(model, prompts, stops, hooks)
    for batch in _batches([len(p) for p in prompts], rows, _budget(model)):
        writer.write(batch)
    return [writer.done[i] for i in range(len(prompts))]


def score_rows(
    model: Any,
    requests: Sequence[Request],
    limit: int,
    batch_tokens: int | None = None,
    kept: Kept | None = None,
    progress: Progress = silent,
) -> list[tuple[float, bool]]:
    """See `score.loglikelihoods`; a context is encoded once for all its continuations.

    Requests that differ only in the last token share one row of the decoder.
    """
    results: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
    contexts = _contexts(requests, limit)
    finished = len(requests) - sum(len(r) for rows in contexts.values() for r in rows.values())
    sources = list(contexts)
    budget = batch_tokens or _budget(model)
    for batch in _batches([len(s) for s in sources], len(sources), budget):
        own = {sources[i]: contexts[sources[i]] for i in batch}
        members = [r for rows in own.values() for targets in rows.values() for r in targets]
        for request, result in known_or(
            model, requests, members, kept, partial(_score_sources, model, own, budget)
        ):
            results[request] = result
        finished += len(members)
        progress(finished, len(requests))
    return results


def _score_sources(
    model: Any, contexts: Mapping[tuple[int, ...], Mapping[tuple[int, ...], _Targets]], budget: int
) -> Iterator[Result]:
    hidden, mask = encode(model, list(contexts))
    rows: list[_Row] = []
    owners: list[int] = []
    for at, own in enumerate(contexts.values()):
        rows += own.items()
        owners += [at] * len(own)
    for part in _decoder_batches(model, rows, hidden.shape[1], budget):
        # One source for each row of the decoder.
        index = torch.tensor([owners[i] for i in part], device=hidden.device)
        yield from _score(model, [rows[i] for i in part], hidden[index], mask[index])


def encode(model: Any, sources: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """The encoder's states (rows, tokens, size), padded on the right, and their mask."""
    longest = max(map(len, sources))
    ids = torch.tensor([[*s, *([0] * (longest - len(s)))] for s in sources])
    mask = torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in sources])
    ids, mask = ids.to(model.device), mask.to(model.device)
    return model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state, mask


def _budget(model: Any) -> int:
    """Encoder tokens of one forward."""
    return 16384 if model.device.type == "cuda" else 4096


def _batches(lengths: Sequence[int], rows: int, budget: int) -> Iterator[list[int]]:
    """Indices by falling length; at most `rows` and, padding counted, `budget` tokens a batch."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch and (len(batch) == rows or (len(batch) + 1) * lengths[batch[0]] > budget):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


class _Writer:
    """Rows of one batch are at the same position of the decoder, and leave when they stop."""

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        stops: Stops,
        hooks: Hooks,
    ) -> None:
        self.model = model
        self.hooks = hooks
        self.prompts = prompts
        self.stops = stops
        self.out: dict[int, list[int]] = {i: [] for i in range(len(prompts))}
        self.done: dict[int, Generated] = {}
        self.tokens = 0

    def write(self, rows: list[int]) -> None:
        if self.stops.max_new < 1:
            for i in rows:
                self._leave(i, "length")
            return
        hidden, mask = encode(self.model, [self.prompts[i] for i in rows])
        ids = torch.full((len(rows), 1), start_id(self.model), device=hidden.device)
        cache = None
        while rows:
            result = self.model(
                encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
                attention_mask=mask,
                decoder_input_ids=ids,
                past_key_values=cache,
                use_cache=True,
            )
            cache = result.past_key_values
            said = self.hooks.pick(result.logits[:, -1], rows)
            ids = torch.tensor(said, device=hidden.device)[:, None]
            stay = [at for at, i in enumerate(rows) if self._goes_on(i, said[at])]
            self._report(rows)
            if len(stay) < len(rows):
                rows = [rows[at] for at in stay]
                index = torch.tensor(stay, dtype=torch.long, device=hidden.device)
                hidden, mask, ids = hidden[index], mask[index], ids[index]
                cache.batch_select_indices(index)

    def _goes_on(self, i: int, token: int) -> bool:
        stop: Literal["end", "length", "text"] | None = None
        out = self.out[i]
        if token in self.stops.ids:
            stop = "end"
        else:
            out.append(token)
            self.tokens += 1
            if self.stops.hit(out):
                stop = "text"
            elif len(out) >= min(self.stops.max_new, self.stops.limit):
                stop = "length"
        if stop is not None:
            self._leave(i, stop)
        return stop is None

    def _leave(self, i: int, stop: Literal["end", "length", "text"]) -> None:
        self.done[i] = self.stops.result(self.out[i], stop)
        self.hooks.finished({i: self.done[i]})

    def _report(self, rows: Sequence[int]) -> None:
        part = sum(len(self.out[i]) for i in rows if i not in self.done) / self.stops.max_new
        self.hooks.progress(len(self.done) + part, len(self.prompts), f"{self.tokens} tokens")


def _contexts(
    requests: Sequence[Request], limit: int
) -> dict[tuple[int, ...], dict[tuple[int, ...], dict[int, tuple[int, ...]]]]:
    """Source -> continuation without its last token -> request -> its targets."""
    found: dict[tuple[int, ...], dict[tuple[int, ...], dict[int, tuple[int, ...]]]] = {}
    for i, (context, continuation) in enumerate(requests):
        if not continuation:
            continue
        if not context:
            raise ValueError(f"request {i} has no context; begin with the tokenizer's start token")
        if len(continuation) > limit:
            raise ValueError(f"request {i}: the continuation alone exceeds {limit} tokens")
        rows = found.setdefault(tuple(context[-limit:]), {})
        rows.setdefault(tuple(continuation[:-1]), {})[i] = tuple(continuation)
    return found


def _decoder_batches(
    model: Any, rows: Sequence[_Row], source: int, budget: int
) -> Iterator[list[int]]:
    vocabulary = model.get_output_embeddings().weight.shape[0]
    positions = max(1, MOST_LOGITS // vocabulary)
    yield from _batches([len(ids) + 1 for ids, _ in rows], max(1, budget // source), positions)


def _score(
    model: Any, rows: Sequence[_Row], hidden: Tensor, mask: Tensor
) -> Iterator[tuple[int, tuple[float, bool]]]:
    start = start_id(model)
    width = 1 + max(len(ids) for ids, _ in rows)
    # What stands after a row's last token cannot be seen from before it.
    fed = [[start, *ids, *([start] * (width - 1 - len(ids)))] for ids, _ in rows]
    logits = model(
        encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
        attention_mask=mask,
        decoder_input_ids=torch.tensor(fed, device=hidden.device),
        use_cache=False,
    ).logits
    targets: list[int] = []
    places: list[int] = []
    owners: list[int] = []
    for at, (_, wanted) in enumerate(rows):
        for request, ids in wanted.items():
            targets += ids
            places += range(at * width, at * width + len(ids))
            owners += [request] * len(ids)
    yield from gather(logits.reshape(len(rows) * width, -1), places, targets, owners)
