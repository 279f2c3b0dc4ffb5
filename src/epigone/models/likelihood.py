"""From logits to log-likelihoods."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from epigone.models.kept import Kept, asked_ids

Request = tuple[Sequence[int], Sequence[int]]
Result = tuple[int, tuple[float, bool]]

# Logits of one forward: 2**26 fp32 values are 256 MiB.
MOST_LOGITS = 2**26


def gather(
    logits: torch.Tensor, places: list[int], targets: list[int], owners: list[int]
) -> Iterator[Result]:
    """Each owner's sum of natural-log probabilities, and whether all its targets are greedy.

    `logits` are (positions, vocabulary); target `targets[i]` is predicted at row `places[i]` and
    belongs to `owners[i]`.
    """
    total = logits.float().logsumexp(-1)
    best = logits.argmax(-1).tolist()
    chosen = logits[places, targets].float() - total[places]
    sums: dict[int, float] = defaultdict(float)
    greedy: dict[int, bool] = defaultdict(lambda: True)
    for place, target, owner, value in zip(places, targets, owners, chosen.tolist(), strict=True):
        sums[owner] += value
        greedy[owner] &= best[place] == target
    yield from ((i, (sums[i], greedy[i])) for i in sums)


def known_or(
    model: Any,
    requests: Sequence[Request],
    batch: Sequence[int],
    kept: Kept | None,
    compute: Callable[[], Iterable[Result]],
) -> Iterator[Result]:
    """The results of a batch of requests: kept ones, or computed and kept.

    All of a batch or none are taken from what is kept: else a run that goes on would make up other
    batches, and the last digits of its results would be others.
    """
    if kept is None:
        yield from compute()
        return
    keys = {i: _key(model, requests[i]) for i in batch}
    known = {i: kept.get(key) for i, key in keys.items()}
    if any(k is None for k in known.values()):
        found = dict(compute())
        kept.put({keys[i]: result for i, result in found.items()})
        yield from found.items()
        return
    yield from ((i, (float(k[0]), bool(k[1]))) for i, k in known.items())


def _key(model: Any, request: Request) -> str:
    context, continuation = request
    where = [str(model.dtype), model.device.type]
    return asked_ids((*context, *continuation), "likelihood", len(continuation), where)
