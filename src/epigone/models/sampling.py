"""Sampled tokens that depend on the prompt's own seed, not on who shares its batch."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

# The next token of each of the prompts of these numbers; logits are (prompts, vocabulary).
Pick = Callable[[Tensor, Sequence[int]], list[int]]
# Logits in double precision at a time: 32 MiB, and a few times as much in what is made of them.
_MOST = 2**22


def greedy(logits: Tensor, prompts: Sequence[int]) -> list[int]:
    """The likeliest token of each prompt."""
    found: list[int] = logits.argmax(-1).tolist()
    return found


@dataclass(frozen=True, slots=True)
class Sampling:
    """Temperature, the share of the probability that is drawn from (Holtzman et al. 2019), seed."""

    temperature: float
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for what is no distribution."""
        if self.temperature <= 0 or not 0 < self.top_p <= 1:
            raise ValueError("a temperature is above 0, and top_p above 0 and at most 1")


def seeds(sampling: Sampling | None, prompts: Sequence[Sequence[int]]) -> list[int]:
    """A number of 128 bits for each prompt, in their order; greedy choices need none.

    It is made of the seed, the prompt's ids, and how often the same prompt came before: neither the
    order of prompts nor the size of batches changes what is drawn.
    """
    if sampling is None:
        return [0] * len(prompts)
    seen: Counter[tuple[int, ...]] = Counter()
    found = []
    for prompt in map(tuple, prompts):
        key = repr((sampling.seed, prompt, seen[prompt])).encode()
        seen[prompt] += 1
        found.append(int.from_bytes(hashlib.sha256(key).digest()[:16], "little"))
    return found


class Draws:
    """For each prompt a stream of numbers between 0 and 1 of its own."""

    def __init__(self, sampling: Sampling, seeds: Sequence[int]) -> None:
        """One stream for each of the prompts' seeds, in their order."""
        self.sampling = sampling
        self._streams = [
            numpy.random.Generator(numpy.random.Philox(key=number)) for number in seeds
        ]

    def tokens(self, logits: Tensor, prompts: Sequence[int]) -> list[int]:
        """The next token of each of the numbered prompts; logits are (prompts, vocabulary)."""
        numbers = torch.tensor([self._streams[i].random() for i in prompts], dtype=torch.float64)
        # In double precision a large vocabulary takes much room: some rows at a time.
        rows = max(1, _MOST // logits.shape[-1])
        found: list[int] = []
        for start in range(0, len(prompts), rows):
            own = numbers[start : start + rows].to(logits.device)
            found += self._drawn(logits[start : start + rows], own[:, None])
        return found

    def _drawn(self, logits: Tensor, numbers: Tensor) -> list[int]:
        probabilities = (logits.double() / self.sampling.temperature).softmax(-1)
        ordered, ids = probabilities.sort(dim=-1, descending=True, stable=True)
        total = ordered.cumsum(-1)
        # The first token stays, and each one before which there is less than the share.
        kept = total - ordered < self.sampling.top_p
        most = torch.where(kept, total, 0).amax(-1, keepdim=True)
        at = torch.searchsorted(total, numbers * most, right=True)
        # Rounding may carry a number to the very end of the sum.
        at = at.clamp(max=kept.sum(-1, keepdim=True) - 1)
        found: list[int] = ids.gather(-1, at)[:, 0].tolist()
        return found
