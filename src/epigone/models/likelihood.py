"""From logits to log-likelihoods."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch

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
