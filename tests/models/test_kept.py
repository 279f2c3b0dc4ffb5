"""Answers that outlive the process: none is computed twice, and none is lost or mixed up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from epigone.models.generate import generate
from epigone.models.kept import Kept, asked, asked_ids
from epigone.models.load import load
from epigone.models.sampling import Sampling
from epigone.models.score import loglikelihoods

from .test_score import requests, tiny


class Killed(BaseException):
    """As if the process were gone."""


class Calls:
    """Counts a model's forwards, and ends the process at one of them."""

    def __init__(self, model: Any, last: int = 10**9) -> None:
        self.seen = 0
        self.hook = model.register_forward_pre_hook(self)
        self.last = last

    def __call__(self, *_: object) -> None:
        self.seen += 1
        if self.seen > self.last:
            raise Killed


def test_likelihoods_go_on_with_the_same_digits(tmp_path: Path) -> None:
    model, wanted = tiny("llama"), requests()
    want = loglikelihoods(model, wanted, batch_tokens=24)
    calls = Calls(model)
    assert loglikelihoods(model, wanted, batch_tokens=24, kept=Kept()) == want
    calls.hook.remove()
    for last in range(1, calls.seen, 3):
        path = tmp_path / f"{last}.jsonl"
        cut = Calls(model, last)
        with pytest.raises(Killed):
            loglikelihoods(model, wanted, batch_tokens=24, kept=Kept(path))
        cut.hook.remove()
        # The last line may have been cut off, too.
        if path.exists():
            path.write_bytes(path.read_bytes()[:-9])
        rest = Calls(model)
        assert loglikelihoods(model, wanted, batch_tokens=24, kept=Kept(path)) == want
        rest.hook.remove()
        again = Calls(model)
        assert loglikelihoods(model, wanted, batch_tokens=24, kept=Kept(path)) == want
        again.hook.remove()
        assert again.seen == 0 and rest.seen <= calls.seen


@pytest.mark.parametrize("sampling", [None, Sampling(1.0, 0.9, 4)])
def test_generation_goes_on(tmp_path: Path, sampling: Sampling | None) -> None:
    model = tiny("llama")
    # The same prompt three times: three samples, not one.
    prompts = [[3, 4, 5], [6, 7, 8, 9], [3, 4, 5], [10, 11], [3, 4, 5], [12]]
    told: dict[str, Any] = {
        "max_new_tokens": 9, "stop_ids": frozenset({2, 5, 9}), "sampling": sampling,
        "batch_rows": 2,
    }  # fmt: skip
    want = generate(model, prompts, **told)
    if sampling:
        assert len({want[i].ids for i in (0, 2, 4)}) > 1
    for last in (0, 4, 8, 12):
        path = tmp_path / f"{last}.jsonl"
        cut = Calls(model, last)
        with pytest.raises(Killed):
            generate(model, prompts, kept=Kept(path), **told)
        cut.hook.remove()
        finished = len(path.read_text().splitlines()) if path.exists() else 0
        seen: list[float] = []
        rest = generate(
            model, prompts, kept=Kept(path), progress=lambda n, *_, s=seen: s.append(n), **told
        )
        assert rest == want
        assert seen[0] >= finished and seen[-1] == len(prompts)
    assert generate(model, prompts, kept=Kept(path), **told) == want


def test_other_settings_are_other_questions(tmp_path: Path) -> None:
    model, kept = tiny("llama"), Kept(tmp_path / "k.jsonl")
    told: dict[str, Any] = {"stop_ids": frozenset[int](), "kept": kept}
    short = generate(model, [[3, 4, 5]], max_new_tokens=2, **told)
    assert len(generate(model, [[3, 4, 5]], max_new_tokens=5, **told)[0].ids) == 5
    assert generate(model, [[3, 4, 5]], max_new_tokens=2, **told) == short
    assert asked_ids([1, 2], "a") != asked_ids([1, 2], "b") != asked_ids([1, 3], "b")
    assert asked([1, 2], 3) != asked([1, 2, 3])
    # The border between context and continuation is part of the question.
    one, two = (
        loglikelihoods(model, [([3, 4, 5], [6])], kept=kept),
        loglikelihoods(model, [([3, 4], [5, 6])], kept=kept),
    )
    assert one != two
    with torch.no_grad():
        assert loglikelihoods(model, [([3, 4], [5, 6])]) == two


def test_an_encoder_decoder_goes_on(tmp_path: Path, tiny_t5: Path) -> None:
    model = load(tiny_t5, "fp32").model
    asked_of = [([10 + q, 7, *range(3, 3 + q), 1], [c]) for q in range(8) for c in (3, 4, 5)]
    want = loglikelihoods(model, asked_of, batch_tokens=24)
    path = tmp_path / "k.jsonl"
    cut = Calls(model, 1)
    with pytest.raises(Killed):
        loglikelihoods(model, asked_of, batch_tokens=24, kept=Kept(path))
    cut.hook.remove()
    assert path.read_text()
    rest = Calls(model)
    assert loglikelihoods(model, asked_of, batch_tokens=24, kept=Kept(path)) == want
    rest.hook.remove()
    again = Calls(model)
    assert loglikelihoods(model, asked_of, batch_tokens=24, kept=Kept(path)) == want
    again.hook.remove()
    assert again.seen == 0 < rest.seen
