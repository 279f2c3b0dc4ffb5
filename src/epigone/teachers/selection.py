"""Active learning: which of the prompts that are not asked yet a teacher is asked next."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from epigone.corpus.contamination import words
from epigone.corpus.stage import items_in
from epigone.errors import ModelError
from epigone.files import read_jsonl, write_jsonl
from epigone.models.references import locate_data
from epigone.schema import Message, Progress
from epigone.study.amounts import WHOLE
from epigone.study.specs import CANDIDATES, SelectSpec, amount_folder
from epigone.teachers.pool import CHOSEN, enough, fitting
from epigone.teachers.prompts import Prompt, read_prompts

Way = Callable[[Sequence[Path], Sequence[Prompt], Progress], list[float]]
# Tokens of a turn that students are asked about, and of what stands before it.
_LONGEST, _BEFORE = 128, 256
# Positions whose distributions over the vocabulary are held at a time.
_AT_ONCE = 32


def run(
    spec: SelectSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """See `epigone.teachers.run_select`; writes chosen.jsonl and scores.jsonl."""
    data = spec.pool.data
    assert data is not None
    items = [item for _, folder in sorted(inputs.items()) for item in items_in(folder)]
    read = read_prompts(
        locate_data(data.ref, progress, fingerprint=data.fingerprint), spec.pool.system
    )
    asked = {
        row["id"]
        for role, folder in inputs.items()
        if role.startswith("asked_")
        for row in read_jsonl(folder / CHOSEN)
    }
    left = fitting(read, spec.pool, items, asked)
    wanted = spec.pool.size
    candidates = enough(left, wanted, len(read.prompts), CANDIDATES * wanted)
    students = [
        folder / amount_folder(WHOLE)
        for role, folder in sorted(inputs.items())
        if role.startswith("student_")
    ]
    if spec.by == "diversity":
        before = [p for p in read.prompts if p.id in asked]
        chosen, scores = diverse(candidates, spec.pool.size, before)
    else:
        way: Way = losses if spec.by == "loss" else disagreements
        scores = way(students, candidates, progress)
        order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
        chosen = [candidates[i] for i in order[: spec.pool.size]]
    known = {p.id: round(s, 6) for p, s in zip(candidates, scores, strict=True)}
    write_jsonl(out / "scores.jsonl", ({"id": name, "score": s} for name, s in known.items()))
    write_jsonl(out / CHOSEN, ({"id": p.id, "score": known[p.id]} for p in chosen))
    mean = sum(scores) / max(len(scores), 1)
    picked = [known[p.id] for p in chosen]
    return {
        "candidates": len(candidates),
        "chosen": len(chosen),
        "mean_score": round(mean, 4),
        "mean_score_of_chosen": round(sum(picked) / max(len(picked), 1), 4),
    }


def losses(students: Sequence[Path], prompts: Sequence[Prompt], progress: Progress) -> list[float]:
    """Mean loss of a student on the tokens of each prompt's first turn, in nats."""
    from epigone.models.load import load
    from epigone.models.score import loglikelihoods

    loaded = load(students[0])
    turns = [_turn(loaded.tokenizer, p) for p in prompts]
    requests = [(turn.before, turn.ids) for turn in turns]
    told = _told(progress, "the student's loss")
    found = loglikelihoods(loaded.model, requests, progress=told)
    return [-value / len(turn.ids) for (value, _), turn in zip(found, turns, strict=True)]


def disagreements(
    students: Sequence[Path], prompts: Sequence[Prompt], progress: Progress
) -> list[float]:
    """How far students disagree on what comes next, mean over a prompt's tokens, in nats.

    It is the Jensen-Shannon divergence of their distributions (query by committee, with the
    divergence to the mean of McCallum and Nigam 1998, section 4.1).
    """
    import torch

    from epigone.models.load import load

    loaded = [load(folder) for folder in students]
    if any(model.encoder_decoder for model in loaded):
        raise ModelError("students with an encoder have no distribution over a prompt's tokens",
                         value=students[0].parent.name, fix="select: loss")  # fmt: skip
    told = _told(progress, "how far students disagree")
    found = []
    with torch.inference_mode():
        for done, prompt in enumerate(prompts, 1):
            turn = _turn(loaded[0].tokenizer, prompt)
            ids = torch.tensor([[*turn.before, *turn.ids[:-1]]], device=loaded[0].device)
            logits = [m.model(input_ids=ids, use_cache=False).logits[0] for m in loaded]
            own = [part[len(turn.before) - 1 :] for part in logits]
            found.append(float(jensen_shannon(own).mean()))
            told(done, len(prompts))
    return found


def jensen_shannon(logits: Sequence[Any]) -> Any:
    """The divergence at each position of distributions given as (positions, vocabulary), in nats:

    the entropy of their mean less the mean of their entropies (Lin 1991, equation 5.1).
    """
    import torch

    found = []
    for start in range(0, len(logits[0]), _AT_ONCE):
        logs = [part[start : start + _AT_ONCE].float().log_softmax(-1) for part in logits]
        mean = torch.stack(logs).logsumexp(0) - math.log(len(logs))
        entropies = torch.stack([_entropy(log) for log in logs]).mean(0)
        found.append((_entropy(mean) - entropies).clamp(min=0))
    return torch.cat(found)


def _entropy(logs: Any) -> Any:
    return -(logs.exp() * logs).sum(-1)


def diverse(
    candidates: Sequence[Prompt], size: int, before: Iterable[Prompt] = ()
) -> tuple[list[Prompt], list[float]]:
    """Prompts that together have the most words and pairs of words, each as much as it is rare.

    Greedy: each time the one that adds most to those that are there, `before` included, by the root
    of its length; a lazy queue finds the same (Minoux 1978). Scores are what each would add alone.
    """
    grams = [_grams(p) for p in candidates]
    often = Counter(g for own in grams for g in own)
    weight = {g: math.log(1 + len(grams) / n) for g, n in often.items()}
    covered = {g for p in before for g in _grams(p)}

    def gain(i: int) -> float:
        # Exact, because the order of a set is nobody's choice.
        added = math.fsum(weight[g] for g in grams[i] if g not in covered)
        return added / math.sqrt(max(len(grams[i]), 1))

    alone = [gain(i) for i in range(len(grams))]
    queue = [(-value, i) for i, value in enumerate(alone)]
    heapq.heapify(queue)
    chosen: list[Prompt] = []
    while queue and len(chosen) < size:
        told, i = heapq.heappop(queue)
        now = -gain(i)
        # A gain only falls: one that is still the highest needs no look at the others.
        if now == told or not queue or (now, i) <= queue[0]:
            chosen.append(candidates[i])
            covered |= grams[i]
        else:
            heapq.heappush(queue, (now, i))
    return chosen, alone


def _grams(prompt: Prompt) -> frozenset[tuple[str, ...]]:
    said = [word for turn in prompt.turns for word in words(turn)]
    return frozenset([*((w,) for w in said), *pairwise(said)])


@dataclass(frozen=True, slots=True)
class _Turn:
    """The first tokens of a user's turn, and what stands before it."""

    before: tuple[int, ...]
    ids: tuple[int, ...]


def _turn(tokenizer: Any, prompt: Prompt) -> _Turn:
    """A prompt's first turn as a student would be asked it; what all prompts share is left out."""
    from epigone.models.chat import prompt_ids

    asked = prompt_ids(tokenizer, [*prompt.given, Message("user", prompt.turns[0])])
    # Where another turn would begin and end: a template's own tokens surprise nobody.
    other = prompt_ids(tokenizer, [*prompt.given, Message("user", "\u2042")])
    start = _alike(asked, other)
    end = len(asked) - min(_alike(asked[::-1], other[::-1]), len(asked) - start - 1)
    start = min(max(start, 1), len(asked) - 1)
    ids = asked[start : max(end, start + 1)][:_LONGEST]
    return _Turn(tuple(asked[max(0, start - _BEFORE) : start]), tuple(ids))


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
                min(len(one), len(other)))  # fmt: skip


def _told(progress: Progress, what: str) -> Callable[..., None]:
    def tell(done: float, total: float, _: str = "") -> None:
        progress(done, total, what)

    return tell
